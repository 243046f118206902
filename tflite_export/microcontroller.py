"""A `.tflite` file as sources for a microcontroller: C array, constants, resolver, arena size, example."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tflite_export.bench.arena import INSTALL, Arena, is_measurable, measure_arena
from tflite_export.errors import ExportError
from tflite_export.files import write_whole
from tflite_export.firmware_example import texts
from tflite_export.firmware_text import C_TYPES, End, Plan
from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.graph import Model, Signature
from tflite_export.resolver import CUSTOM, KNOWN, methods_of, resolver_of
from tflite_export.scratch import scratch

_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr const_cast
    continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto
    if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public
    register reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct switch
    template this thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t
    while xor xor_eq main std tflite
    """.split()
)
_THIRD_PARTY = (
    Path("tensorflow/lite/micro/tools/make/downloads/flatbuffers/include/flatbuffers/flatbuffers.h"),
    Path("third_party/flatbuffers/include/flatbuffers/flatbuffers.h"),
)


@dataclass(frozen=True)
class Firmware:
    """What was written for a microcontroller.

    Attributes:
        folder: that holds the files.
        files: their paths: NAME.h, NAME.c, NAME_resolver.h, NAME_main.cc, Makefile.
        resolver: methods of MicroMutableOpResolver, one an operation kind.
        arena: as measured with reference kernels on this machine; None when it could not be.
        arena_bytes: the size written into NAME.h: measured, plus what optimized kernels may ask for; None with `arena`.
        ends: one text an input and output: name, type, shape, scale and zero point.
        notes: what the user should know.
    """

    folder: Path
    files: tuple[Path, ...]
    resolver: tuple[str, ...]
    arena: Arena | None
    arena_bytes: int | None
    ends: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        from tflite_export.rendering import render, table

        rows = [("file", path.name, f"{path.stat().st_size:,} bytes" if path.is_file() else "") for path in self.files]
        rows += [("operation", method, "") for method in self.resolver]
        rows += [("arena measured", str(self.arena or "-"), "")]
        rows += [("arena in the header", f"{self.arena_bytes:,} bytes" if self.arena_bytes else "-", "")]
        rows += [("input or output", text, "") for text in self.ends] + [("note", text, "") for text in self.notes]
        return render(table(f"Firmware in {self.folder}", ("", "value", "size"), rows, right=("size",)))


def firmware(
    content: File,
    out: str | os.PathLike[str],
    *,
    name: str = "model",
    tflm: str | os.PathLike[str] | None = None,
) -> Firmware:
    """Writes what a firmware needs to run a file on tflite-micro.

        NAME.h             sizes, arena, and of each input and output: type, shape, scale, zero point (C and C++)
        NAME.c             the file's bytes, aligned to 16 (C and C++)
        NAME_resolver.h    MicroMutableOpResolver with exactly the operations of the file
        NAME_main.cc       an example that runs it once
        Makefile           compiles the example: make TFLM=checkout LIB=libtensorflow-microlite.a

    The arena is measured on tflite-micro's own interpreter in a process of its own; the header adds what CMSIS-NN's
    kernels may want as scratch. `interpreter.arena_used_bytes()` on the device tells what is really in use.

    Args:
        content: bytes, a path, or an object with `.content`.
        out: the folder, made when it is not there. Existing files of these names are replaced, each whole or not at
            all.
        name: a C identifier that every file, array and constant starts with.
        tflm: a checkout of tflite-micro: its resolver is asked instead of the built-in list, and the Makefile uses it.

    Returns:
        What was written; prints as a table. When tflite-micro's interpreter is not installed, `arena` is None, a note
        tells the command that installs it, and the example does not compile before an arena size is passed.

    Raises:
        ValueError: not a TFLite file, `name` is no C identifier, or `tflm` is no checkout.
        ExportError: tflite-micro has no kernel for an operation or refuses the file, the message names the operation;
            or a file cannot be written.

    Source: tflite-micro, docs and micro_mutable_op_resolver.h.

    >>> print(firmware("fashion.tflite", "firmware", name="fashion"))           # doctest: +SKIP
    """
    _check_name(name)
    data = content_of(content)
    model = read(data, name=name_of(content))
    methods = KNOWN if tflm is None else methods_of(tflm)
    checkout = "" if tflm is None else _checkout(tflm)
    wanted = resolver_of(model, methods)
    ends = _ends(model)
    notes: list[str] = _notes(model, checkout)
    arena, unmeasured = _arena(data, model)
    size, arena_note = None, unmeasured
    if arena is not None:
        margin = scratch(model)
        size = -(-(arena.total + margin) // 16) * 16
        arena_note = (
            f"Measured: {arena.total} bytes with reference kernels on a 64 bit machine, where pointers are larger than "
            f"on the device. Margin: {margin} bytes of scratch that CMSIS-NN's kernels may ask for. "
            f"interpreter.arena_used_bytes() on the device tells the true figure."
        )
    elif unmeasured:
        notes.append(unmeasured)
    plan = Plan(name, data, ends, wanted, size, arena_note, _variables(model), checkout)
    folder = _folder(out)
    files = tuple(write_whole(folder / file, text.encode("ascii")) for file, text in texts(plan))
    return Firmware(folder, files, wanted, arena, size, tuple(map(_told, ends)), tuple(notes))


def _check_name(name: str) -> None:
    fits = isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name) and "__" not in name
    if not fits or name in _KEYWORDS:
        raise ValueError(
            "`name` must be a C identifier of up to 41 letters, digits and underscores, none doubled, that starts with "
            f"a letter and is no word of C or C++. Received: name={name!r}"
        )


