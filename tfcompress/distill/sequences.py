"""Distillation of models that write token by token, on what the teacher or the student itself writes.

A language model maps tokens [batch, length] (whole numbers) to logits [batch, length, vocabulary]; what it says at a
place may depend on tokens up to that place only.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.samples import Input, Samples
from tfcompress.distill import losses
from tfcompress.distill.objects import Outputs

Language = Callable[..., Any]


def sample(
    model: Any, prompts: Any, length: int, *, temperature: float = 1.0, other: Any = None, mix: float = 0.0,
    seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Writes on from prompts:  y_t ~ softmax(z_t / T),  or  mix * p_other + (1 - mix) * p_model.

    Args:
        model: a language model.
        prompts: [batch, given] whole numbers, given from 1.
        length: tokens of prompt and continuation together.
        temperature: T > 0; 0 takes the most likely token.
        other: a second language model to sample from as well.
        mix: its share of the probability, from 0 to 1.
        seed: of the draws.

    Returns:
        [batch, length] int32, the prompts in front.

    Raises:
        ValueError: a number is not one of those.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, section 2.2 (teacher-mixed sampling).
    """
    prompts = np.asarray(prompts, np.int32)
    if prompts.ndim != 2 or not 1 <= prompts.shape[1] < length:
        raise ValueError(f"`prompts` must be [batch, from 1 to {length - 1} tokens]. Received: shape {prompts.shape}")
    if temperature < 0 or not 0 <= mix <= 1 or (mix > 0 and other is None):
        raise ValueError(
            f"`temperature` must be from 0, `mix` from 0 to 1 and with `other`. Received: temperature={temperature!r}, "
            f"mix={mix!r}, other={other!r}"
        )
    tokens = np.zeros((len(prompts), length), np.int32)
    tokens[:, : prompts.shape[1]] = prompts
    random = np.random.default_rng(seed)
    ask = [(1 - mix, _asked(model)), *([(mix, _asked(other))] if mix else [])]
    for place in range(prompts.shape[1], length):
        chances = np.sum([share * _chances(say(tokens), place - 1, temperature) for share, say in ask], axis=0)
        ends = np.cumsum(chances, axis=-1)
        drawn = random.random((len(tokens), 1)) * ends[:, -1:]
        tokens[:, place] = chances.argmax(-1) if temperature == 0 else (drawn > ends).sum(-1)
    return tokens


def _asked(model: Any) -> Callable[[np.ndarray], Any]:
    """The model as one compiled function, so that each token costs no new trace."""
    run = tf.function(lambda tokens: model(tokens, training=False), reduce_retracing=True)
    return lambda tokens: run(tf.convert_to_tensor(tokens))


def _chances(logits: Any, place: int, temperature: float) -> np.ndarray:
    values = np.asarray(logits[:, place], np.float64)
    if temperature:
        values = values / temperature
    values = np.exp(values - values.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def teacher_texts(teacher: Any, prompts: Any, length: int, *, batch_size: int = 64, seed: int = 0) -> np.ndarray:
    """What the teacher writes: a student trained on it as on any text learns the teacher's sequences.

    Args:
        teacher: a language model.
        prompts: [rows, given] whole numbers.
        length: tokens of prompt and continuation together.
        batch_size: rows written at once.
        seed: of the draws.

    Returns:
        [rows, length] int32.

    Source: Kim and Rush 2016, arXiv:1606.07947, section 3.2 (sequence-level knowledge distillation, with samples in
    place of the most likely sequence).
    """
    prompts = np.asarray(prompts)
    parts = range(0, len(prompts), batch_size)
    return np.concatenate(
        [sample(teacher, prompts[start : start + batch_size], length, seed=seed + start) for start in parts]
    )


class OnPolicy:
    """Batches for `Distiller.fit` of which a share was written by the student as it is now.

        for each batch:  with probability `share` the student's own continuations of prompts, else rows of the data

    Args:
        student: the language model that is trained.
        data: [rows, length] whole numbers; their first `given` tokens are the prompts.
        given: tokens of a prompt.
        share: of batches that the student writes, from 0 (supervised) to 1 (on-policy).
        batch_size: rows of a batch.
        temperature: of the student's writing.
        teacher: for teacher-mixed writing.
        mix: the teacher's share of the probability, from 0 to 1.
        seed: of all draws.

    Iterating never ends; give `fit` its `steps_per_epoch`. A batch is (tokens, next tokens).

    Raises:
        ValueError: a number is not one of those, or data of another form.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, algorithm 1.
    """

    def __init__(
        self, student: Any, data: Any, given: int, *, share: float = 0.5, batch_size: int = 32,
        temperature: float = 1.0, teacher: Any = None, mix: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self._rows = Samples(data, [Input("tokens", (None,), "int32")], "data").columns()[0]
        if not 1 <= given < self._rows.shape[1]:
            raise ValueError(f"`given` must be from 1 to {self._rows.shape[1] - 1}. Received: given={given!r}")
        if not 0 <= share <= 1:
            raise ValueError(f"`share` must be from 0 to 1. Received: share={share!r}")
        self._student, self._given, self._share, self._batch = student, given, share, batch_size
        self._how = {"temperature": temperature, "other": teacher, "mix": mix}
        self._random = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        length = self._rows.shape[1]
        while True:
            rows = self._rows[self._random.integers(0, len(self._rows), self._batch)]
            if self._random.random() < self._share:
                seed = int(self._random.integers(2**31))
                rows = sample(self._student, rows[:, : self._given], length, seed=seed, **self._how)
            yield rows[:, :-1], rows[:, 1:]


class PolicyGradient(Outputs):
    """MiniLLM's reverse KL of whole sequences, on what the student wrote.

        -sum_t [ sum_y q(y) log p(y) / q(y)  +  R_{t+1} log q(y_t) ],    R_t = mean over later t' of log p / q (y_t')

    The first part is the exact divergence at each place; the second lets a token answer for what it leads to. p is the
    teacher's, q the student's. Places of the prompt do not count.

    Args:
        given: tokens of the prompt.

    Needs the tokens that were written as labels, as `OnPolicy` gives them, with share=1.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, equations 3 and 6 (single-step decomposition, length
    normalization).
    """

    def __init__(self, given: int) -> None:
        super().__init__(1.0, from_logits=True)
        self.given = given

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        if labels is None:
            raise ValueError("`PolicyGradient` needs the tokens that were written as labels: pass `OnPolicy` to fit")
        start = self.given - 1  # what follows the prompt's last token is the first that was written
        log_p, log_q = (losses.log_probabilities(x[:, start:], 1.0, True) for x in (teacher, student))
        tokens = tf.cast(labels, tf.int32)[:, start:]
        chosen = tf.stop_gradient(tf.gather(log_p - log_q, tokens, batch_dims=2))
        later = tf.cumsum(chosen, axis=1, exclusive=True, reverse=True)
        count = tf.cast(tf.range(tf.shape(tokens)[1] - 1, -1, -1), tf.float32)
        reward = later / tf.maximum(count, 1.0)
        step = losses.divergence(log_q, log_p)
        return tf.reduce_mean(step - reward * tf.gather(log_q, tokens, batch_dims=2), axis=1)
