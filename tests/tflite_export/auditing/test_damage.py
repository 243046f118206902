"""Damaged files: inspect and audit read them or refuse them with a ValueError, quickly."""

import json
import time

import numpy as np
import pytest

from benchmarks.mutations import WAYS, Base, mutated
from tests.tflite_export.auditing.test_rules import conv, half
from tests.tflite_export.auditing.test_verdict import mixed
from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import describe
from tflite_export.auditing.verdict import TARGETS, audit

SECONDS = 2.0


def bases() -> list[Base]:
    made = {"dense": dense(), "integers": integer_dense(), "mixed": mixed(), "conv": conv(), "half": half()}
    return [Base.of(name, content) for name, content in made.items()]


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_damaged_files_are_read_or_refused(first):
    files, read = bases(), 0
    for seed in range(first, first + 100):
        what, content = mutated(seed, files)
        start = time.process_time()
        try:
            description = describe(content)
            description.text(tensors=True)
            json.dumps(description.rows())
            for target in TARGETS:
                found = audit(content, target, tools=False)
                found.to_json()
            str(found)
            read += 1
        except ValueError:
            pass
        except Exception as error:
            pytest.fail(f"seed {seed} ({what}): {type(error).__name__}: {error}")
        assert time.process_time() - start < SECONDS, f"seed {seed} ({what})"
    assert 10 < read < 95  # both ways are taken


def test_damage_comes_from_the_seed_alone_and_in_every_way():
    files = bases()
    assert mutated(7, files) == mutated(7, files) != mutated(8, files)
    assert {mutated(seed, files)[0].split()[0] for seed in range(60)} == set(WAYS)


def test_the_structure_leaves_out_the_values_of_constants():
    weights = np.full((64, 64), 0x55, "int8")
    tensors = [tensor((1, 64), "INT8"), tensor((64, 64), "INT8", weights), tensor((1, 64), "INT8")]
    base = Base.of("wide", file_of(tensors, [op("FULLY_CONNECTED", (0, 1, -1), (2,))], (0,), (2,)))
    held = b"".join(base.content[start:end] for start, end in base.structure)
    assert b"\x55" * 100 not in held and len(base.content) - len(held) == weights.size
