"""The formats of every layer as a picture: a row for each layer, a column for each point of the front, darker for more bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.network import ROLES, Role
from dse.objectives import Objective
from dse.pages.drawing import CHOSEN, even, picture
from dse.pages.short_names import short
from dse.report import Outcome
from dse.search import Evaluated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: points of the front that are shown at most where weights stand over activations, and where, of more layers, beside them
MOST, MOST_BESIDE = 12, 8
STACKED_LAYERS = 16
#: bits of the darkest cell; what is wider is as dark
DARKEST = 10.0
#: letters of a cell's first line, and of its second, which are smaller
LETTERS, SMALL_LETTERS = 9, 13


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The points that are shown, in order of the last objective, and the chosen one's place among them."""

    points: tuple[Evaluated, ...]
    of: int
    chosen: int | None


def columns(found: Outcome, chosen: Evaluated | None) -> Columns:
    """Pick as many points of the front as there is room for, evenly, with both ends and the chosen one."""
    by = found.objectives[-1]
    most = MOST if len(found.front_trials[0].assignment.layers) <= STACKED_LAYERS else MOST_BESIDE
    points = sorted(found.front_trials, key=lambda trial: (by.loss(trial.figures), trial.number))
    place = next((i for i, trial in enumerate(points) if chosen is not None and trial.number == chosen.number), None)
    picked = even(len(points), most, frozenset() if place is None else frozenset({place}))
    at = picked.index(place) if place is not None else None
    return Columns(points=tuple(points[i] for i in picked), of=len(points), chosen=at)


def write(path: Path, shown: Columns, objectives: Sequence[Objective], title: str) -> None:
    """Draw weights and activations, one over the other where there are few layers."""
    layers = list(shown.points[0].assignment.layers)
    with picture(path, *_size(shown, layers)) as figure:
        stacked = len(layers) <= STACKED_LAYERS
        shape = (len(ROLES), 1) if stacked else (1, len(ROLES))
        both = figure.subplots(*shape, sharex=stacked, sharey=True, squeeze=False)
        for axes, role in zip(both.flat, ROLES, strict=True):
            _draw(axes, shown, layers, role)
            if not stacked or role == ROLES[-1]:
                labels = [_label(point, objectives) for point in shown.points]
                axes.set_xticks(range(len(shown.points)), labels, rotation=90, fontsize=7, parse_math=False)
        for axes in both[:, 0]:
            axes.set_yticks(range(len(layers)), layers, fontsize=8, parse_math=False)
        some = f"{len(shown.points)} of the {shown.of}" if len(shown.points) < shown.of else f"all {shown.of}"
        marked = ", the chosen one framed" if shown.chosen is not None else ""
        figure.suptitle(f"{title}: {some} points of the front{marked}; darker is more bits", fontsize=11, parse_math=False)


def _size(shown: Columns, layers: Sequence[str]) -> tuple[float, float]:
    """Return width and height in inches that every text has room in."""
    cells = [_cell(point, name, role) for point in shown.points for role in ROLES for name in layers]
    letters = max(len(line) * share for cell in cells for line, share in zip(cell, (1.0, 0.73), strict=False))
    wide = max(0.5, 0.078 * letters + 0.12)
    tall = 0.34 if any(len(cell) > 1 for cell in cells) else 0.27
    down = len(ROLES) if len(layers) <= STACKED_LAYERS else 1
    names = 0.075 * max(map(len, layers)) + 0.6
    return max(len(ROLES) // down * wide * len(shown.points) + names, 6.0), down * (tall * len(layers) + 0.3) + 1.7


def _draw(axes: "Axes", shown: Columns, layers: Sequence[str], role: Role) -> None:
    from matplotlib.patches import Rectangle

    bits = np.array([[point.assignment.layers[name].quantizer(role).width for point in shown.points] for name in layers])
    axes.imshow(bits, cmap="Blues", vmin=0, vmax=DARKEST, aspect="auto")
    for row, name in enumerate(layers):
        for column, point in enumerate(shown.points):
            colour = "white" if bits[row, column] > 0.55 * DARKEST else "black"
            text, *more = _cell(point, name, role)
            below = 0.2 if more else 0.0
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "parse_math": False, "in_layout": False}
            axes.text(column, row - below, text, fontsize=7.5, **style)
            if more:
                axes.text(column, row + below, more[0], fontsize=5.5, **style)
    axes.set_xticks(np.arange(len(shown.points) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(layers) - 1) + 0.5, minor=True)
    axes.grid(visible=True, which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.set_title(f"{role}s", fontsize=10)
    if shown.chosen is not None:
        corner, style = (shown.chosen - 0.5, -0.5), {"edgecolor": CHOSEN, "linewidth": 2.5}
        frame = Rectangle(corner, 1, len(layers), fill=False, clip_on=False, zorder=5, **style)
        axes.add_patch(frame)


def _cell(point: Evaluated, layer: str, role: Role) -> list[str]:
    """Return a cell's one or two lines: the format; how it is scaled where that is not the default, and a weight's steps."""
    assigned = point.assignment.layers[layer]
    name, _, rest = short(str(assigned.quantizer(role))).partition(":")
    more = [rest] if rest else []
    more += assigned.steps if role == "weight" else ()
    return [_cut(name, LETTERS), *([_cut("+".join(more), SMALL_LETTERS)] if more else [])]


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _label(point: Evaluated, objectives: Sequence[Objective]) -> str:
    from matplotlib.ticker import EngFormatter

    shown = EngFormatter(places=2, sep="")
    figures = ", ".join(f"{o.name} " + (f"{v:.4g}" if (v := point.figures[o.name]) < 1000 else shown(v)) for o in objectives)
    steps = f"\n{'+'.join(point.assignment.steps)}" if point.assignment.steps else ""
    return f"trial {point.number}{steps}\n{figures}"
