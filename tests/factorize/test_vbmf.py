"""The planted rank is found."""

import numpy as np
import pytest

from tfcompress.factorize import vbmf_rank


def planted(rows, columns, rank, noise, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    return signal + noise * rng.normal(size=(rows, columns))


@pytest.mark.parametrize("rank", [0, 1, 3, 10, 20])
@pytest.mark.parametrize("shape", [(60, 80), (100, 60), (120, 120), (40, 900)])
@pytest.mark.parametrize("noise", [0.01, 0.3, 0.5])
def test_the_rank_under_noise_is_the_planted_one(rank, shape, noise):
    assert vbmf_rank(planted(*shape, rank, noise)) == rank


def test_scale_and_orientation_do_not_matter():
    matrix = planted(50, 90, 4, 0.4)
    assert vbmf_rank(matrix) == vbmf_rank(matrix.T) == vbmf_rank(1e-4 * matrix) == vbmf_rank(1e5 * matrix) == 4


def test_without_noise_it_is_the_rank_itself():
    assert vbmf_rank(planted(30, 40, 5, 0.0)) == 5
    assert vbmf_rank(np.zeros((4, 5))) == 0


def test_more_noise_hides_components():
    ranks = [vbmf_rank(planted(60, 60, 10, noise)) for noise in (0.1, 3.0, 30.0)]
    assert ranks[0] == 10 and ranks == sorted(ranks, reverse=True) and ranks[-1] == 0


@pytest.mark.parametrize(("shape", "strength", "rank"), [
    ((300, 300), 2.35, 1), ((300, 300), 2.12, 0), ((150, 600), 1.72, 1), ((150, 600), 1.56, 0),
])  # fmt: skip
def test_the_limit_is_that_of_the_theorem(shape, strength, rank):
    """sqrt((1 + t)(1 + a / t)), t = 2.5129 sqrt(a): 2.216 for a = 1, 1.645 for 1/4; noise ends at 1 + sqrt(a)."""
    u, s, v = np.linalg.svd(np.random.default_rng(0).normal(size=shape), full_matrices=False)
    s[0] = strength * np.sqrt(shape[1])
    assert vbmf_rank((u * s) @ v) == rank


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full((2, 2), np.nan)])
def test_what_is_no_matrix_is_refused(wrong):
    with pytest.raises(ValueError, match="`matrix` must have two axes and finite values"):
        vbmf_rank(wrong)
