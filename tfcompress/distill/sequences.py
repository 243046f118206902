"""Distillation of models that write token by token, on what the teacher or the student itself writes.

A language model maps tokens [batch, length] (whole numbers) to logits [batch, length, vocabulary], or to probabilities
where its layers say so (see `output_kind`); what it says at a place may depend on tokens up to that place only.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.errors import CompressionError
from tfcompress.core.samples import Input, Samples
from tfcompress.core.scalars import is_finite, is_whole
from tfcompress.distill import losses
from tfcompress.distill.objects import Outputs
from tfcompress.distill.output_kind import output_kind

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
Asked = list[tuple[float, Callable[[np.ndarray, int], np.ndarray]]]  # shares of the probability, and whose they are


def sample(
    model: Any, prompts: Any, length: int, *, temperature: float = 1.0, other: Any = None, mix: float = 0.0,
    seed: int = 0, end: int | None = None, padding: int = 0,
) -> np.ndarray:  # fmt: skip
    """Writes on from prompts:  y_t ~ softmax(z_t / T),  or  mix * p_other + (1 - mix) * p_model.

    Args:
        model: a language model; of a fixed number of tokens, it takes length - 1 of them or more.
        prompts: [batch, given] whole numbers, given from 1.
        length: tokens of prompt and continuation together.
        temperature: T > 0; 0 takes the most likely token.
        other: a second language model to sample from as well.
        mix: its share of the probability, from 0 to 1.
        seed: of the draws.
        end: the token that ends a text; behind the first one that was written stands `padding`. None: texts do not end.
        padding: the token behind the end.

    Returns:
        [batch, length] int32, the prompts in front.

    Raises:
        ValueError: a number is not one of those.
        CompressionError: a model says NaN or infinity of a token.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, section 2.2 (teacher-mixed sampling).
    """
    _check_end(end, padding)
    asked = _asked(model, other, mix, temperature)
    return _written(asked, _rows(prompts, length), length, temperature == 0, _random(seed), end, padding)


def _check_end(end: Any, padding: Any = 0) -> None:
    if end is not None and not is_whole(end, 0):
        raise ValueError(f"`end` must be a token, a whole number from 0, or None. Received: end={end!r}")
    if not is_whole(padding, -(2**31)):
        raise ValueError(f"`padding` must be a whole number. Received: padding={padding!r}")


def _random(seed: Any) -> np.random.Generator:
    if not is_whole(seed, 0):
        raise ValueError(f"`seed` must be a whole number from 0. Received: seed={seed!r}")
    return np.random.default_rng(seed)


def _asked(model: Any, other: Any, mix: float, temperature: float) -> Asked:
    """Each model's probabilities of the token behind a place, [batch, vocabulary]."""
    if not is_finite(temperature) or temperature < 0:
        raise ValueError(f"`temperature` must be a number from 0 on. Received: temperature={temperature!r}")
    if not is_finite(mix) or not 0 <= mix <= 1 or (mix > 0 and other is None):
        raise ValueError(
            f"`mix` must be a number from 0 to 1 and with another model. Received: mix={mix!r}, the other model "
            f"{other!r}"
        )
    shares = [(1 - mix, model, "the model"), *([(mix, other, "the other model")] if mix else [])]
    return [(share, _Says(one, name, temperature or 1.0)) for share, one, name in shares]


class _Says:
    """A model as one compiled function, so that neither a token nor a batch costs a new trace."""

    def __init__(self, model: Any, name: str, temperature: float) -> None:
        self._name, self._temperature, self._logits = name, temperature, output_kind(model) == "logits"
        inputs = flavor.flatten(flavor.graph_inputs(model)) if flavor.is_graph(model) else []
        self._context = inputs[0].shape[1] if inputs and len(inputs[0].shape) > 1 else None
        self._run = tf.function(lambda tokens: model(tokens, training=False), reduce_retracing=True)

    def __call__(self, tokens: np.ndarray, place: int) -> np.ndarray:
        context = tokens.shape[1] if self._context is None else self._context
        if context < tokens.shape[1]:
            raise ValueError(
                f"`length` must be at most {context + 1}: {self._name} reads {context} tokens. Received: "
                f"length={tokens.shape[1] + 1}"
            )
        # What stands behind a place changes nothing of what is said there.
        outputs = self._run(tf.convert_to_tensor(np.pad(tokens, ((0, 0), (0, context - tokens.shape[1])))))
        values = np.asarray(outputs[:, place], np.float64)
        if not self._logits:
            with np.errstate(divide="ignore"):  # what is never said stays so
                values = np.log(values)
        values = values / self._temperature
        with np.errstate(invalid="ignore"):
            values = np.exp(values - values.max(-1, keepdims=True))
        if not np.isfinite(values).all():
            raise CompressionError(
                f"{self._name} says NaN or infinity of the token at place {place + 1}: no text can be drawn from it"
            )
        return values / values.sum(-1, keepdims=True)


