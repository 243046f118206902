"""What is said of layers that have no adapter, in the notes of a model; and what merging reads back from there."""

from collections.abc import Mapping, Sequence

ALONE = "no adapter: "
UNPACKED = "base in float32: "
FROZEN = "frozen before it had adapters"
TRAINED = "trained itself, whatever the adapter"
_OURS = (ALONE, UNPACKED, FROZEN, TRAINED)


def said_of(notes: Mapping[str, str], layer: str, words: str) -> str | None:
    """The part of the note on a layer that begins with these words of ours.

    >>> said_of({"head": "not opened; frozen before it had adapters: a [0]"}, "head", FROZEN)
    'frozen before it had adapters: a [0]'
    """
    return next((part for part in notes.get(layer, "").split("; ") if part.startswith(words)), None)


def says(notes: Mapping[str, str], layer: str, words: str) -> bool:
    """Whether the note on a layer holds these words of ours.

    >>> says({"head": "not opened; frozen before it had adapters"}, "head", FROZEN)
    True
    """
    return said_of(notes, layer, words) is not None


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
