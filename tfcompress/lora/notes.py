"""What is said of layers that have no adapter, in the notes of a model; and what merging reads back from there."""

from collections.abc import Mapping, Sequence

ALONE = "no adapter: "
UNPACKED = "base in float32: "
FROZEN = "frozen before it had adapters"
TRAINED = "trained itself, whatever the adapter"
_OURS = (ALONE, UNPACKED, FROZEN, TRAINED)


def says(notes: Mapping[str, str], layer: str, words: str) -> bool:
    """Whether the note on a layer holds these words of ours.

    >>> says({"head": "not opened; frozen before it had adapters"}, "head", FROZEN)
    True
    """
    return any(part.startswith(words) for part in notes.get(layer, "").split("; "))


def rewritten(notes: Mapping[str, str], reasons: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The notes with ours replaced.

    Args:
        notes: of the model, by layer.
        reasons: ours from now on, by layer.

    >>> rewritten({"a": "not opened; no adapter: not selected"}, {"b": ["no adapter: has no matrix"]})
    {'a': 'not opened', 'b': 'no adapter: has no matrix'}
    """
    result = {}
    for layer in dict.fromkeys([*notes, *reasons]):
        others = [part for part in notes.get(layer, "").split("; ") if part and not part.startswith(_OURS)]
        words = [*others, *reasons.get(layer, ())]
        if words:
            result[layer] = "; ".join(words)
    return result
