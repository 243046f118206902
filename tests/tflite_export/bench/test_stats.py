import numpy as np
import pytest

from tflite_export.bench.stats import noise, paired_ratio, spoken, summary


def test_figures_of_known_times():
    # 1, 2, ..., 101: the median is 51, quartiles are 26 and 76, nine tenths lie below 91.
    found = summary(np.arange(1, 102, dtype=float))
    assert found == {
        "median": 51, "p90": 91, "p99": 100, "min": 1, "spread": pytest.approx(50 / 51),
        "throughput": pytest.approx(1000 / 51),
    }  # fmt: skip


def test_times_below_the_clock_have_no_throughput():
    assert set(summary([0.0, 0.0])) == {"median", "p90", "p99", "min"}


@pytest.mark.parametrize("times", [[], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_time_is_refused(times):
    with pytest.raises(ValueError, match="milliseconds"):
        summary(times)


def test_a_ratio_is_paired_by_turns():
    # A moment ten times as busy meets both; in one turn the ratio is 5.
    assert paired_ratio([[3.0], [50.0], [3.0, 90.0, 3.0]], [[1.0], [10.0], [1.0]]) == 3.0
    assert paired_ratio([[3.0], [30.0]], [[1.0]]) == 3.0
    assert paired_ratio([[3.0]], []) is None and paired_ratio([[3.0]], [[0.0]]) is None


@pytest.mark.parametrize(
    "milliseconds, text",
    [(None, ""), (0.0004, "0.40 us"), (0.0999, "99.9 us"), (0.99951, "1.00 ms"), (12.3, "12.3 ms"), (2e4, "20.0 s")],
)
def test_times_are_spoken_with_three_digits(milliseconds, text):
    assert spoken(milliseconds) == text


def test_noise_is_told():
    assert noise(0.1, {"load": 1.0, "cores": 2.0}) == []
    busy, scattered = noise(0.5, {"load": 5.0, "cores": 2.0})
    assert "load 5 on 2 cores" in busy and "50 %" in scattered
