"""How a share is spread: sums that must come out, and kernels that must not vanish."""

import numpy as np
import pytest

from tests.prune.small import network
from tfcompress.prune.budgets import ErdosRenyi, Global, Kernel, PerLayer, Uniform, resolve

SHAPES = [(3, 3, 3, 16), (3, 3, 16, 32), (512, 10)]


def kernels(rng):
    return [Kernel(None, shape, rng.random(shape) * (place + 1)) for place, shape in enumerate(SHAPES)]


def densities(counts, known):
    return np.array([count / k.units.size for count, k in zip(counts, known, strict=True)])


def test_uniform_is_the_same_everywhere():
    known = kernels(np.random.default_rng(0))
    assert densities(Uniform().counts(known, 0.75, 0.75), known) == pytest.approx(0.25, abs=1e-3)


def test_erdos_renyi_has_the_share_asked_for_and_the_ratios_of_its_formula():
    known = kernels(np.random.default_rng(0))
    density = densities(ErdosRenyi().counts(known, 0.9, 0.9), known)
    sizes = np.array([k.size for k in known])
    assert (density * sizes).sum() / sizes.sum() == pytest.approx(0.1, abs=1e-3)
    raw = np.array([25 / 432, 54 / 4608, 522 / 5120])  # sums over products of the sizes
    assert density / density[0] == pytest.approx(raw / raw[0], rel=0.02)


def test_erdos_renyi_leaves_kernels_dense_that_would_be_more_than_dense():
    known = kernels(np.random.default_rng(0))
    counts = ErdosRenyi().counts(known, 0.3, 0.3)
    assert counts[0] == 432 and counts[2] == 5120
    assert sum(counts) == pytest.approx(0.7 * (432 + 4608 + 5120), abs=2)


def test_a_global_threshold_takes_the_smallest_of_all():
    known = kernels(np.random.default_rng(0))
    counts = Global().counts(known, 0.8, 0.8)
    every = np.sort(np.concatenate([k.units.reshape(-1) for k in known]))[::-1]
    threshold = every[round(0.2 * every.size) - 1]
    assert counts == [max(int((k.units >= threshold).sum()), 1) for k in known]


def test_a_global_threshold_counts_weights_and_leaves_each_kernel_a_unit():
    small = Kernel(None, (2, 2), np.array([5.0, 4.0]))  # 2 channels of 2 weights
    large = Kernel(None, (10, 2), np.array([3.0, 0.5]))  # 2 of 10
    assert Global().counts([small, large], 0.5, 0.5) == [2, 1]  # 2 + 2 + 10 weights reach the 12 that live
    assert Global().counts([small, large], 0.95, 0.95) == [1, 1]


def test_final_shares_by_layer_grow_with_the_schedule():
    model = network()
    budget = PerLayer({"first": 0.2, "he*": 0.0})
    budget.attach(model)
    known = [Kernel(model.get_layer(n), (10, 10), np.zeros((10, 10))) for n in ("first", "second", "head")]
    assert budget.counts(known, 0.8, 0.8) == [80, 20, 100]
    assert budget.counts(known, 0.4, 0.8) == [90, 60, 100]


def test_a_name_that_fits_no_layer_is_refused():
    with pytest.raises(ValueError, match="`budget` entry 'frist' selects no layer"):
        PerLayer({"frist": 0.5}).attach(network())


@pytest.mark.parametrize("budget", ["even", {}, {"first": 1.0}, 3])
def test_what_is_no_budget_is_refused(budget):
    with pytest.raises(ValueError, match="`budget` must"):
        resolve(budget)
