"""Asks a teacher once and keeps what it answers in files: a large teacher runs one time."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.errors import CompressionError
from tfcompress.core.scalars import is_whole
from tfcompress.distill.lock import alone
from tfcompress.distill.output_kind import answers_kind
from tfcompress.distill.stored import META, VERSION, Rows, Stored, fingerprints, read_meta, shards
from tfcompress.distill.teacher import Judged
from tfcompress.distill.teachers import resolve

_TOLERANCE = 2e-3


def cache_teacher(
    teacher: Any, dataset: Any, path: str | os.PathLike[str], *, batch_size: int = 64, shard_rows: int = 8192,
    verbose: int = 1,
) -> Stored:  # fmt: skip
    """Runs a teacher once over the data and stores its answers, with which `Distiller` trains as with the teacher.

    What is stored is what the teacher gives, logits or probabilities, and which of them: as the layers of a Keras model
    or the operations of a file say; of a function or a SavedModel, as its first answers look.

    A run that was interrupted goes on where it stopped, and one that was finished asks for a single batch. Rows are
    known by their content, in whatever order they come. Answers that are there are kept when they are of the teacher's
    kind, and the teacher answers the first rows of `dataset` that are known as they say; else they are refused. So are
    data with a row that a finished run did not have.

    Args:
        teacher: anything that can teach with one output; see `Distiller`.
        dataset: what the teacher is asked: arrays [rows, ...] as `fit` takes them (one, a list of several inputs, a
            dict), x or the tuple (x, y), or an iterable of batches (a `tf.data.Dataset`), x or (x, y). The rows must be
            those of the training later, in any order; of its `validation_data`, rows that are not among them count for
            the task alone.
        path: a folder; made when it is not there.
        batch_size: rows that the teacher is asked at once, where `dataset` are arrays.
        shard_rows: rows of one file.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        The stored answers: a teacher.

    Raises:
        ValueError: no data, a wrong number, or the folder holds answers to other data, of another kind or of another
            teacher.
        CompressionError: the teacher's answers are not finite, or another run writes in the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stored = cache_teacher(lambda x: 2 * x, np.eye(3, dtype="float32"), folder, verbose=0)
    ...     [float(n) for n in stored(tf.constant([[0.0, 1.0, 0.0]]))[0][0]]
    [0.0, 2.0, 0.0]
    """
    for name, value in (("batch_size", batch_size), ("shard_rows", shard_rows)):
        if not is_whole(value):
            raise ValueError(f"`{name}` must be a whole number from 1. Received: {name}={value!r}")
    path, asked = Path(path), resolve(teacher)
    path.mkdir(parents=True, exist_ok=True)

    def ask(x: Any) -> Any:
        return asked(x)[0]

    # Keras converts the calls of layers itself where they need it.
    ask = tf.function(ask, autograph=False) if asked.compiles else ask
    seen = 0
    with alone(path / META), _Bar(verbose) as bar:
        folder = _Folder(path, None if isinstance(asked, Judged) else asked.kind, shard_rows)
        for x in _batches(dataset, batch_size):
            prints = fingerprints(x).numpy()
            known = folder.known(prints)
            if not known.all() or (known.any() and not folder.checked):
                folder.take(prints, known, _answers(ask, x))
            seen += len(prints)
            bar.add(len(prints))
        if not seen:
            raise ValueError("`dataset` is empty: at least one row is needed")
        folder.finish()
    return Stored(path)


class _Folder:
    """Writes the files of `Stored`, behind those that are there.

    Args:
        path: the folder.
        kind: what the answers are; None: what the first ones that are taken look like.
        shard_rows: rows of one file.

    Raises:
        ValueError: answers of another kind are there.
    """

    def __init__(self, path: Path, kind: str | None, shard_rows: int) -> None:
        self._before = Rows(path)
        meta = read_meta(path) if len(self._before) else None
        self._path, self._meta = path, meta or {"version": VERSION, "kind": kind, "complete": False}
        self._is_settled = False
        if kind is not None:
            self._settle(kind)
        self.checked = not len(self._before)
        """Whether the answers that are there, if any, are known to be the teacher's."""
        self._shards, self._shard_rows = len(shards(path, "keys")), shard_rows
        self._keys: list[np.ndarray] = []
        self._answers: list[np.ndarray] = []

    def known(self, keys: np.ndarray) -> np.ndarray:
        """Which rows were answered in an earlier run.

        Raises:
            ValueError: not all of them, and that run was finished.
        """
        known = self._before.known(keys)
        if self._meta["complete"] and not known.all():
            self._refuse(f"{int((~known).sum())} of {len(keys)} rows of a batch are not among them")
        return known

    def take(self, keys: np.ndarray, known: np.ndarray, answers: np.ndarray) -> None:
        """Takes what the teacher says of a batch: of known rows to compare it, once; of the others to store it.

        Nothing is written before the answers that are there were compared; a shard is, as soon as it is full.

        Raises:
            ValueError: the answers that are there are another teacher's, or of another kind.
        """
        if not self._is_settled:
            self._settle(answers_kind(answers))
        if known.any() and not self.checked:
            _check_teacher(self._path, self._before.look(keys[known])[0], answers[known], self._meta["kind"])
            self.checked = True
        if not known.all():
            self._keys.append(keys[~known])
            self._answers.append(answers[~known])
        if self.checked and sum(map(len, self._keys)) >= self._shard_rows:
            self._write()

    def finish(self) -> None:
        """Writes what is left.

        Raises:
            ValueError: the data had none of the rows that were there.
        """
        if not self.checked:
            self._refuse("none of its rows is in `dataset`")
        if self._keys:
            self._write()
        self._meta["complete"] = True
        self._write_meta()

    def _settle(self, kind: str) -> None:
        self._is_settled = True
        self._meta["kind"] = self._meta["kind"] or kind
        if self._meta["kind"] != kind:
            raise ValueError(
                f"`path` holds answers that are {self._meta['kind']!r}, those of `teacher` are {kind!r}: name another "
                f"folder, or remove it. Received: {os.fspath(self._path)!r}"
            )

    def _refuse(self, why: str) -> None:
        raise ValueError(
            f"`path` holds answers to other data, {why}: name another folder, or remove it. Received: "
            f"{os.fspath(self._path)!r}"
        )

    def _write(self) -> None:
        """Writes one shard whole, answers first: a shard counts as soon as its keys are there."""
        self._write_meta()
        for kind, values in (("answers", np.concatenate(self._answers)), ("keys", np.concatenate(self._keys))):
            part = self._path / f"{kind}-{self._shards:05d}.part"
            with part.open("wb") as file:
                np.save(file, values)
            part.replace(self._path / f"{kind}-{self._shards:05d}.npy")
        self._shards += 1
        self._keys, self._answers = [], []

    def _write_meta(self) -> None:
        part = self._path / f"{META}.part"
        part.write_text(json.dumps(self._meta), encoding="utf-8")
        part.replace(self._path / META)


