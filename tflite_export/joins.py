"""Values that come together: what is selected or stacked is on one grid, so its parts must have a range that holds all.

The quantizer takes the grid of one part for all, and the others are cut off to it.
"""

from tflite_export.draft import Draft

Ranges = dict[int, tuple[float, float]]
_SELECTS = ("SELECT", "SELECT_V2")


def hold(draft: Draft, found: Ranges) -> None:
    """Gives selections that read each other's results (a state that is held where a mask says so) one range.

    Args:
        draft: the float file.
        found: measured ranges, changed in place.
    """
    groups: dict[int, set[int]] = {}
    for op in draft.operators:
        result = op.outputs[0] if op.outputs else -1
        if draft.kind(op) in _SELECTS and result in found:
            group = {result}.union(*(groups[i] for i in op.inputs[1:] if i in groups))
            groups.update(dict.fromkeys(group, group))
    for group in {id(group): group for group in groups.values()}.values():
        lows, highs = zip(*(found[index] for index in group), strict=True)
        found.update(dict.fromkeys(group, (min(lows), max(highs))))


def joined(draft: Draft, known: Ranges) -> Ranges:
    """Concatenations whose learned range stands only behind operations that reorder them -> that range.

    The quantizer does not look for it there.

    Args:
        draft: the float file.
        known: learned ranges.
    """
    results = [op.outputs[0] for op in draft.operators if draft.kind(op) == "CONCATENATION"]
    users = draft.users()
    return {i: known[i] for i in results if i in known and all(draft.kind(op) != "QUANTIZE" for op in users[i])}
