"""Errors by rank without a fit, beside those of the decompositions themselves."""

import numpy as np
import pytest

from tfcompress.factorize import compose, decompose, spectrum
from tfcompress.factorize.decompose import methods_of
from tfcompress.factorize.spectrum import Spectrum, steps

SHAPES = [(3, 3, 4, 6), (3, 4, 6), (20, 8)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "method"), [(s, m) for s in SHAPES for m in methods_of(s)])
def test_errors_are_those_of_the_decomposition(shape, method, weighted):
    rng = np.random.default_rng(0)
    w, n = rng.normal(size=shape), int(np.prod(shape[:-1]))
    x = rng.normal(size=(3 * n, n)) * np.linspace(0.2, 3, n)
    root = np.linalg.cholesky(x.T @ x) if weighted else None
    spectrum = Spectrum(w, method, root)
    for ranks in spectrum.grid[::2]:
        found = compose(method, decompose(w, method, ranks, root))
        missing, whole = (v.reshape(n, -1) for v in (w - found, w))
        if weighted:
            missing, whole = x @ missing, x @ whole
        expected = np.linalg.norm(missing) / np.linalg.norm(whole)
        if method == "tucker2":  # truncation is an upper bound of what is taken
            assert expected <= spectrum.error(ranks) + 1e-9
            assert spectrum.error(ranks) == pytest.approx(expected, rel=0.25)
        else:
            assert spectrum.error(ranks) == pytest.approx(expected, abs=1e-7)
    assert spectrum.error(spectrum.full) == 0


def test_truncated_tucker_is_the_projection_on_leading_singular_vectors():
    w = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    u = np.linalg.svd(w.transpose(2, 0, 1, 3).reshape(4, -1), full_matrices=False)[0][:, :2]
    v = np.linalg.svd(w.reshape(-1, 6), full_matrices=False)[2][:3]
    projected = np.einsum("hwio,ia,ja,bo,bp->hwjp", w, u, u, v, v)
    spectrum = Spectrum(w, "tucker2")
    np.testing.assert_allclose(spectrum.approximation((2, 3)), projected, atol=1e-9)
    assert spectrum.error((2, 3)) == pytest.approx(np.linalg.norm(w - projected) / np.linalg.norm(w))


def test_vbmf_finds_planted_ranks_of_kernels():
    rng = np.random.default_rng(0)
    w = np.einsum("ia,hwab,bo->hwio", rng.normal(size=(32, 3)), rng.normal(size=(3, 3, 3, 5)), rng.normal(size=(5, 48)))
    w += 0.3 * rng.normal(size=w.shape)
    assert Spectrum(w, "tucker2").vbmf() == (3, 5)
    assert Spectrum(w, "svd").vbmf() == (5,)
    assert Spectrum(w, "channel").vbmf() == (3,)
    with pytest.raises(ValueError, match="'vbmf' is of matrices: not of method='cp'"):
        Spectrum(w, "cp").vbmf()


@pytest.mark.parametrize(("limit", "count"), [(1, 4), (15, 4), (17, 24), (64, 8), (300, 24), (4096, 12)])
def test_steps_end_at_the_limit_and_are_few(limit, count):
    found = steps(limit, count)
    few = [rank for rank in found if rank not in (1, 4, 16, 64, 256)]  # those low ranks are always tried
    assert found[-1] == limit and len(few) <= count + 1 and found[0] == 1 and found == sorted(set(found))


def test_truncation_of_large_kernels_of_low_rank_has_the_error_that_is_said():
    rng = np.random.default_rng(0)
    kernel = (rng.normal(size=(3 * 3 * 8, 4)) @ rng.normal(size=(4, 1024))).reshape(3, 3, 8, 1024)
    spectrum = Spectrum(kernel, "tucker2")
    for ranks in ((8, 4), (8, 16), (8, 64)):
        off = np.linalg.norm(kernel - spectrum.approximation(ranks)) / np.linalg.norm(kernel)
        assert off < 1e-6 and spectrum.error(ranks) < 1e-6


def test_cp_is_fitted_once_for_each_rank(monkeypatch):
    asked = []
    monkeypatch.setattr(spectrum, "decompose", lambda *args: asked.append(args[2]) or decompose(*args))
    one = Spectrum(np.random.default_rng(0).normal(size=(3, 4, 6)), "cp")
    assert one.error([2]) == one.error_of(one.approximation([2])) and one.error([3]) < one.error([2])
    assert asked == [(2,), (3,)]


def test_no_more_windows_are_looked_at_than_asked_for():
    one = Spectrum(np.random.default_rng(0).normal(size=(3, 3, 4, 6)), "depthwise", most=1)
    assert one.grid == [(1,)] and one.within(one.error([1])) == [(1,)] and one.within(0.9 * one.error([1])) == []


def test_as_many_ranks_are_looked_at_with_data_where_their_errors_cost_nothing():
    w, root = np.random.default_rng(0).normal(size=(192, 192)), np.linspace(1, 2, 192)
    for kernel in (w, w.reshape(3, 64, 192)):
        assert Spectrum(kernel, "svd", root).grid == [(rank,) for rank in (1, 4, *range(8, 193, 8))]
