"""Decompositions beside NumPy's and tensorly's own, and exact at full rank."""

import numpy as np
import pytest
import tensorly
from scipy import linalg
from tensorly.decomposition import parafac, partial_tucker

from tfcompress.factorize import compose, decompose, full_ranks
from tfcompress.factorize.decompose import factor_shapes, methods_of, thin_svd
from tfcompress.factorize.spectrum import Spectrum

SHAPES = [(3, 3, 4, 6), (3, 4, 6), (5, 3, 2, 7), (2, 3, 9, 2), (1, 3, 5, 4), (8, 5), (1, 1, 6, 9),
          (2, 3, 2, 4, 5)]  # fmt: skip
EVERY = [(shape, method) for shape in SHAPES for method in methods_of(shape)]


def kernel(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def missing(w, method, ranks, root=None):
    return np.linalg.norm(w - compose(method, decompose(w, method, ranks, root)))


def tail(matrix, rank):
    """The error of the best matrix of this rank (Eckart-Young), by SciPy's singular values."""
    return np.sqrt(np.sum(linalg.svdvals(matrix)[rank:] ** 2))


@pytest.mark.parametrize(("shape", "method"), EVERY)
def test_full_ranks_are_exact_and_more_is_cut_to_them(shape, method):
    w, ranks = kernel(shape), full_ranks(shape, method)
    assert missing(w, method, ranks) < 1e-12 * np.linalg.norm(w)
    more = decompose(w, method, [rank + 3 for rank in ranks])
    assert [f.shape for f in more] == factor_shapes(shape, method, ranks)


@pytest.mark.parametrize(("shape", "method"), EVERY)
def test_shapes_are_those_of_keras_kernels(shape, method):
    ranks = [max(1, rank // 2) for rank in full_ranks(shape, method)]
    assert [f.shape for f in decompose(kernel(shape), method, ranks)] == factor_shapes(shape, method, ranks)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_one_matrix_has_the_best_error_there_is(rank):
    w = kernel((3, 3, 4, 6))
    by_hand = {
        "svd": w.reshape(36, 6), "channel": w.transpose(2, 0, 1, 3).reshape(4, 54),
        "spatial": w.transpose(0, 2, 1, 3).reshape(12, 18),
    }  # fmt: skip
    for method, matrix in by_hand.items():
        assert missing(w, method, [rank]) == pytest.approx(tail(matrix, rank), abs=1e-9)


@pytest.mark.parametrize("multiplier", [1, 2, 4])
def test_depthwise_is_the_best_for_each_channel(multiplier):
    w = kernel((3, 3, 4, 6))
    expected = np.sqrt(sum(tail(w[:, :, i].reshape(9, 6), multiplier) ** 2 for i in range(4)))
    assert missing(w, "depthwise", [multiplier]) == pytest.approx(expected, abs=1e-9)


def test_tucker2_has_the_error_of_tensorly():
    w = kernel((3, 3, 8, 10))
    for ranks in ([2, 3], [5, 4], [8, 2]):
        (core, factors), _ = partial_tucker(w, ranks, modes=[2, 3])
        theirs = np.linalg.norm(w - tensorly.tenalg.multi_mode_dot(core, factors, modes=[2, 3]))
        assert missing(w, "tucker2", ranks) == pytest.approx(theirs, rel=1e-5)


def test_cp_has_the_error_of_tensorly():
    w = kernel((3, 3, 8, 10))
    for rank in (2, 7):
        found = parafac(w.reshape(9, 8, 10), rank, init="svd", random_state=0)
        theirs = np.linalg.norm(w.reshape(9, 8, 10) - tensorly.cp_to_tensor(found))
        assert missing(w, "cp", [rank]) == pytest.approx(theirs, rel=1e-5)


def test_planted_ranks_are_found_exactly():
    a, b, c = kernel((4, 2)), kernel((3, 3, 2, 3), 1), kernel((3, 6), 2)
    w = np.einsum("ia,hwab,bo->hwio", a, b, c)
    assert missing(w, "tucker2", [2, 3]) < 1e-9
    assert missing(w, "channel", [2]) < 1e-9
    assert missing(w, "svd", [3]) < 1e-9
    assert missing(w, "svd", [2]) > 0.1


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_weighted_svd_is_the_best_on_the_data(diagonal):
    rng = np.random.default_rng(1)
    w, x = kernel((12, 7)), rng.normal(size=(200, 12)) @ np.diag(np.linspace(0.1, 5, 12))
    if diagonal:
        x = np.diag(np.linspace(0.1, 5, 12))
    moment = x.T @ x
    root = np.sqrt(np.diag(moment)) if diagonal else np.linalg.cholesky(moment)
    for rank in (1, 3, 6):
        found = compose("svd", decompose(w, "svd", [rank], root))
        assert np.linalg.norm(x @ (w - found)) == pytest.approx(tail(x @ w, rank), rel=1e-9)  # Eckart-Young on x w
        assert np.linalg.norm(x @ (w - found)) < np.linalg.norm(x @ (w - compose("svd", decompose(w, "svd", [rank]))))


@pytest.mark.parametrize("shape", [(900, 200), (200, 900)])
def test_large_matrices_go_by_their_gram_matrix_with_the_same_values(shape):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(shape[0], 20)) @ rng.normal(size=(20, shape[1])) + 0.01 * rng.normal(size=shape)
    left, values, right = thin_svd(matrix)
    np.testing.assert_allclose(values, linalg.svdvals(matrix), rtol=1e-6)
    np.testing.assert_allclose((left * values) @ right, matrix, atol=1e-9)


@pytest.mark.parametrize("method", ["svd", "tucker2", "cp", "spatial", "channel", "depthwise"])
def test_a_kernel_of_zeros_stays_one(method):
    w = np.zeros((3, 3, 4, 6))
    factors = decompose(w, method, [2, 2] if method == "tucker2" else [2])
    assert all(np.isfinite(f).all() for f in factors)
    assert not compose(method, factors).any()


def test_without_tensorly_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorly", None)
    with pytest.raises(ImportError, match=r"pip install 'tfcompress\[factorize\]'"):
        decompose(kernel((3, 3, 4, 6)), "tucker2", [2, 2])
    with pytest.raises(ImportError, match="Tucker-2 and CP need tensorly"):
        Spectrum(kernel((3, 3, 4, 6)), "cp")
    assert len(decompose(kernel((3, 3, 4, 6)), "spatial", [2])) == 2


@pytest.mark.parametrize(("shape", "method", "ranks", "message"), [
    ((4, 4), "magic", [1], "`method` must be one of svd"), ((4, 4), "svd", [0], "`ranks` must be 1 whole numbers"),
    ((4, 4), "svd", [-1], "at least 1"), ((4, 4), "spatial", [1], "four axes for 'spatial'"),
    ((3, 3, 3, 4, 4), "spatial", [1], "four axes for 'spatial', none empty. Received: .3, 3, 3, 4, 4.$"),
    ((3, 3, 4, 4), "tucker2", [2], "`ranks` must be 2 whole numbers"), ((4,), "svd", [1], "at least two axes"),
])  # fmt: skip
def test_what_cannot_be_decomposed_is_refused(shape, method, ranks, message):
    with pytest.raises(ValueError, match=message):
        decompose(np.ones(shape), method, ranks)


def test_kernels_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`kernel` must be finite"):
        decompose(np.full((3, 3, 4, 4), np.nan), "svd", [2])


def triangle(n):
    return np.tril(np.random.default_rng(0).normal(size=(n, n)), -1) + np.eye(n)


@pytest.mark.parametrize(("root", "received"), [
    (np.eye(12) + 0.1, "numbers above the diagonal"), (triangle(12).T, "numbers above the diagonal"),
    (np.r_[0.0, np.ones(11)], "a diagonal that is not positive"), (-triangle(12), "a diagonal that is not positive"),
    (np.full(12, np.nan), "NaN or infinity in it"), (np.tril(np.full((12, 12), np.inf)), "NaN or infinity in it"),
    (np.ones(4), r"an array of shape \(4,\)"), (triangle(4), r"an array of shape \(4, 4\)"),
    (np.ones((12, 1)), r"an array of shape \(12, 1\)"), (1.0, r"an array of shape \(\)"), ("data", "str"),
    ([[1.0], [2.0, 3.0]], "list"),
])  # fmt: skip
def test_what_is_no_root_is_refused(root, received):
    message = r"`root` must be finite numbers, lower triangular \(12, 12\) or a diagonal \(12,\), of positive diagonal"
    for method in ("svd", "channel"):
        with pytest.raises(ValueError, match=f"{message}, for a kernel .3, 4, 6.. Received: {received}"):
            decompose(kernel((3, 4, 6)), method, [2], root)


def test_a_root_may_be_a_list():
    w = kernel((3, 4, 6)).reshape(12, 6)
    for root, weights in ((triangle(12), triangle(12).T), (np.arange(1, 13), np.diag(np.arange(1, 13)))):
        found = compose("svd", decompose(w, "svd", [2], root.tolist()))
        assert np.linalg.norm(weights @ (w - found)) == pytest.approx(tail(weights @ w, 2), rel=1e-9)
