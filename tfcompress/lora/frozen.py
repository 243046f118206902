"""What a user had frozen before there were adapters: a whole layer, or parts inside one; noted, and restored."""

import re
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.trainable import set_trainable
from tfcompress.lora.notes import FROZEN

_PLACE = re.compile(r"\[([\d.]+)\]")


def frozen_parts(layer: Any) -> dict[tuple[int, ...], str]:
    """The outermost frozen parts of a layer.

    Returns:
        The path of each by its place: (1, 0) is the first layer inside the second one inside. () is the layer itself.

    >>> from tfcompress.core.flavor import keras
    >>> both = keras.layers.Bidirectional(keras.layers.LSTM(2, name="a"))
    >>> _ = both(keras.Input((3, 4)))
    >>> both.backward_layer.trainable = False
    >>> list(frozen_parts(both).values())
    ['backward_a']
    """
    found: dict[tuple[int, ...], str] = {}
    seen: set[int] = set()

    def visit(part: Any, place: tuple[int, ...], path: tuple[str, ...]) -> None:
        if id(part) in seen:
            return
        seen.add(id(part))
        if not part.trainable:
            found[place] = "/".join(path)
            return
        for number, child in enumerate(flavor.sublayers(part)):
            visit(child, (*place, number), (*path, child.name))

    visit(layer, (), ())
    return found


def words_of(parts: dict[tuple[int, ...], str]) -> list[str]:
    """The note on a layer; its parts by path and place, since names of parts may be others once they are loaded.

    >>> words_of({(): ""}), words_of({(1, 0): "b/c", (2,): "d"})
    (['frozen before it had adapters'], ['frozen before it had adapters: b/c [1.0], d [2]'])
    """
    if not parts or () in parts:
        return [FROZEN] if parts else []
    named = [f"{path} [{'.'.join(map(str, place))}]" for place, path in parts.items()]
    return [f"{FROZEN}: {', '.join(named)}"]


def restore(layer: Any, words: str | None) -> None:
    """Let a layer be as trainable as it was before.

    Args:
        layer: the one on which the note was, or one made of it.
        words: what `words_of` gave; None: nothing was frozen.
    """
    set_trainable(layer, words != FROZEN)
    for place in _PLACE.findall(words or ""):
        part = layer
        for number in place.split("."):
            part = flavor.sublayers(part)[int(number)]
        set_trainable(part, False)
