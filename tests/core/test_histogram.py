"""Ranges from a histogram against brute force on the values themselves."""

import numpy as np
import pytest
from scipy import stats

from tfcompress.core.histogram import BINS, Histogram, check_method


def of(values):
    values = np.asarray(values, "float32")
    histogram = Histogram(float(values.min()), float(values.max()))
    for part in np.array_split(values, 3):
        histogram.add(part)
    return histogram


def squared_error(values, low, high, bits=8):
    """Mean squared rounding and clipping error of an asymmetric grid, from the definition."""
    scale = (high - low) / (2**bits - 1)
    zero = np.round(-low / scale)
    codes = np.clip(np.round(values / scale) + zero, 0, 2**bits - 1)
    return float(np.mean(((codes - zero) * scale - values) ** 2))


def migacz(values, levels):
    """The threshold of least KL divergence, from the slides: candidates every 8 bins, SciPy's divergence."""
    counts, edges = np.histogram(np.abs(values), BINS, (0, np.abs(values).max()))
    best = (np.inf, 0.0)
    for end in range(levels, BINS + 1, 8):
        reference = counts[:end].astype("float64")
        coarse = np.zeros(end)
        for level in range(levels):
            inside = [i for i in range(-(-level * end // levels), -(-(level + 1) * end // levels)) if counts[i]]
            coarse[inside] = sum(counts[i] for i in inside) / max(len(inside), 1)
        reference[-1] += counts[end:].sum()
        with np.errstate(divide="ignore"):
            divergence = stats.entropy(reference, np.maximum(coarse / coarse.sum(), 1e-12))
        best = min(best, (divergence, edges[end]))
    return best[1]


@pytest.fixture
def tailed():
    """20 000 normal values and one far outlier on the right."""
    values = np.random.default_rng(0).normal(size=20_000)
    return np.append(values, 40.0)


def test_the_ends_include_zero_and_every_value_is_counted():
    histogram = of([2.0, 3.0, 0.0, 0.0, 3.0])
    assert (histogram.low, histogram.high, histogram.zeros) == (0.0, 3.0, 2)
    assert histogram.counts.sum() == 3
    assert histogram.counts[-1] == 2 and histogram.counts[int(2 / 3 * BINS)] == 1
    assert histogram.range("minmax") == (0.0, 3.0)


def test_values_outside_the_ends_go_to_the_outermost_bins():
    histogram = Histogram(-1.0, 1.0)
    histogram.add(np.array([-9.0, 9.0, 7.0]))
    assert (histogram.counts[0], histogram.counts[-1]) == (1, 2)


def test_centers_are_the_middles_of_equal_bins():
    centers = Histogram(-1.0, 3.0).centers
    assert centers[0] == pytest.approx(-1 + 2 / BINS)  # half of a bin of width 4 / BINS
    assert centers[-1] == pytest.approx(3 - 2 / BINS)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_is_numpys_within_two_bins(tailed, percentile):
    low, high = of(tailed).range("percentile", percentile=percentile)
    width = 2 * (tailed.max() - tailed.min()) / BINS
    assert high == pytest.approx(np.percentile(tailed, percentile), abs=width)
    assert low == pytest.approx(np.percentile(tailed, 100 - percentile), abs=width)


def test_percentile_counts_the_zeros_of_a_relu():
    values = np.concatenate([np.zeros(9000), np.linspace(0.001, 1.0, 1000)])  # 95 %: the middle of the positive ones
    low, high = of(values).range("percentile", percentile=95.0)
    assert low == 0.0 and high == pytest.approx(0.5, abs=2 / BINS)


@pytest.mark.parametrize("bits", [8, 4])
def test_mse_is_near_the_best_of_a_search_on_the_values_themselves(tailed, bits):
    low, high = of(tailed).range("mse", bits=bits)
    error = squared_error(tailed, low, high, bits)
    ends = np.linspace(0.2, 1.0, 33)
    best = min(squared_error(tailed, tailed.min() * a, tailed.max() * b, bits) for a in ends for b in ends)
    assert error <= best * 1.02
    assert error < squared_error(tailed, tailed.min(), tailed.max(), bits)


def test_mse_takes_the_whole_range_where_values_are_spread_evenly():
    values = np.linspace(-1.0, 3.0, 40_001)
    low, high = of(values).range("mse")
    assert (low, high) == (pytest.approx(-1.0, abs=0.02), pytest.approx(3.0, abs=0.04))


def test_entropy_is_the_threshold_of_an_independent_computation(tailed):
    low, high = of(np.abs(tailed)).range("entropy")
    assert low == 0.0
    assert high == pytest.approx(migacz(np.abs(tailed), 255), abs=40 * 17 / BINS)  # two candidates of 8 bins
    assert high < 12.0


def test_entropy_of_a_signed_tensor_has_one_threshold_for_both_sides(tailed):
    low, high = of(tailed).range("entropy")
    assert high == pytest.approx(migacz(tailed, 127), abs=40 * 17 / BINS)
    assert high < 12.0
    assert low == pytest.approx(max(-high, tailed.min()), rel=1e-6)


def test_entropy_takes_the_whole_range_where_values_are_spread_evenly():
    assert of(np.linspace(0.0001, 1.0, 40_000)).range("entropy")[1] == pytest.approx(1.0, abs=0.01)


def test_entropy_of_sixteen_bits_takes_the_ends():
    values = np.random.default_rng(1).normal(size=1000).astype("float32")  # more levels than bins: nothing is coarser
    assert of(values).range("entropy", bits=16) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_a_tensor_of_zeros_has_an_empty_range(method):
    assert of(np.zeros(5)).range(method) == (0.0, 0.0)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_negative_values_alone_end_at_zero(method):
    values = -np.abs(np.random.default_rng(2).normal(size=5000)) - 0.5
    low, high = of(values).range(method)
    assert high == pytest.approx(0.0, abs=1e-9) and values.min() - 1e-6 <= low < -2.0


def test_ends_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"`low` and `high` must be finite. Received: low=nan, high=1\.0"):
        Histogram(float("nan"), 1.0)


def test_methods_and_percentiles_are_checked():
    with pytest.raises(ValueError, match=r"`method` must be one of \['minmax', 'percentile', 'mse', 'entropy'\]"):
        check_method("max")
    for percentile in (50.0, 100.1):
        with pytest.raises(ValueError, match=r"`percentile` must lie in \(50, 100\]"):
            Histogram(0.0, 1.0).range("percentile", percentile=percentile)
