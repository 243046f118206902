"""Prompts that make a large language model show what a small one shall learn."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfcompress.core.scalars import is_whole

STEPS = "Think it through step by step, then give the result on a last line that begins with 'Answer:'."


@dataclass(frozen=True)
class Prompt:
    """What a teacher is asked.

    Attributes:
        kind: "in_context", "chain_of_thought" or "instruction".
        text: as it is sent.
        source: what it was made of, JSON data; it goes into the record beside the answer.
    """

    kind: str
    text: str
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Tells prompts apart: the same text has the same key in every run."""
        return hashlib.sha256(f"{self.kind}\n{self.text}".encode(errors="surrogatepass")).hexdigest()[:16]


def in_context(
    inputs: Iterable[str], examples: Sequence[tuple[str, str]], *, task: str = "", shots: int = 4, seed: int = 0
) -> list[Prompt]:
    """Each input behind a few solved examples, drawn anew for each.

    Args:
        inputs: what is to be answered.
        examples: (input, output) pairs.
        task: a sentence in front.
        shots: examples in a prompt, from 1 to len(examples).
        seed: of the draws.

    Raises:
        ValueError: there are fewer examples than `shots`, `shots` is below 1, or `inputs` is one text.

    Source: Brown et al. 2020, arXiv:2005.14165, section 2.

    >>> print(in_context(["4"], [("1", "one"), ("2", "two")], task="Write the number.", shots=1)[0].text)
    Write the number.
    <BLANKLINE>
    Input: 2
    Output: two
    <BLANKLINE>
    Input: 4
    Output:
    """
    if not is_whole(shots) or shots > len(examples):
        raise ValueError(f"`shots` must be from 1 to the number of examples, {len(examples)}. Received: {shots!r}")
    random, found = np.random.default_rng(seed), []
    for text in _texts("inputs", inputs):
        chosen = [examples[i] for i in random.choice(len(examples), shots, replace=False)]
        parts = [task] if task else []
        parts += [f"Input: {one}\nOutput: {other}" for one, other in chosen]
        found.append(Prompt("in_context", "\n\n".join([*parts, f"Input: {text}\nOutput:"]), {"input": text}))
    return found


def chain_of_thought(questions: Iterable[str], *, cue: str = STEPS) -> list[Prompt]:
    """Each question with the request to reason before answering.

    Args:
        questions: what is to be answered.
        cue: the request.

    Raises:
        ValueError: `questions` is one text.

    Source: Kojima et al. 2022, arXiv:2205.11916 (zero-shot); Wei et al. 2022, arXiv:2201.11903.

    >>> chain_of_thought(["What is 2 + 3?"], cue="Think first.")[0].text
    'What is 2 + 3?\\n\\nThink first.'
    """
    return [Prompt("chain_of_thought", f"{question}\n\n{cue}", {"question": question})
            for question in _texts("questions", questions)]  # fmt: skip


def instructions(tasks: Iterable[str | tuple[str, str]]) -> list[Prompt]:
    """Instructions, each alone or with an input to work on.

    Args:
        tasks: "instruction", or ("instruction", "input").

    Raises:
        ValueError: `tasks` is one text.

    Source: Wang et al. 2022 (Self-Instruct), arXiv:2212.10560.

    >>> instructions([("Translate to French.", "good morning")])[0].text
    'Translate to French.\\n\\nInput: good morning'
    """
    found = []
    for task in _texts("tasks", tasks):
        instruction, given = (task, "") if isinstance(task, str) else task
        text = f"{instruction}\n\nInput: {given}" if given else instruction
        found.append(Prompt("instruction", text, {"instruction": instruction, "input": given}))
    return found


def _texts(argument: str, given: Any) -> Any:
    """What is iterated over; one text would be taken letter by letter."""
    if isinstance(given, (str, bytes)):
        raise ValueError(f"`{argument}` must be several texts. Received: {argument}={given[:50]!r}")
    return given