def _rows(prompts: Any, length: int) -> np.ndarray:
    """Prompts as [batch, given] int32."""
    if not is_whole(length, 2):
        raise ValueError(f"`length` must be a whole number from 2 on. Received: length={length!r}")
    expected = f"`prompts` must be whole numbers [batch, from 1 to {length - 1} tokens], at least one row"
    try:
        given = np.asarray(prompts)
        with np.errstate(invalid="ignore"):
            rows = given.astype(np.int32)
    except (TypeError, ValueError):
        raise ValueError(f"{expected}, all of one length. Received: {str(prompts)[:100]}") from None
    if rows.ndim != 2 or not len(rows) or not 1 <= rows.shape[1] < length:
        raise ValueError(f"{expected}. Received: shape {rows.shape}")
    if not np.array_equal(rows, given):
        raise ValueError(f"{expected}. Received: {given.dtype} with {given[rows != given][0]}")
    return rows


def _written(
    asked: Asked, prompts: np.ndarray, length: int, best: bool, random: np.random.Generator, end: int | None = None,
    padding: int = 0,
) -> np.ndarray:  # fmt: skip
    tokens = np.zeros((len(prompts), length), np.int32)
    tokens[:, : prompts.shape[1]] = prompts
    behind = np.zeros(tokens.shape, bool)  # padding may be no token that a model knows: it is put in last
    for place in range(prompts.shape[1], length):
        # Nothing follows the last token: a model need not take it.
        chances = np.sum([share * says(tokens[:, :-1], place - 1) for share, says in asked], axis=0)
        bounds = np.cumsum(chances, axis=-1)
        drawn = random.random((len(tokens), 1)) * bounds[:, -1:]
        written = chances.argmax(-1) if best else (drawn > bounds).sum(-1)
        tokens[:, place] = np.where(behind[:, place], 0, written)
        if end is not None:
            behind[written == end, place + 1 :] = True
        if behind[:, -1].all():
            break
    return np.where(behind, padding, tokens).astype(np.int32)


def teacher_texts(
    teacher: Any, prompts: Any, length: int, *, batch_size: int = 64, seed: int = 0, temperature: float = 1.0,
    end: int | None = None, padding: int = 0,
) -> np.ndarray:  # fmt: skip
    """What the teacher writes: a student trained on it as on any text learns the teacher's sequences.

    Args:
        teacher: a language model, as for `sample`.
        prompts: [rows, given] whole numbers, given from 1.
        length: tokens of prompt and continuation together.
        batch_size: rows written at once.
        seed: of the draws, of which each batch takes its own.
        temperature: T > 0; 0 takes the most likely token at each place, the paper's search with a beam of one.
        end: as for `sample`.
        padding: as for `sample`.

    Returns:
        [rows, length] int32.

    Raises:
        ValueError: a number is not one of those.
        CompressionError: the teacher says NaN or infinity of a token.

    Source: Kim and Rush 2016, arXiv:1606.07947, section 3.2 (sequence-level knowledge distillation, with samples in
    place of the most likely sequence).
    """
    if not is_whole(batch_size):
        raise ValueError(f"`batch_size` must be a whole number from 1. Received: batch_size={batch_size!r}")
    _check_end(end, padding)
    rows, asked, random = _rows(prompts, length), _asked(teacher, None, 0.0, temperature), _random(seed)
    parts = [
        _written(asked, rows[start : start + batch_size], length, temperature == 0, random, end, padding)
        for start in range(0, len(rows), batch_size)
    ]
    return np.concatenate(parts)


