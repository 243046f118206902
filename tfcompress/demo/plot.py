"""Accuracy over size, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from tfcompress.demo.results import Result

_SERIES = ("#2a78d6", "#1baf7a", "#eda100", "#4a3aa7")
_INK, _MUTED = "#1f1f1e", "#6b6a66"


def plot(results: Sequence[Result], path: Path, title: str) -> None:
    """Draws one point for each file: its size against its accuracy on the runtime.

    Names and numbers stand in a column at the right; a file at the place of an earlier one is drawn smaller, on top of
    it. So files of almost one size or one accuracy stay readable.

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
    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, result in enumerate(results):
        axes.plot(
            result.bytes / 1000,
            100 * result.file_accuracy,
            linestyle="none",
            marker="o",
            markersize=12 - 4 * min(2, _under(results, i)),
            color=_SERIES[i % len(_SERIES)],
            markeredgecolor="white",
            label=f"{result.name}\n{result.file_accuracy:.2%}, {result.bytes / 1000:,.1f} kB",
            clip_on=False,
            zorder=3 + i,
        )
    shares = [100 * result.file_accuracy for result in results]
    margin = 0.3 * max(max(shares) - min(shares), 0.5)
    axes.set_xlim(0, 1.08 * max(result.bytes for result in results) / 1000)
    axes.set_ylim(min(shares) - margin, max(shares) + margin)
    axes.set_xlabel("size of the file, kB", color=_MUTED)
    axes.set_ylabel("accuracy on the runtime, %", color=_MUTED)
    axes.set_title(title, loc="left", color=_INK, fontsize=11)
    axes.grid(color="#e5e4e0", linewidth=0.6)
    axes.tick_params(colors=_MUTED, length=0)
    axes.spines[:].set_visible(False)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=_INK, labelspacing=1.4, fontsize=9
    )
    figure.savefig(path, format="png")


def _under(results: Sequence[Result], index: int) -> int:
    """How many earlier results a marker at this one's place would cover."""
    here, largest = results[index], max(result.bytes for result in results)
    spread = max(0.005, max(r.file_accuracy for r in results) - min(r.file_accuracy for r in results))
    return sum(
        abs(other.bytes - here.bytes) < 0.03 * largest and abs(other.file_accuracy - here.file_accuracy) < 0.05 * spread
        for other in results[:index]
    )
