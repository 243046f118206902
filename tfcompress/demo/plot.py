"""Accuracy over size, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from tfcompress.demo.results import Result

_SERIES = ("#2a78d6", "#1baf7a", "#eda100", "#4a3aa7")
_INK, _MUTED = "#1f1f1e", "#6b6a66"


def plot(results: Sequence[Result], path: Path, title: str) -> None:
    """Draws one point for each file: its size against its accuracy on the runtime.

    Names stand in a column of their own at the right, tied to their points, so that files of almost one size or one
    accuracy stay readable.

    Args:
        results: at least one.
        path: the PNG to write.
        title: what the accuracy is of.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install 'tfcompress[demo]'") from error
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes = [result.bytes / 1000 for result in results]
    shares = [100 * result.file_accuracy for result in results]
    spread = max(max(shares) - min(shares), 0.5)
    low, high = min(shares) - 0.35 * spread, max(shares) + 0.35 * spread
    heights = _apart(shares, gap=0.16 * (high - low), low=low, high=high)
    for i, result in enumerate(results):
        color = _SERIES[i % len(_SERIES)]
        axes.scatter(sizes[i], shares[i], s=80, color=color, zorder=3)
        axes.annotate(
            f"{result.name}\n{result.file_accuracy:.2%}, {sizes[i]:,.1f} kB",
            xy=(sizes[i], shares[i]),
            xytext=(1.04, heights[i]),
            textcoords=("axes fraction", "data"),
            va="center",
            color=_INK,
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 2, "shrinkB": 6},
        )
    axes.set_xlim(0, 1.08 * max(sizes))
    axes.set_ylim(low, high)
    axes.set_xlabel("size of the file, kB", color=_MUTED)
    axes.set_ylabel("accuracy on the runtime, %", color=_MUTED)
    axes.set_title(title, loc="left", color=_INK, fontsize=11)
    axes.grid(color="#e5e4e0", linewidth=0.6)
    axes.tick_params(colors=_MUTED, length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(path, format="png")


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in the order of `values`, each as near to its value as a distance of `gap` to the next allows.

    >>> _apart([5.0, 5.0], gap=2.0, low=0.0, high=10.0)
    [4.0, 6.0]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [values[i] for i in order]
    for _ in range(100):
        for lower in range(len(places) - 1):
            missing = gap - (places[lower + 1] - places[lower])
            if missing > 0:
                places[lower] -= missing / 2
                places[lower + 1] += missing / 2
        places = [min(max(place, low + gap / 2), high - gap / 2) for place in places]
    positions = [0.0] * len(values)
    for place, i in zip(places, order, strict=True):
        positions[i] = round(place, 6)
    return positions