class OnPolicy(flavor.BATCHES):  # type: ignore[name-defined, misc]
    """Batches for `Distiller.fit` of which a share was written by the student as it is.

        for each batch:  with probability `share` the student's own continuations of prompts, else rows of the data

    Batches never end: `fit` needs its `steps_per_epoch`. A batch is (tokens, next tokens, weights), each
    [batch_size, length - 1]: what follows the prompt counts, up to the end of the text (1), the prompt and what fills
    up do not (0). Keras asks for a few batches ahead, so they are by the student as it was some steps ago.

    Args:
        student: the language model that is trained.
        data: [rows, length] whole numbers; their first `given` tokens are the prompts.
        given: tokens of a prompt.
        share: of batches that the student writes, from 0 (supervised) to 1 (on-policy).
        batch_size: rows of a batch.
        temperature: of the student's writing.
        teacher: for teacher-mixed writing.
        mix: the teacher's share of the probability, from 0 to 1; `policy_gradient` takes it into account.
        seed: of all draws.
        end: the token that ends a text, in the data as well. None: texts do not end.
        padding: what stands behind the end of a text that the student wrote, a token that the models know.

    Raises:
        ValueError: a number is not one of those, or data of another form.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, algorithm 1.

    >>> from tfcompress.core.flavor import keras
    >>> from tfcompress.distill import Distiller, JensenShannon
    >>> def language():
    ...     return keras.Sequential([keras.Input((None,)), keras.layers.Embedding(5, 4), keras.layers.Dense(5)])
    >>> student, data = language(), np.random.default_rng(0).integers(0, 5, (8, 6))
    >>> distiller = Distiller(language(), student, JensenShannon(0.5), student_loss_weight=0.0)
    >>> distiller.compile("sgd")
    >>> history = distiller.fit(OnPolicy(student, data, given=2, batch_size=4), steps_per_epoch=3, verbose=0)
    >>> len(history.history["loss"])
    1
    """

    def __init__(
        self, student: Any, data: Any, given: int, *, share: float = 0.5, batch_size: int = 32,
        temperature: float = 1.0, teacher: Any = None, mix: float = 0.0, seed: int = 0, end: int | None = None,
        padding: int = 0,
    ) -> None:  # fmt: skip
        self._rows = Samples(data, [Input("tokens", (None,), "int32")], "data").columns()[0]
        if not is_whole(given) or given >= self._rows.shape[1]:
            raise ValueError(f"`given` must be from 1 to {self._rows.shape[1] - 1}. Received: given={given!r}")
        if not is_finite(share) or not 0 <= share <= 1:
            raise ValueError(f"`share` must be from 0 to 1. Received: share={share!r}")
        if not is_whole(batch_size):
            raise ValueError(f"`batch_size` must be a whole number from 1. Received: batch_size={batch_size!r}")
        _check_end(end, padding)
        super().__init__()
        self._asked = _asked(student, teacher, mix, temperature)
        self._given, self._share, self._batch, self._mix = given, share, batch_size, mix
        self._temperature, self._random = temperature, _random(seed)
        self._end, self._padding = end, padding

    num_batches = None
    """What Keras 3 asks for the number of batches: they do not end."""

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield next(self)

    def __getitem__(self, index: int) -> Batch:
        """The next batch, whichever is asked for: a student that has moved on does not write an earlier one again."""
        return next(self)

    def __next__(self) -> Batch:
        rows = self._rows[self._random.integers(0, len(self._rows), self._batch)]
        if self._random.random() < self._share:
            random = np.random.default_rng(int(self._random.integers(2**31)))
            rows = _written(self._asked, rows[:, : self._given], rows.shape[1], self._temperature == 0, random,
                            self._end, self._padding)  # fmt: skip
        counted = np.zeros(rows.shape, np.float32)
        counted[:, self._given :] = 1.0
        if self._end is not None:
            ends = (rows == self._end) * counted
            counted *= np.cumsum(ends, axis=1) - ends == 0  # the token that ends a text is its last
        return rows[:, :-1], rows[:, 1:], counted[:, 1:]

    def policy_gradient(self) -> "PolicyGradient":
        """The loss of MiniLLM for these batches.

        Raises:
            ValueError: not all of them are written, or not at temperature 1.
        """
        if self._share != 1 or self._temperature != 1:
            raise ValueError(
                f"`share` and `temperature` must be 1 for a policy gradient. Received: share={self._share!r}, "
                f"temperature={self._temperature!r}"
            )
        return PolicyGradient(self._given, self._mix, self._end)


