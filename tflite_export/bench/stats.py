"""Figures of a list of times."""

from collections.abc import Mapping, Sequence

import numpy as np


def summary(milliseconds: Sequence[float] | np.ndarray) -> dict[str, float]:
    """The fields of a `Result` that come from single times.

        spread = (75th percentile - 25th percentile) / median,    throughput = 1000 / median

    Args:
        milliseconds: of each inference, at least one.

    Returns:
        median, p90, p99, min (milliseconds), spread (a share) and throughput (inferences a second); without
        throughput and spread where the median is 0, below the clock's resolution.

    Raises:
        ValueError: no times, or one that is not finite.

    >>> found = summary([1.0, 2.0, 3.0, 4.0, 10.0])
    >>> found["median"], found["min"], round(found["p90"], 3), round(found["spread"], 3), round(found["throughput"])
    (3.0, 1.0, 7.6, 0.667, 333)
    """
    times = np.asarray(milliseconds, np.float64)
    if not times.size or not np.isfinite(times).all():
        raise ValueError(f"`milliseconds` must be at least one finite number. Received: {times.tolist()[:5]}")
    low, median, high, p90, p99 = (float(value) for value in np.percentile(times, (25, 50, 75, 90, 99)))
    found = {"median": median, "p90": p90, "p99": p99, "min": float(times.min())}
    if median > 0:
        found |= {"spread": (high - low) / median, "throughput": 1e3 / median}
    return found


def paired_ratio(turns: Sequence[Sequence[float]], first: Sequence[Sequence[float]]) -> float | None:
    """How much longer one file takes than another that was timed by turns with it.

        ratio = median over turns t of: median(turns[t]) / median(first[t])

    Both files of a turn meet the same state of the machine, which a ratio of two overall medians does not know.

    Args:
        turns: the times of each turn, in any unit.
        first: those of the file that is compared to; turns that only one of the two has are left out.

    Returns:
        The ratio; None where no turn has times of both.

    >>> paired_ratio([[2.0], [20.0], [2.0]], [[1.0], [10.0], [1.0]])
    2.0
    """
    ratios = [
        float(np.median(own)) / float(np.median(other))
        for own, other in zip(turns, first, strict=False)
        if len(own) and len(other) and np.median(other) > 0
    ]
    return float(np.median(ratios)) if ratios else None


def spoken(milliseconds: float | None) -> str:
    """A time for people, three digits and a unit; empty for None.

    >>> spoken(0.01234), spoken(2.5), spoken(12345.0)
    ('12.3 us', '2.50 ms', '12.3 s')
    """
    if milliseconds is None:
        return ""
    for limit, factor, unit in ((0.9995, 1e3, "us"), (999.5, 1.0, "ms"), (float("inf"), 1e-3, "s")):
        if milliseconds < limit:
            value = milliseconds * factor
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return "endless"


def noise(spread: float | None, load: Mapping[str, float] | None = None) -> list[str]:
    """What a reader of the times must know about the machine that they were taken on.

    Args:
        spread: of the times.
        load: "load" and "cores" of the machine while it measured, where they are known.
    """
    found = []
    if load is not None and load["load"] > load["cores"]:
        found.append(f"the machine was busy: load {load['load']:.0f} on {load['cores']:.0f} cores")
    if spread is not None and spread > 0.25:
        found.append(f"the times scatter: the middle half of them spans {100 * spread:.0f} % of the median")
    return found
