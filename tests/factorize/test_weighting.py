"""Decompositions weighted by what a kernel reads, beside the best there is on the data themselves."""

import numpy as np
import pytest
from scipy import linalg

from tfcompress.factorize import compose, decompose, full_ranks
from tfcompress.factorize.decompose import methods_of
from tfcompress.factorize.sketch import Sketch

SHAPES = [(3, 3, 6, 8), (3, 5, 8), (5, 3, 4, 7)]


def data(shape):
    """Windows [rows, *window, inputs] of channels that depend on each other, some a hundred times as loud as others."""
    rng = np.random.default_rng(1)
    n = int(np.prod(shape[:-1]))
    x = rng.normal(size=(4 * n, n)) @ (np.eye(n) + 0.2 * rng.normal(size=(n, n)) / np.sqrt(n))
    return x.reshape(-1, *shape[:-1]) * np.geomspace(0.04, 4, shape[-2])


def root_of(x, kind="matrix"):
    rows = x.reshape(len(x), -1)
    return np.sqrt((rows**2).sum(0)) if kind == "diagonal" else np.linalg.cholesky(rows.T @ rows)


def sketched(shape):
    """Few rows and a floor below them as data, and as a sketch."""
    rows = data(shape)[:20].reshape(20, -1)
    _, values, right = linalg.svd(rows, full_matrices=False)
    x = np.concatenate([rows, np.sqrt(0.3) * np.eye(rows.shape[1])])
    return x.reshape(-1, *shape[:-1]), Sketch(right.T, values**2, 0.3)


def tail(matrix, rank):
    """The error of the best matrix of this rank (Eckart-Young), by SciPy's singular values."""
    return np.sqrt(np.sum(linalg.svdvals(matrix)[rank:] ** 2))


@pytest.mark.parametrize("sketch", [False, True])
@pytest.mark.parametrize("rank", [1, 3])
def test_each_method_is_the_best_on_what_its_first_factor_reads(rank, sketch):
    shape = (3, 3, 6, 8)
    w = np.random.default_rng(0).normal(size=shape)
    x, root = sketched(shape) if sketch else (data(shape), root_of(data(shape)))
    methods = ("svd", "channel", "spatial", "depthwise")
    missing = {method: w - compose(method, decompose(w, method, [rank], root)) for method in methods}
    read = {"svd": x.reshape(-1, 54), "channel": x.reshape(-1, 6), "spatial": x.transpose(0, 2, 1, 3).reshape(-1, 18)}
    for method, axes in {"svd": (0, 1, 2, 3), "channel": (2, 0, 1, 3), "spatial": (0, 2, 1, 3)}.items():
        width = read[method].shape[1]
        change = read[method] @ missing[method].transpose(axes).reshape(width, -1)
        whole = read[method] @ w.transpose(axes).reshape(width, -1)
        assert np.linalg.norm(change) == pytest.approx(tail(whole, rank), rel=1e-9)
    for i in range(6):
        window = x[..., i].reshape(-1, 9)
        change = window @ missing["depthwise"][:, :, i].reshape(9, -1)
        assert np.linalg.norm(change) == pytest.approx(tail(window @ w[:, :, i].reshape(9, -1), rank), rel=1e-9)


@pytest.mark.parametrize("kind", ["matrix", "diagonal", "sketch"])
@pytest.mark.parametrize(("shape", "method"), [(s, m) for s in SHAPES for m in methods_of(s)])
def test_outputs_change_less_and_at_full_rank_not_at_all(shape, method, kind):
    w = np.random.default_rng(0).normal(size=shape)
    x, root = sketched(shape) if kind == "sketch" else (data(shape), root_of(data(shape), kind))

    def change(ranks, root):
        found = compose(method, decompose(w, method, ranks, root))
        return np.linalg.norm(x.reshape(len(x), -1) @ (w - found).reshape(-1, shape[-1])) / np.linalg.norm(w)

    assert change(full_ranks(shape, method), root) < 1e-10
    few = {"tucker2": [3, 5], "cp": [8]}.get(method, [2])
    # "depthwise" weighs places of a window against each other, which are alike here, and nothing between channels.
    assert change(few, root) < (1.02 if method == "depthwise" else 0.95) * change(few, None)


@pytest.mark.parametrize("ranks", [(1, 2), (2, 2), (2, 3)])
def test_tucker2_changes_outputs_no_more_than_truncation(ranks):
    # The fit knows of the second moment no more than its first factor reads; of the outputs it may be the worse one.
    rng = np.random.default_rng(57)
    w = rng.normal(size=(3, 4, 6))
    x = (rng.normal(size=(36, 12)) * np.geomspace(0.1, 3, 12)).reshape(-1, 3, 4)
    reads = np.linalg.cholesky(np.einsum("nki,nkj->ij", x, x))
    whole = np.einsum("ji,kjo->kio", reads, w)
    u = linalg.svd(whole.transpose(1, 0, 2).reshape(4, -1))[0][:, : ranks[0]]
    v = linalg.svd(whole.reshape(-1, 6))[2][: ranks[1]]
    projected = np.einsum("kio,ia,ja,bo,bp->kjp", whole, u, u, v, v)
    truncated = np.einsum("ij,kjo->kio", linalg.inv(reads.T), projected)

    def change(kernel):
        return np.linalg.norm(np.einsum("nki,kio->no", x, w - kernel)) / np.linalg.norm(np.einsum("nki,kio->no", x, w))

    found = change(compose("tucker2", decompose(w, "tucker2", ranks, root_of(x))))
    assert found <= change(truncated) + 1e-9


@pytest.mark.parametrize("sketch", [False, True])
@pytest.mark.parametrize("method", methods_of((3, 3, 6, 8)))
def test_factors_stay_of_comparable_size(method, sketch):
    root = sketched((3, 3, 6, 8))[1].scaled(1e3) if sketch else root_of(1e3 * data((3, 3, 6, 8)))
    w = np.random.default_rng(0).normal(size=(3, 3, 6, 8))
    for ranks in ([1, 1], [3, 3]):
        sizes = [np.linalg.norm(f) for f in decompose(w, method, ranks[: len(full_ranks(w.shape, method))], root)]
        assert max(sizes) < 6 * min(sizes)