class PolicyGradient(Outputs):
    """MiniLLM's reverse KL of whole sequences, on what the student wrote.

        mean over written t of  w_t [ sum_y q(y) log q(y) / p(y)  -  R_t log q(y_t) ]

        R_t = mean over later t' of log p(y_t') / q(y_t'),    w_t = q(y_t) / (mix p(y_t) + (1 - mix) q(y_t))

    p is the teacher's probability behind what is written up to t, q the student's; no gradient flows through R and w.
    The first part is the exact divergence at each place; the second lets a token answer for what it leads to, 0 for the
    last one. The weights make up for a teacher that wrote as well: of each token its own, as in the paper, and not the
    product with those before it. Places of the prompt do not count. The paper clips its steps as PPO does and adds the
    loss of language modelling on plain text; neither is part of this loss. On batches of `OnPolicy`, whose weights are
    averaged for each text, a text counts by the number of tokens that were written of it.

    Args:
        given: tokens of the prompt, from 1.
        mix: the teacher's share of the probability when the tokens were written, as `OnPolicy` has it, from 0 to 1.
        end: the token that ends a text; what stands behind it does not count. None: texts do not end.
        from_logits: as for `Logits`.

    Needs the tokens that were written as labels, as `OnPolicy` gives them, with share=1 and temperature=1:
    `OnPolicy.policy_gradient` gives the loss that goes with the batches.

    Raises:
        ValueError: a number is not one of those; or, in training, texts that have no token behind the prompt.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, section 2.2 (single-step decomposition, teacher-mixed sampling,
    length normalization).

    >>> float(PolicyGradient(1).loss(tf.zeros((1, 1, 2)), tf.zeros((1, 1, 2)), [[0]])[0])
    0.0
    """

    def __init__(self, given: int, mix: float = 0.0, end: int | None = None, *, from_logits: Any = None) -> None:
        super().__init__(1.0, from_logits=from_logits)
        if not is_whole(given):
            raise ValueError(f"`given` must be a whole number from 1. Received: given={given!r}")
        if not is_finite(mix) or not 0 <= mix <= 1:
            raise ValueError(f"`mix` must be from 0 to 1. Received: mix={mix!r}")
        _check_end(end)
        self.given, self.mix, self.end = int(given), float(mix), end

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        if labels is None:
            raise ValueError("`PolicyGradient` needs the tokens that were written as labels: pass `OnPolicy` to fit")
        start = self.given - 1  # what follows the prompt's last token is the first that was written
        tokens = tf.cast(labels, tf.int32)
        if tokens.shape[1] is not None and tokens.shape[1] <= start:
            raise ValueError(
                f"`given` must be at most {tokens.shape[1]}, the tokens in a row of labels. Received: "
                f"given={self.given!r}"
            )
        tokens = tokens[:, start:]
        pair = zip((teacher, student), self.logits, strict=True)
        log_p, log_q = (losses.log_probabilities(x[:, start:], 1.0, raw) for x, raw in pair)
        ratios = tf.stop_gradient(tf.gather(log_p - log_q, tokens, batch_dims=2))
        ended = tf.cumsum(tf.cast(tokens == self.end, tf.int32), axis=1, exclusive=True) if self.end is not None else 0
        counted = tf.cast(tf.zeros_like(tokens) == ended, tf.float32)
        later = tf.cumsum(tf.math.multiply_no_nan(ratios, counted), axis=1, exclusive=True, reverse=True)
        count = tf.cumsum(counted, axis=1, exclusive=True, reverse=True)
        reward = later / tf.maximum(count, 1.0)
        terms = losses.divergence(log_q, log_p) - reward * tf.gather(log_q, tokens, batch_dims=2)
        if self.mix:
            terms /= self.mix * tf.exp(ratios) + (1 - self.mix)
        return tf.reduce_sum(terms * counted, axis=1) / tf.reduce_sum(counted, axis=1)
