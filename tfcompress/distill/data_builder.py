"""Training text from a teacher that writes: prompts go out, answers that pass are kept as JSON Lines."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfcompress.core.errors import CompressionError
from tfcompress.distill.prompts import Prompt

Generate = Callable[[list[str]], Sequence[str]]


@dataclass(frozen=True)
class Record:
    """One answer, a line of the file.

    Attributes:
        key: of the prompt.
        kind: of the prompt.
        prompt: its text.
        answer: the teacher's; None when none passed.
        source: what the prompt was made of.
        reason: why no answer was kept; "" when one was.
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
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def build_data(
    prompts: Sequence[Prompt], generate: Generate, path: str | os.PathLike[str], *,
    accept: Callable[[Prompt, str], str | None] | None = None, batch_size: int = 8, per_minute: float | None = None,
    attempts: int = 4, wait: float = 1.0,
) -> list[Record]:  # fmt: skip
    """Asks a teacher and writes what it answers.

    A run that was stopped goes on where it was: prompts whose record stands in the file are not asked again.

    Args:
        prompts: of `in_context`, `chain_of_thought` or `instructions`; those of the same text are asked once.
        generate: takes texts, returns as many answers. `Endpoint` asks an HTTP server; a function around a model does
            as well. It may raise `Retry`.
        path: the JSON Lines file; made or continued.
        accept: gives None for an answer to keep, else the reason against it; an answer that does not pass is asked for
            again. Empty answers never pass.
        batch_size: texts in one call of `generate`.
        per_minute: calls of `generate` at most; None: no limit.
        attempts: how often a prompt is asked, from 1.
        wait: seconds before the second attempt, doubled before each further one; a `Retry` may ask for longer.

    Returns:
        All records of the file, in its order.

    Raises:
        ValueError: no prompts, a wrong number, a file with lines of another kind, or another number of answers than
            texts.
        CompressionError: the teacher does not answer, also after all attempts.

    >>> import tempfile
    >>> from tfcompress.distill.prompts import instructions
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = build_data(instructions(["Say hello."]), lambda texts: ["Hello!"], Path(folder, "data.jsonl"))
    >>> records[0].answer
    'Hello!'
    """
    for name, value in (("batch_size", batch_size), ("attempts", attempts)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a whole number from 1. Received: {name}={value!r}")
    if per_minute is not None and not per_minute > 0:
        raise ValueError(f"`per_minute` must be a number above 0, or None. Received: per_minute={per_minute!r}")
    if not prompts:
        raise ValueError("`prompts` must hold at least one prompt. Received: none")
    path = Path(path)
    records = list(read(path)) if path.exists() else []
    done = {record.key for record in records}
    todo = [prompt for prompt in {prompt.key: prompt for prompt in prompts}.values() if prompt.key not in done]
    ask = _Limited(generate, per_minute)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(todo), batch_size):
            for record in _answered(todo[start : start + batch_size], ask, accept, attempts, wait):
                file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
                file.flush()
                records.append(record)
    return records


def read(path: str | os.PathLike[str]) -> Iterator[Record]:
    """The records of a file; a last line that was cut off when a run was killed is taken off the file.

    Raises:
        ValueError: another line is no record.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        with path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in lines[:-1]))
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield Record(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {number} of {os.fspath(path)!r} is no record of `build_data`: {error}") from None


def _answered(
    prompts: Sequence[Prompt], ask: "_Limited", accept: Callable[[Prompt, str], str | None] | None, attempts: int,
    wait: float,
) -> Iterator[Record]:  # fmt: skip
    """A record for each prompt, answers that pass first; those that do not pass are asked again, together."""
    reasons = {prompt.key: "" for prompt in prompts}
    left, trouble = list(prompts), None
    for attempt in range(attempts):
        if attempt:
            ask.rest(max(wait * 2 ** (attempt - 1), (trouble.after or 0.0) if trouble else 0.0))
        try:
            answers, trouble = ask([prompt.text for prompt in left]), None
        except Retry as error:
            trouble = error
            continue
        if len(answers) != len(left):
            raise ValueError(f"`generate` must return {len(left)} answers. Received: {len(answers)}")
        asked, left = left, []
        for prompt, answer in zip(asked, (answer.strip() for answer in answers), strict=True):
            reason = "empty" if not answer else None if accept is None else accept(prompt, answer)
            if reason is None:
                yield Record(prompt.key, prompt.kind, prompt.text, answer, dict(prompt.source))
            else:
                reasons[prompt.key] = reason
                left.append(prompt)
        if not left:
            return
    if trouble is not None:
        raise CompressionError(
            f"the teacher gives no answer after {attempts} attempts: {trouble}. What it has answered is kept; "
            "call `build_data` again to go on"
        )
    for prompt in left:
        yield Record(prompt.key, prompt.kind, prompt.text, None, dict(prompt.source), reasons[prompt.key])


class _Limited:
    """Calls a function no more often than so many times a minute."""

    def __init__(self, generate: Generate, per_minute: float | None) -> None:
        self._generate, self._pause = generate, 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def __call__(self, texts: list[str]) -> Sequence[str]:
        self.rest(self._next - time.monotonic())
        self._next = time.monotonic() + self._pause
        return self._generate(texts)

    @staticmethod
    def rest(seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)
