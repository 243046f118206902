"""A teacher's answers, computed once and kept in files: a large teacher runs one time."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.errors import CompressionError
from tfcompress.distill.teachers import Teacher, resolve

META = "soft_labels.json"
VERSION = 1


class Stored(Teacher):
    """Answers stored by `cache_teacher`. A row of data is found again by its content, however the data are shuffled.

    Args:
        path: the folder.

    Raises:
        ValueError: the folder holds no such answers, or not all of them.
    """

    compiles = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        meta = _meta(self.path)
        if meta is None or not meta["complete"]:
            what = "no stored answers" if meta is None else "answers to a part of the data: call `cache_teacher` again"
            raise ValueError(f"`teacher` must be a folder of stored answers. Received: {os.fspath(path)!r} with {what}")
        self.kind = meta["kind"]
        self.shape = tuple(meta["shape"])
        keys = np.concatenate([np.load(file) for file in _files(self.path, "keys")])
        self._parts = [np.load(file, mmap_mode="r") for file in _files(self.path, "answers")]
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        answers = tf.numpy_function(self._find, [fingerprints(x)], tf.float32)
        answers.set_shape([None, *self.shape])
        return tf.stop_gradient(answers), {}

    def tried(self, x: Any) -> tuple[Any, dict[str, Any]]:
        return tf.zeros([1, *self.shape]), {}

    def evaluated(self, x: Any) -> tuple[Any, dict[str, Any], tf.Tensor]:
        answers, known = tf.numpy_function(self._look, [fingerprints(x)], (tf.float32, tf.bool))
        answers.set_shape([None, *self.shape])
        known.set_shape([])
        return tf.stop_gradient(answers), {}, known

    def _look(self, keys: np.ndarray) -> tuple[np.ndarray, np.bool_]:
        """Answers, and whether there are some to all rows; zeros where there are not."""
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[places] == keys
        rows = self._order[places]
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        answers = np.zeros((len(keys), *self.shape), np.float32)
        for place in np.flatnonzero(known):
            answers[place] = self._parts[parts[place]][rows[place] - self._starts[parts[place]]]
        return answers, known.all()

    def _find(self, keys: np.ndarray) -> np.ndarray:
        answers, known = self._look(keys)
        if not known:
            unknown = int((~np.isin(keys, self._keys)).sum())
            raise ValueError(
                f"{unknown} of {len(keys)} rows have no stored answer in {os.fspath(self.path)!r}: answers are "
                "found by a row's exact values, so train on the data that they were stored for, without augmentation"
            )
        return answers


def cache_teacher(
    teacher: Any, dataset: Any, path: str | os.PathLike[str], *, batch_size: int = 64, shard_rows: int = 8192,
    verbose: int = 1,
) -> Stored:  # fmt: skip
    """Runs a teacher once over the data and stores its answers, with which `Distiller` trains as with the teacher.

    A run that was interrupted goes on where it stopped. Answers that are there are kept when they belong to the same
    data and the teacher answers its first rows as they say; else they are refused.

    Args:
        teacher: anything that can teach with one output; see `Distiller`.
        dataset: what the teacher is asked: arrays [rows, ...] as `fit` takes them, x or the tuple (x, y), or an
            iterable of batches (a `tf.data.Dataset`), x or (x, y). The rows must be those of the training later, in any
            order; where those of its `validation_data` are not among them, the validation's loss is the task's alone.
        path: a folder; made when it is not there.
        batch_size: rows that the teacher is asked at once, where `dataset` are arrays.
        shard_rows: rows of one file.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        The stored answers: a teacher.

    Raises:
        ValueError: no data, or the folder holds answers to other data or of another teacher.
        CompressionError: the teacher's answers are not finite.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stored = cache_teacher(lambda x: 2 * x, np.eye(3, dtype="float32"), folder, verbose=0)
    ...     [float(n) for n in stored(tf.constant([[0.0, 1.0, 0.0]]))[0][0]]
    [0.0, 2.0, 0.0]
    """
    path, asked = Path(path), resolve(teacher)
    path.mkdir(parents=True, exist_ok=True)
    meta = _meta(path) or {"version": VERSION, "kind": asked.kind, "shape": None, "complete": False}
    known = [np.load(file) for file in _files(path, "keys")]
    done, seen, shards = sum(map(len, known)), 0, len(known)
    before = np.concatenate(known) if known else np.zeros(0, np.int64)
    keys: list[np.ndarray] = []
    answers: list[np.ndarray] = []

    def ask(x: Any) -> Any:
        return asked(x)[0]

    # Keras converts the calls of layers itself where they need it.
    ask = tf.function(ask, autograph=False) if asked.compiles else ask
    with _Bar(verbose) as bar:
        for x in _batches(dataset, batch_size):
            prints = fingerprints(x).numpy()
            stop = min(done, seen + len(prints))
            more = meta["complete"] and seen + len(prints) > done
            if more or not np.array_equal(before[seen:stop], prints[: max(stop - seen, 0)]):
                raise ValueError(
                    f"`path` holds answers to other data, or in another order. Received: {os.fspath(path)!r}"
                )
            if known and not seen:
                _check_teacher(path, _answers(ask, x))
            if seen + len(prints) > done:
                fresh = max(done - seen, 0)
                keys.append(prints[fresh:])
                answers.append(_answers(ask, x)[fresh:])
            seen += len(prints)
            bar.add(len(prints))
            if sum(map(len, keys)) >= shard_rows:
                shards = _write(path, shards, keys, answers, meta)
                done, keys, answers = seen, [], []
                before = np.zeros(done, np.int64)
    if not seen:
        raise ValueError("`dataset` is empty: at least one row is needed")
    if seen < done:
        raise ValueError(f"`path` holds answers to {done} rows, `dataset` has {seen}. Received: {os.fspath(path)!r}")
    if keys:
        _write(path, shards, keys, answers, meta)
    _write_meta(path, {**meta, "complete": True})
    return Stored(path)


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


def _answers(ask: Any, x: Any) -> np.ndarray:
    outputs = flavor.flatten(ask(x))
    if len(outputs) != 1:
        raise ValueError(f"`teacher` must have one output, whose answers are stored. Received: {len(outputs)} outputs")
    found = np.asarray(outputs[0], np.float32)
    if not np.isfinite(found).all():
        raise CompressionError("the teacher's answers hold NaN or infinity: nothing was stored for these rows")
    return found


def _check_teacher(path: Path, asked: np.ndarray) -> None:
    """Refuses answers that are not those of the teacher, who was asked for the first rows."""
    stored = np.load(_files(path, "answers")[0], mmap_mode="r")[: len(asked)]
    fits = stored.shape[1:] == asked.shape[1:]
    if not fits or not np.allclose(stored, asked[: len(stored)], rtol=1e-2, atol=1e-3):
        raise ValueError(
            f"`path` holds the answers of another teacher: name another folder, or remove it. Received: "
            f"{os.fspath(path)!r}"
        )


def _batches(dataset: Any, batch_size: int) -> Iterator[Any]:
    """x of each batch, as tensors."""
    if isinstance(dataset, tuple):
        dataset = dataset[0]
    arrays = isinstance(dataset, (np.ndarray, tf.Tensor, dict))
    arrays = arrays or (isinstance(dataset, list) and all(isinstance(part, np.ndarray) for part in dataset))
    if arrays:
        dataset = tf.data.Dataset.from_tensor_slices(tuple(dataset) if isinstance(dataset, list) else dataset)
        for batch in dataset.batch(batch_size):
            yield list(batch) if isinstance(batch, tuple) else batch
        return
    for batch in dataset:
        x = batch[0] if isinstance(batch, tuple) else batch
        yield tf.nest.map_structure(tf.convert_to_tensor, x)


def _files(path: Path, kind: str) -> list[Path]:
    return sorted(path.glob(f"{kind}-*.npy"))


def _meta(path: Path) -> dict[str, Any] | None:
    if not (path / META).is_file():
        return None
    meta = json.loads((path / META).read_text(encoding="utf-8"))
    if meta.get("version") != VERSION:
        raise ValueError(f"{os.fspath(path / META)!r} is of version {meta.get('version')}; this one reads {VERSION}")
    return meta


def _write_meta(path: Path, meta: dict[str, Any]) -> None:
    part = path / f"{META}.part"
    part.write_text(json.dumps(meta), encoding="utf-8")
    part.replace(path / META)


def _write(path: Path, number: int, keys: list[np.ndarray], answers: list[np.ndarray], meta: dict[str, Any]) -> int:
    """Writes one shard whole, answers first: a shard counts as soon as its keys are there."""
    found = np.concatenate(answers)
    meta["shape"] = list(found.shape[1:])
    for kind, values in (("answers", found), ("keys", np.concatenate(keys))):
        part = path / f"{kind}-{number:05d}.part"
        with part.open("wb") as file:
            np.save(file, values)
        part.replace(path / f"{kind}-{number:05d}.npy")
    _write_meta(path, meta)
    return number + 1


class _Bar:
    """Rows done so far, on standard error."""

    def __init__(self, verbose: int) -> None:
        self._progress = None
        if verbose:
            from rich.console import Console
            from rich.progress import Progress, TextColumn, TimeElapsedColumn

            columns = TextColumn("teacher: {task.completed:,.0f} rows"), TimeElapsedColumn()
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._progress.start()
            self._task = self._progress.add_task("", total=None)

    def add(self, rows: int) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, rows)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *problem: object) -> None:
        if self._progress is not None:
            self._progress.stop()