def _answers(ask: Any, x: Any) -> np.ndarray:
    outputs = flavor.flatten(ask(x))
    if len(outputs) != 1:
        raise ValueError(f"`teacher` must have one output, whose answers are stored. Received: {len(outputs)} outputs")
    found = np.asarray(outputs[0], np.float32)
    if not np.isfinite(found).all():
        raise CompressionError("the teacher's answers hold NaN or infinity: nothing was stored for these rows")
    return found


def _check_teacher(path: Path, stored: np.ndarray, asked: np.ndarray, kind: str) -> None:
    """Refuses answers that are not those of the teacher, who was asked for the same rows."""
    fits = stored.shape == asked.shape
    if fits:
        one, other = _spread(stored, kind), _spread(asked, kind)
        # Another batch size or machine changes the last digits of the largest numbers, and so of all.
        fits = bool(np.abs(one - other).max() <= _TOLERANCE * np.abs(one).max())
    if not fits:
        raise ValueError(
            f"`path` holds the answers of another teacher: name another folder, or remove it. Received: "
            f"{os.fspath(path)!r}"
        )


def _spread(answers: np.ndarray, kind: str) -> np.ndarray:
    """Answers as they are told apart at a temperature: probabilities by their logarithms."""
    sums = answers.sum(-1) if answers.ndim > 1 else answers
    alternatives = answers.min() >= 0 and answers.shape[-1] > 1 and np.allclose(sums, 1, rtol=0, atol=1e-3)
    if kind == "logits" and not alternatives:
        return answers
    yes = np.log(np.maximum(answers, 1e-12))
    # Next to 1 a float32 knows 7 digits of p and none of 1 - p.
    return np.stack([yes, np.log(np.maximum(1 - answers, 1e-5))]) if kind == "sigmoid" else yes


def _batches(dataset: Any, batch_size: int) -> Iterator[Any]:
    """x of each batch, as tensors."""
    if isinstance(dataset, tuple):
        dataset = dataset[0]
    arrays = (np.ndarray, tf.Tensor)
    several = isinstance(dataset, list) and dataset and all(isinstance(part, arrays) for part in dataset)
    if several or isinstance(dataset, (*arrays, dict)):
        dataset = tf.data.Dataset.from_tensor_slices(tuple(dataset) if isinstance(dataset, list) else dataset)
        for batch in dataset.batch(batch_size):
            yield list(batch) if isinstance(batch, tuple) else batch
        return
    for batch in dataset:
        x = batch[0] if isinstance(batch, tuple) else batch
        yield tf.nest.map_structure(tf.convert_to_tensor, x)


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
