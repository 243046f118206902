"""Which channels of a model must live or die together, as data, as a table and as a picture."""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfcompress.core import flavor
from tfcompress.core.trace import trace
from tfcompress.core.transformed import named_weights
from tfcompress.prune.flow import Flow
from tfcompress.prune.parametric import MAKES, READS

_COLORS = {"makes": "#2a78d6", "reads": "#eda100", "follows": "#1baf7a"}
_INK, _MUTED = "#1f1f1e", "#6b6a66"


@dataclass(frozen=True)
class Member:
    """An axis of a weight on which channels of a group lie.

    Attributes:
        layer: name of the layer.
        weight: name of the weight within the layer, as in `named_weights`.
        axis: of the weight.
        role: "makes" (a kernel's new channels), "reads" (a kernel sums over them) or "follows" (a bias, a
            normalization, a depthwise kernel).
        positions: int array [channels of the group, positions of each along the axis].
        width: how many channels one position stands for (a head: as many as it is wide).
    """

    layer: str
    weight: str
    axis: int
    role: str
    positions: np.ndarray
    width: int = 1


@dataclass(frozen=True)
class Group:
    """Channels that are chosen among each other: each lives or dies in all members at once.

    Attributes:
        name: of the first layer that makes them.
        size: how many there are.
        members: all axes of weights on which they lie.
        fixed: why none of them can be removed; None when they can.
        rescaled: why removing one is not the same as setting it to zero; None when it is.
        labels: of each channel, the number of its class.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    fixed: str | None
    rescaled: str | None
    labels: np.ndarray

    def layers(self, role: str) -> list[str]:
        """The names of the layers with this role, each once."""
        return list(dict.fromkeys(member.layer for member in self.members if member.role == role))


@dataclass(frozen=True)
class Dependencies:
    """The groups of a model. Prints as a table; `plot` draws it.

    Attributes:
        model: its name.
        groups: in the order in which their channels are made.
        unknown: name of a layer with weights of which no channels are known -> its kind, and why.
    """

    model: str
    groups: tuple[Group, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __str__(self) -> str:
        table = Table(title=f"{self.model}: channels that live or die together", title_justify="left", box=None,
                      pad_edge=False)  # fmt: skip
        for head in ("channels", "made by", "followed by", "read by", "can be removed"):
            table.add_column(head, justify="right" if head == "channels" else "left", overflow="fold")
        for group in self.groups:
            can = f"when selected: {group.rescaled}" if group.rescaled else "yes"
            can = f"no: {group.fixed}" if group.fixed else can
            cells = [f"{group.size:,}", *(_listed(group.layers(role)) for role in (MAKES, "follows", READS)), can]
            table.add_row(*(Text(cell) for cell in cells))
        console = Console(file=io.StringIO(), width=160, color_system=None)
        console.print(table)
        for name, why in self.unknown.items():
            console.print(f"left alone: {name}, {why}", markup=False, highlight=False)
        return console.file.getvalue()  # type: ignore[attr-defined]

    def plot(self, path: str | Path) -> None:
        """Draws the groups as rows over the layers as columns: who makes, follows and reads their channels.

        Args:
            path: the PNG to write.

        Raises:
            ImportError: matplotlib is missing.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("the plot needs matplotlib: pip install 'tfcompress[demo]'") from error
        layers = list(dict.fromkeys(m.layer for group in self.groups for m in group.members))
        width, height = max(5.0, 2.5 + 0.22 * len(layers)), max(2.5, 1.8 + 0.24 * len(self.groups))
        figure = Figure(figsize=(min(width, 40.0), min(height, 40.0)), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for role, color in _COLORS.items():
            points = [(layers.index(name), row) for row, group in enumerate(self.groups) for name in group.layers(role)]
            axes.plot([x for x, _ in points], [y for _, y in points], linestyle="none", marker="s", markersize=7,
                      color=color, markeredgecolor="white", label=role)  # fmt: skip
        marks = [f"{group.name} · {group.size}{' · fixed' if group.fixed else ''}" for group in self.groups]
        axes.set_yticks(range(len(marks)), marks, fontsize=7, color=_INK)
        axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7, color=_INK)
        axes.set_ylim(len(self.groups) - 0.5, -0.5)
        axes.set_title(f"{self.model}: groups of channels", loc="left", color=_INK, fontsize=11)
        axes.grid(color="#e5e4e0", linewidth=0.6)
        axes.tick_params(length=0, colors=_MUTED)
        axes.spines[:].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor=_INK, fontsize=8)
        figure.savefig(path, format="png")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def dependencies(model: Any) -> Dependencies:
    """The groups of channels of a model: which must live or die together, and which cannot be removed and why.

    Two channels are in one group when they lie on the same axes of the same weights; a channel that a residual addition
    joins to another is one with it. Inputs and outputs of the model are fixed.

    Args:
        model: any built model; composites are opened, as `trace` does.

    Returns:
        A `Dependencies`: iterate over its groups, print it, or `.plot(path)` it.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: the model is not built.

    Source: Fang et al. 2023 (DepGraph), arXiv:2301.12900, where dependencies are pairs of layers; here they are labels
    that flow through the graph.

    >>> from tfcompress.core.flavor import keras
    >>> inputs = keras.Input((4,))
    >>> x = keras.layers.Dense(6, name="a")(inputs)
    >>> x = keras.layers.Add()([x, keras.layers.Dense(6, name="b")(x)])
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="c")(x))
    >>> [(group.size, group.layers("makes"), group.fixed) for group in dependencies(model)]
    [(6, ['a', 'b'], None), (2, ['c'], 'it is an output of the model')]
    """
    flavor.check_model(model)
    return groups_of(Flow(trace(model)))


def groups_of(flow: Flow) -> Dependencies:
    """The groups of a graph whose labels are known."""
    slots = []
    for key, layer in flow.layers.items():
        weights = flow.weights[key]
        for name in named_weights(layer):
            roles = weights.roles.get(name, ())
            for axis, vector in enumerate(weights.axes.get(name, ())):
                if vector is not None and vector.any():
                    others = (v.size for n, v in enumerate(weights.axes[name])
                              if n != axis and v is not None and roles[n] == roles[axis])  # fmt: skip
                    slots.append((layer.name, name, axis, roles[axis], math.prod(others), flow.labels.roots(vector)))
    places: dict[int, list[tuple[int, np.ndarray]]] = {}
    for number, (*_, roots) in enumerate(slots):
        order = np.argsort(roots, kind="stable")
        found, starts = np.unique(roots[order], return_index=True)
        for root, positions in zip(found, np.split(order, starts[1:]), strict=True):
            if root:
                places.setdefault(int(root), []).append((number, positions))
    alike: dict[tuple, list[int]] = {}
    for root, where in sorted(places.items()):
        signature = tuple((number, positions.size) for number, positions in where)
        alike.setdefault((flow.labels.reason(root), flow.labels.rescaling(root), signature), []).append(root)
    groups = []
    for (fixed, rescaled, signature), classes in alike.items():
        members = []
        for i, (number, _) in enumerate(signature):
            layer, name, axis, role, width, _ = slots[number]
            members.append(Member(layer, name, axis, role, np.stack([places[root][i][1] for root in classes]), width))
        makers = [member.layer for member in members if member.role == MAKES]
        first = makers[0] if makers else members[0].layer
        groups.append(Group(first, len(classes), tuple(members), fixed, rescaled, np.array(classes)))
    return Dependencies(flow.model.name, tuple(groups), flow.unknown)
