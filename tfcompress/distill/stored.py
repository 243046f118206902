"""A teacher's answers out of files, found by the content of the rows that it was asked."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.distill.teacher import Teacher

META = "soft_labels.json"
VERSION = 1


class Rows:
    """The rows of a folder of answers, all or a part of them, found by their fingerprints.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        files = shards(path, "keys")
        keys = np.concatenate([np.zeros(0, np.int64), *(np.load(file) for file in files)])
        # A run that was killed may have left answers without keys: they are none yet.
        parts = [path / file.name.replace("keys", "answers") for file in files]
        self._parts = [np.load(file, mmap_mode="r") for file in parts]
        self.shape = self._parts[0].shape[1:] if self._parts else ()
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def known(self, keys: np.ndarray) -> np.ndarray:
        """Which of the rows have an answer, [batch]."""
        return self._found(keys)[0]

    def look(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers [batch, ...], and which rows have one [batch]; zeros where there is none."""
        known, places = self._found(keys)
        answers = np.zeros((len(keys), *self.shape), np.float32)
        for place in np.flatnonzero(known):
            row = self._order[places[place]]
            part = np.searchsorted(self._starts, row, side="right") - 1
            answers[place] = self._parts[part][row - self._starts[part]]
        return answers, known

    def _found(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which rows are there, and their places among the sorted keys."""
        if not len(self):
            return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return self._keys[places] == keys, places


class Stored(Teacher):
    """Answers stored by `cache_teacher`. A row of data is found again by its content, however the data are shuffled.

    The folder holds shards of rows, `keys-00000.npy` [rows] int64 (fingerprints) and `answers-00000.npy` [rows, ...]
    float32, and `soft_labels.json`: the version of this form, what the answers are, and whether they are complete.

    Args:
        path: the folder.

    Raises:
        ValueError: the folder holds no such answers, or not all of them.
    """

    compiles = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        meta = read_meta(self.path)
        if meta is None or not meta["complete"]:
            what = "no stored answers" if meta is None else "answers to a part of the data: call `cache_teacher` again"
            raise ValueError(f"`teacher` must be a folder of stored answers. Received: {os.fspath(path)!r} with {what}")
        self.kind = meta["kind"]
        self._rows = Rows(self.path)
        self.shape = self._rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        answers = tf.numpy_function(self._find, [fingerprints(x)], tf.float32)
        answers.set_shape([None, *self.shape])
        return tf.stop_gradient(answers), {}

    def tried(self, x: Any) -> tuple[Any, dict[str, Any]]:
        return tf.zeros([1, *self.shape]), {}

    def evaluated(self, x: Any) -> tuple[Any, dict[str, Any], tf.Tensor]:
        answers, known = tf.numpy_function(self._rows.look, [fingerprints(x)], (tf.float32, tf.bool))
        answers.set_shape([None, *self.shape])
        known.set_shape([None])
        return tf.stop_gradient(answers), {}, known

    def _find(self, keys: np.ndarray) -> np.ndarray:
        answers, known = self._rows.look(keys)
        if not known.all():
            raise ValueError(
                f"{int((~known).sum())} of {len(keys)} rows have no stored answer in {os.fspath(self.path)!r}: answers "
                "are found by a row's exact values, so train on the data that they were stored for, without "
                "augmentation"
            )
        return answers


def fingerprints(x: Any) -> tf.Tensor:
    """64 bits for each row of a batch of inputs, of any structure: [batch] int64.

    Rows are told apart by their values as 32-bit real or 64-bit whole numbers. Source: FarmHash Fingerprint64.
    """
    parts = [tf.convert_to_tensor(tensor) for tensor in flavor.flatten(x)]
    rows = []
    for part in parts:
        wide = tf.cast(part, tf.float32 if part.dtype.is_floating else tf.int64)
        wide = tf.bitcast(wide, tf.uint8)
        rows.append(tf.reshape(wide, [tf.shape(part)[0], -1]))
    return tf.bitcast(tf.fingerprint(tf.concat(rows, axis=1)), tf.int64)


def shards(path: Path, kind: str) -> list[Path]:
    """The files of a folder that hold "keys" or "answers", in the order in which they were written."""
    return sorted(path.glob(f"{kind}-*.npy"))


def read_meta(path: Path) -> dict[str, Any] | None:
    """What a folder says of its answers; None where it holds none.

    Raises:
        ValueError: it is of another version.
    """
    if not (path / META).is_file():
        return None
    meta = json.loads((path / META).read_text(encoding="utf-8"))
    if meta.get("version") != VERSION:
        raise ValueError(f"{os.fspath(path / META)!r} is of version {meta.get('version')}; this one reads {VERSION}")
    return meta
