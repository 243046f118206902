"""Layers replaced by products of smaller ones where that pays."""

import functools
from collections.abc import Mapping
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.budgets import check_budget, is_budget
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.replay import replay
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.core.trace import trace
from tfcompress.core.transformed import transformed_layers
from tfcompress.factorize.candidates import candidates
from tfcompress.factorize.covariance import second_moments
from tfcompress.factorize.plan import by_budget, by_rules, spectra_of
from tfcompress.factorize.ranks import check_method, rules_of
from tfcompress.factorize.writer import Writer

_SAMPLES = 512  # of the data, at most


def factorize_model(model: Any, rank: Any, *, method: str = "auto", select: Any = None, data: Any = None) -> Any:
    """A model in which large kernels are products of small ones wherever that takes fewer numbers and operations.

    Dense, EinsumDense (the projections of attention, too), Embedding, convolutions and the 1x1 kernels of separable
    ones (1D, 2D) become two or three ordinary layers: the last keeps the name, bias and activation, those before it are
    named by what they do ("conv.reduce").
    Where it does not pay, a layer stays as it is; `tfcompress.summary` says of each what was done or why not.
    Composite layers and subclassed models are opened first.

    Args:
        model: a built model of the current Keras flavor, not quantized. It is not changed.
        rank: of each layer
            - a number (8), or a ratio in (0, 1] of the full rank (0.25); of Tucker-2 for both ranks;
            - {"energy": 0.9}: the share of the squared kernel that is kept, in (0, 1);
            - {"error": 0.1}: the relative error that is allowed, in (0, 1);
            - "vbmf": what stands out of the noise of the kernel;
            or one of these by names of layers, {"block/*": 8, "head": "vbmf"}; or a budget for the whole model,
            {"macs": ..., "params": ..., "bytes": ...} (one or several, each a fraction of the model's or a whole
            number), which the result holds: it is distributed such that the model's answers change least.
        method: of convolutions with a window: "tucker2" (1x1, kxk, 1x1), "svd" (kxk, 1x1), "channel" (1x1, kxk),
            "spatial" (kx1, 1xk), "cp" (1x1, kxk of each channel alone, 1x1), "depthwise" (kxk of each channel alone,
            as many times as the rank says, 1x1), or "auto": all but CP compete for errors and budgets, "depthwise" by
            a single time, since runtimes are slow with more; "tucker2" otherwise. Kernels without a window are
            matrices, which SVD takes apart whatever the method.
        select: which layers: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these.
        data: samples: arrays, or an iterable of batches. With them errors are those of the layers' outputs (every
            direction of what they read counts at least 1 % of the mean square: errors are not exact where that is most
            of it, as behind a large common offset), decompositions are weighted by what the layers read, and a budget
            goes by the measured change of the model's answers; without them every layer's relative error counts the
            same. The first 512 are used, and read once.

    Returns:
        A new, uncompiled Functional model, ready to be trained, pruned, quantized and exported.

    Raises:
        TypeError: not a model, or one of the other Keras flavor; ranks of another type.
        ValueError: the model is not built, holds NaN, or is quantized; an argument is out of range; a budget cannot be
            held; a selection or a name matches nothing; a layer that may change reads NaN or infinity on the data.
        ImportError: Tucker-2 or CP without tensorly.

    Source: see `tfcompress.factorize.decompose`; of "vbmf" `tfcompress.factorize.vbmf_rank`.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu", name="body")])
    >>> small = factorize_model(model, 8)
    >>> [(layer.name, layer.units) for layer in small.layers[1:]], small.count_params(), model.count_params()
    ([('body.reduce', 8), ('body', 64)], 1088, 4160)
    """
    flavor.check_model(model)
    check_method(method)
    rules: Any = None
    if is_budget(rank):
        check_budget(rank, "rank")
    else:
        rules = rules_of(rank)
    check_finite(model)
    flat = trace(model)
    _check_plain(flat)
    targets, notes = candidates(flat, select, rules if isinstance(rules, Mapping) else None)
    batches = None if data is None else list(Samples(data, inputs_of(flat), limit=_SAMPLES))  # read once
    roots = second_moments(flat, targets, batches) if batches is not None and targets else {}
    found = functools.partial(spectra_of, method=method, roots=roots)
    if is_budget(rank):
        if not targets:
            said = "; ".join(f"{name}: {note}" for name, note in list(notes.items())[:10]) or "no layer has a kernel"
            raise ValueError(f"`rank` {dict(rank)!r} cannot be held: no layer of {model.name!r} may change. {said}")
        plan = by_budget(flat, targets, found, rank, batches)
    else:
        plan = by_rules(targets, found, rules)
    writer = Writer(flat, targets, plan, roots)
    small = replay(flat, writer.call)
    return noted(small, {**getattr(model, "notes", {}), **notes, **writer.notes})


def _check_plain(flat: Any) -> None:
    if any(hasattr(layer, "describe_output") for layer in flat.layers) or any(
            wrapper.integers() for wrapper in transformed_layers(flat)):  # fmt: skip
        raise ValueError(f"`model` must not be quantized yet: factorize before quantize. Received: {flat.name!r}")