def _folder(out: str | os.PathLike[str]) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(f"`out` must name a folder. Received: out={str(folder)!r}: {reason}") from error
    return folder


def _checkout(tflm: str | os.PathLike[str]) -> str:
    """The checkout's path for the Makefile."""
    path = Path(tflm).resolve().as_posix()
    if not re.fullmatch(r"[\w./+@~-]+", path, re.ASCII):
        raise ValueError(f"`tflm` must be a path without spaces and marks that make reads. Received: tflm={path!r}")
    return path


def _notes(model: Model, checkout: str) -> list[str]:
    notes = []
    if len([s for s in model.signatures if s.subgraph != 0]):
        notes.append("tflite-micro runs the first subgraph alone: signatures of the others cannot be called.")
    graph = model.subgraphs[0]
    dynamic = [graph.tensors[i].name for i in graph.inputs if -1 in graph.tensors[i].dynamic[1:]]
    if dynamic:
        notes.append(f"Inputs {dynamic} have a size that is only known at run time; tflite-micro takes it as 1.")
    if checkout and not any((Path(checkout) / header).is_file() for header in _THIRD_PARTY):
        notes.append(
            "The checkout lacks the headers of others (flatbuffers, gemmlowp, ruy) that the example includes: its own "
            "Makefile downloads them, target `third_party_downloads`."
        )
    return notes


def _arena(data: bytes, model: Model) -> tuple[Arena | None, str]:
    """(arena, "") or (None, why it could not be measured).

    Raises:
        ExportError: the interpreter refuses the file.
    """
    if not is_measurable():
        return None, f"The arena was not measured, which needs the tflite-micro interpreter: {INSTALL}"
    own = sorted({op.kind for graph in model.subgraphs for op in graph.operators if op.is_custom and op.kind in CUSTOM})
    try:
        return measure_arena(data), ""
    except ExportError as error:
        if own:
            return None, f"The arena was not measured: the interpreter on this machine lacks kernels for {own}. {error}"
        raise


def _ends(model: Model) -> tuple[End, ...]:
    """Inputs and outputs of the first subgraph, in the order in which the interpreter counts them."""
    graph = model.subgraphs[0]
    signature = next((s for s in model.signatures if s.subgraph == 0), Signature("", 0, {}, {}))
    result = []
    for side, indices, names in (
        ("input", graph.inputs, signature.inputs),
        ("output", graph.outputs, signature.outputs),
    ):
        named = {index: name for name, index in reversed(list(names.items()))}
        for position, index in enumerate(indices):
            tensor = graph.tensors[index]
            label = named.get(index, tensor.name) or f"{side}{position}"
            if tensor.type not in C_TYPES:
                raise ExportError(f"The {side} {label!r} is of type {tensor.type}, which C has no type for.")
            grid = tensor.quantization
            if grid is not None and not np.all(np.isfinite(grid.scale) & (grid.scale > 0)):
                raise ExportError(f"The {side} {label!r} has a scale that is not positive: {grid.scale.tolist()[:4]}")
            result.append(End(side, position, label, tensor))
    return tuple(result)


def _told(end: End) -> str:
    grid, text = end.tensor.quantization, f"{end.id} {end.label!r}: {end.tensor.type} {list(end.tensor.shape)}"
    if not end.is_integer_grid or grid is None:
        return text
    return f"{text}, scale {grid.scale[0]!s}, zero point {int(grid.zero_point[0])}"


def _variables(model: Model) -> int:
    """Number of resource variables, which tflite-micro needs to know beforehand."""
    names = set()
    for graph in model.subgraphs:
        for op in graph.operators:
            if op.kind == "VAR_HANDLE":
                names.add((getattr(op.options, "container", None), getattr(op.options, "sharedName", None)))
    return len(names)
