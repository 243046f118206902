"""Several signatures in one file: each a subgraph of its own, the constants of all stored once."""

from collections.abc import Mapping, Sequence
from typing import Any

from tflite_export.buffers import drop_unused, share
from tflite_export.draft import Draft
from tflite_export.flatbuffer import store

Shapes = Mapping[str, Sequence[int]]
# The numbers of other subgraphs in the options of an operation.
_SUBGRAPHS = ("thenSubgraphIndex", "elseSubgraphIndex", "condSubgraphIndex", "bodySubgraphIndex", "initSubgraphIndex")


def planned(signature: str, signatures: Mapping[str, Shapes] | None, shapes: Shapes | None) -> dict[str, Shapes]:
    """The signatures of a file: key -> the shapes of its inputs.

    Args:
        signature: key of the only one.
        signatures: several, in their order, each with shapes of its own.
        shapes: those that all have.

    Raises:
        ValueError: `signatures` is empty, or `signature` is given beside it.
        TypeError: `signatures` is no dict of dicts.

    >>> planned("serving_default", {"prefill": {"tokens": (8,)}, "decode": {"tokens": (1,)}}, {"mask": (4,)})["decode"]
    {'mask': (4,), 'tokens': (1,)}
    """
    common = dict(shapes or {})
    if signatures is None:
        return {signature: common}
    if signature != "serving_default":
        raise ValueError(f"`signature` and `signatures` exclude each other. Received: signature={signature!r}")
    if not isinstance(signatures, Mapping) or not all(isinstance(own, Mapping) for own in signatures.values()):
        raise TypeError(f"`signatures` must be {{key: {{input: shape}}}}. Received: signatures={signatures!r}")
    if not signatures or not all(isinstance(key, str) and key for key in signatures):
        raise ValueError(f"`signatures` must hold names. Received: signatures={signatures!r}")
    return {key: {**common, **own} for key, own in signatures.items()}


def by_signature(data: Any, keys: Sequence[str]) -> list[Any]:
    """Calibration data for each signature of a file that has several.

    Args:
        data: a dict by signature, or None.
        keys: of the signatures.

    Raises:
        ValueError: `data` is no dict whose keys are those of the signatures.
    """
    if data is None:
        return [None] * len(keys)
    if not isinstance(data, Mapping) or set(data) != set(keys):
        received = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(f"`calibration` must be a dict by signature, with the keys {list(keys)}. Received: {received}")
    return [data[key] for key in keys]


def merged(drafts: Sequence[Draft]) -> bytes:
    """One file of several, each with its signature.

    Args:
        drafts: files of one signature each; the first one's subgraph is what runs when no signature is named. Used up.

    Returns:
        The file; constants of equal bytes are stored once.
    """
    model = drafts[0].model
    drop_unused(model)
    for draft in drafts[1:]:
        drop_unused(draft.model)
        _append(model, draft.model)
    share(model)
    return store(model)


def _append(model: Any, other: Any) -> None:
    """Adds the subgraphs, constants and signatures of `other`; its metadata says nothing that the first one's does
    not."""
    subgraphs, buffers = len(model.subgraphs), len(model.buffers) - 1
    codes = [_code(model, code) for code in other.operatorCodes]
    for graph in other.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer += buffers if tensor.buffer else 0
        for op in graph.operators:
            op.opcodeIndex = codes[op.opcodeIndex]
            for field in _SUBGRAPHS:
                if hasattr(op.builtinOptions, field):
                    setattr(op.builtinOptions, field, getattr(op.builtinOptions, field) + subgraphs)
    for signature in other.signatureDefs:
        signature.subgraphIndex += subgraphs
    model.buffers += other.buffers[1:]
    model.subgraphs += other.subgraphs
    model.signatureDefs += other.signatureDefs


def _code(model: Any, code: Any) -> int:
    """The place of an operator code in a model that may not have it yet."""

    def key(one: Any) -> tuple:
        return max(one.builtinCode, one.deprecatedBuiltinCode), one.customCode, one.version

    for place, known in enumerate(model.operatorCodes):
        if key(known) == key(code):
            return place
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
