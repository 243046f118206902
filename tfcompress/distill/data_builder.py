"""Training text from a teacher that writes: prompts go out, answers that pass are kept as JSON Lines."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tfcompress.core.errors import CompressionError
from tfcompress.core.scalars import is_finite, is_whole
from tfcompress.distill.lock import alone
from tfcompress.distill.prompts import Prompt

Generate = Callable[[list[str]], Sequence[str]]
CUT_OFF = "cut off"
_BEGIN = b'{"key": '


@dataclass(frozen=True)
class Record:
    """One answer, a line of the file.

    Attributes:
        key: of the prompt.
        kind: of the prompt.
        prompt: its text.
        answer: the teacher's; None when none passed.
        source: what the prompt was made of.
        reason: why no answer was kept; "" when one was, or "cut off" where it was kept although it is.
    """

    key: str
    kind: str
    prompt: str
    answer: str | None
    source: dict[str, Any]
    reason: str = ""


class Retry(Exception):
    """What `generate` raises when asking again may help.

    Args:
        reason: what went wrong.
        after: seconds to wait, where the teacher says so.
        answers: where some texts were answered: as many as there were texts, None for those to ask again.
    """

    def __init__(self, reason: str, after: float | None = None, answers: Sequence[str | None] | None = None) -> None:
        super().__init__(reason)
        self.after, self.answers = after, answers


class CutOff(str):
    """An answer of which the end is missing, as `generate` may give it in place of a text.

    >>> CutOff("The capital of France is").upper()
    'THE CAPITAL OF FRANCE IS'
    """


def build_data(
    prompts: Sequence[Prompt], generate: Generate, path: str | os.PathLike[str], *,
    accept: Callable[[Prompt, str], str | None] | None = None, batch_size: int = 8, per_minute: float | None = None,
    attempts: int = 4, wait: float = 1.0, keep_cut_off: bool = False,
) -> list[Record]:  # fmt: skip
    """Asks a teacher and writes what it answers.

    A run that was stopped goes on where it was: prompts whose record stands in the file are not asked again. While it
    runs, a file of the same name with ".lock" behind it says which process writes.

    Args:
        prompts: of `in_context`, `chain_of_thought` or `instructions`; those of the same text are asked once.
        generate: takes texts, returns as many answers. `Endpoint` asks an HTTP server; a function around a model does
            as well. It may raise `Retry`, of which answers that came are kept, and give a `CutOff`.
        path: the JSON Lines file; made or continued.
        accept: gives None for an answer to keep, else the reason against it; an answer that does not pass is asked for
            again. Empty answers never pass.
        batch_size: texts in one call of `generate`.
        per_minute: texts sent in a minute, attempts among them; None: no limit. A call of `generate` with n texts is
            followed by a pause of n * 60 / per_minute seconds, counted from its beginning.
        attempts: how often a prompt is asked, from 1.
        wait: seconds before the second attempt, doubled before each further one; a `Retry` may ask for longer.
        keep_cut_off: whether an answer that the teacher did not end is kept, with "cut off" as the record's reason;
            else it does not pass.

    Returns:
        All records of the file, in its order.

    Raises:
        TypeError: what `generate` returns is no list of texts.
        ValueError: no prompts, a wrong number, a file with lines of another kind, or another number of answers than
            texts.
        CompressionError: the teacher does not answer, also after all attempts; or another run writes the file.

    >>> import tempfile
    >>> from tfcompress.distill.prompts import instructions
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = build_data(instructions(["Say hello."]), lambda texts: ["Hello!"], Path(folder, "data.jsonl"))
    >>> records[0].answer
    'Hello!'
    """
    for name, value in (("batch_size", batch_size), ("attempts", attempts)):
        if not is_whole(value):
            raise ValueError(f"`{name}` must be a whole number from 1. Received: {name}={value!r}")
    if per_minute is not None and not (is_finite(per_minute) and per_minute > 0):
        raise ValueError(f"`per_minute` must be a number above 0, or None. Received: per_minute={per_minute!r}")
    if not is_finite(wait) or wait < 0:
        raise ValueError(f"`wait` must be a number from 0 on. Received: wait={wait!r}")
    if not prompts:
        raise ValueError("`prompts` must hold at least one prompt. Received: none")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ask, judge = _Limited(generate, per_minute), _Judge(accept, keep_cut_off)
    with alone(path):
        records = list(read(path)) if path.exists() else []
        done = {record.key for record in records}
        todo = [prompt for prompt in {prompt.key: prompt for prompt in prompts}.values() if prompt.key not in done]
        with _appended(path) as file:
            for start in range(0, len(todo), batch_size):
                for record in _answered(todo[start : start + batch_size], ask, judge, attempts, wait):
                    file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
                    file.flush()
                    records.append(record)
    return records


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """The records of a file, which stays as it is; a last line that was cut off when a run was killed is left out.

    Raises:
        ValueError: another line is no record.
    """
    path = Path(path)
    lines, _ = _lines(path)
    for number, line in enumerate(lines, 1):
        try:
            yield Record(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {number} of {os.fspath(path)!r} is no record of `build_data`: {error}") from None


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """The lines of a file, and the beginning of a record behind them that was cut off."""
    *lines, last = path.read_bytes().split(b"\n")
    try:
        json.loads(last)
    except ValueError:
        begun = last[: len(_BEGIN)] == _BEGIN[: len(last)]
        return (lines, last) if begun else ([*lines, last], b"")
    return [*lines, last], b""


def _appended(path: Path) -> TextIO:
    """The file, opened behind its last whole record. Halves of surrogate pairs are written as JSON escapes them."""
    ending = ""
    if path.exists():
        lines, rest = _lines(path)
        if rest:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - len(rest))
        elif lines and not path.read_bytes().endswith(b"\n"):  # the last record was written without one
            ending = "\n"
    found = path.open("a", encoding="utf-8", errors="backslashreplace")
    found.write(ending)
    return found


def _answered(
    prompts: Sequence[Prompt], ask: "_Limited", judge: "_Judge", attempts: int, wait: float
) -> Iterator[Record]:
    """A record for each prompt, answers that pass first; the others are asked for again, together."""
    left, trouble = list(prompts), None
    reasons: dict[str, str] = {}
    for attempt in range(attempts):
        if attempt:
            ask.rest(max(wait * 2 ** (attempt - 1), (trouble.after or 0.0) if trouble else 0.0))
        answers, trouble = _asked(ask, [prompt.text for prompt in left])
        asked, left, reasons = left, [], {}
        for prompt, answer in zip(asked, answers, strict=True):
            against = None if answer is None else judge.against(prompt, answer)
            if answer is None or against is not None:
                reasons |= {} if against is None else {prompt.key: against}
                left.append(prompt)
            else:
                reason = CUT_OFF if isinstance(answer, CutOff) else ""
                yield Record(prompt.key, prompt.kind, prompt.text, answer.strip(), dict(prompt.source), reason)
        if not left:
            return
    for prompt in left:
        if prompt.key in reasons:
            yield Record(prompt.key, prompt.kind, prompt.text, None, dict(prompt.source), reasons[prompt.key])
    if trouble is not None:
        raise CompressionError(
            f"the teacher gives no answer after {attempts} attempts: {trouble}. What it has answered is kept; "
            "call `build_data` again to go on"
        )


def _asked(ask: "_Limited", texts: list[str]) -> tuple[Sequence[str | None], Retry | None]:
    """An answer to each text, None for those to ask again, and why these are."""
    answers: Sequence[str | None]
    try:
        answers, trouble = ask(texts), None
    except Retry as error:
        answers, trouble = [None] * len(texts) if error.answers is None else error.answers, error
    if isinstance(answers, (str, bytes, Mapping, Set)) or not isinstance(answers, Collection):
        raise TypeError(f"`generate` must return a list of {len(texts)} texts. Received: {answers!r}")
    if len(answers) != len(texts):
        raise ValueError(f"`generate` must return {len(texts)} answers. Received: {len(answers)}")
    if not all(isinstance(answer, str) or (trouble is not None and answer is None) for answer in answers):
        raise TypeError(f"`generate` must return a list of texts. Received: {answers!r}")
    return answers, trouble


class _Judge:
    """What is held against an answer."""

    def __init__(self, accept: Callable[[Prompt, str], str | None] | None, keep_cut_off: bool) -> None:
        self._accept, self._keep_cut_off = accept, keep_cut_off

    def against(self, prompt: Prompt, answer: str) -> str | None:
        text = answer.strip()
        if isinstance(answer, CutOff) and not self._keep_cut_off:
            return CUT_OFF
        if not text:
            return "empty"
        return None if self._accept is None else self._accept(prompt, text)


class _Limited:
    """Sends a function no more texts than so many a minute."""

    def __init__(self, generate: Generate, per_minute: float | None) -> None:
        self._generate, self._pause = generate, 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def __call__(self, texts: list[str]) -> Sequence[str]:
        self.rest(self._next - time.monotonic())
        self._next = time.monotonic() + self._pause * len(texts)
        return self._generate(texts)

    @staticmethod
    def rest(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)
