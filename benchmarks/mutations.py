"""Damaged copies of `.tflite` files, each from its seed alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

WAYS = ("flipped", "numbers", "truncated", "spliced")


@dataclass(frozen=True)
class Base:
    """A whole file and the places in it that are structure: everything but the values of its larger constants."""

    name: str
    content: bytes
    structure: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, name: str, content: bytes) -> "Base":
        model = schema.Model.GetRootAs(content, 0)
        begin = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
        taken = []
        for index in range(model.BuffersLength()):
            buffer = model.Buffers(index)
            if buffer.DataLength() > 64:
                start = buffer.DataAsNumpy().__array_interface__["data"][0] - begin
                taken.append((start, start + buffer.DataLength()))
        edges = [0, *(edge for pair in sorted(taken) for edge in pair), len(content)]
        free = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
        return cls(name, content, tuple(free))


def mutated(seed: int, bases: Sequence[Base]) -> tuple[str, bytes]:
    """(what was done, bytes): flipped bits and bytes, changed 32-bit numbers, a cut, or a piece of another file."""
    rng = random.Random(seed)
    base = rng.choice(bases)
    way = rng.choices(WAYS, (3, 4, 1, 2))[0]
    content = bytearray(base.content)
    if way == "flipped":
        for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
            place = _place(rng, base)
            content[place] = rng.choice((content[place] ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 255))
    elif way == "numbers":
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            place = min(_place(rng, base) & ~3, len(content) - 4)
            content[place : place + 4] = _number(rng, content[place : place + 4]).to_bytes(4, "little")
    elif way == "truncated":
        content = content[: rng.choice((_place(rng, base), rng.randrange(len(content)))) or 1]
    else:
        other = rng.choice(bases)
        start, length = _place(rng, other), rng.choice((4, 16, 64, 256, 4096))
        piece, place = other.content[start : start + length], _place(rng, base)
        content[place : place + rng.choice((0, len(piece)))] = piece
    return f"{way} {base.name}", bytes(content)


def _place(rng: random.Random, base: Base) -> int:
    """Mostly in the structure: damage in the values of a kernel is seldom seen."""
    if rng.random() < 0.25:
        return rng.randrange(len(base.content))
    spans = [end - start for start, end in base.structure]
    start, end = rng.choices(base.structure, spans)[0]
    return rng.randrange(start, end)


def _number(rng: random.Random, old: bytes) -> int:
    value = int.from_bytes(old, "little")
    near = rng.choice((-8, -4, -1, 1, 4, 8, 12, 256, -256))
    flipped = value ^ (1 << rng.randrange(32))
    return rng.choice((value + near, flipped, rng.getrandbits(32), 0, 2**31 - 1, 2**32 - 1)) % 2**32
