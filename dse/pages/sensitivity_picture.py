"""The sensitivities that a search began with as a picture: a column for each group of layers, a row for each option."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dse.pages.drawing import even, picture
from dse.pages.facts import Sensitivity
from dse.proposals.table import ChoiceTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: options that are shown at most, and groups up to which cells hold figures
MOST, MOST_WITH_FIGURES = 40, 24
#: what stands out from yellow and from red
FRAME = "#1346b4"


def rows(sensitivity: Sensitivity) -> tuple[list[str], int]:
    """Return the options that are shown, those of the least median loss first, and how many there are.

    Beyond ``MOST`` they are evenly spread over that order, those that were chosen among them as far as there is room.
    """
    table = sensitivity.table
    options = list(dict.fromkeys(name for names in table.options for name in names))
    losses = matrix(table, options)
    options = [options[i] for i in np.argsort(np.nanmedian(losses, axis=1), kind="stable")]
    chosen = [i for i, name in enumerate(options) if name in set(sensitivity.chosen.values())]
    return [options[i] for i in even(len(options), MOST, frozenset(chosen[:MOST]))], len(options)


def matrix(table: ChoiceTable, options: list[str]) -> NDArray[np.float64]:
    """Return the losses of options as float64 of shape (options, groups), NaN where a group lacks one."""
    found = np.full((len(options), len(table.groups)), np.nan)
    for group, (names, losses) in enumerate(zip(table.options, table.losses, strict=True)):
        for name, loss in zip(names, losses.tolist(), strict=True):
            if name in options:
                found[options.index(name), group] = loss
    return found


def write(path: Path, sensitivity: Sensitivity, title: str) -> None:
    """Draw the losses, darker for more on a logarithmic scale; what was chosen for each group is framed."""
    table = sensitivity.table
    options, of = rows(sensitivity)
    losses = matrix(table, options)
    margin = 0.075 * max(map(len, options)) + 1.6
    wide = 0.55 if len(table.groups) <= MOST_WITH_FIGURES else 0.3
    height = 0.25 * len(options) + 0.07 * max(map(len, table.groups)) + 1.1
    with picture(path, max(wide * len(table.groups) + margin, 6.0), height) as figure:
        axes = figure.subplots()
        _draw(axes, losses)
        axes.set_xticks(range(len(table.groups)), table.groups, rotation=60, ha="right", fontsize=8, parse_math=False)
        axes.set_yticks(range(len(options)), [name.replace(" ", " / ") for name in options], fontsize=8, parse_math=False)
        _frame_chosen(axes, sensitivity, options)
        some = f", {len(options)} of {of} options" if len(options) < of else ""
        framed = "; framed: chosen" if sensitivity.chosen else ""
        figure.suptitle(f"{title}: loss of each option{some}{framed}", fontsize=11, parse_math=False)


def _draw(axes: "Axes", losses: NDArray[np.float64]) -> None:
    from matplotlib.colors import LogNorm

    positive = losses[losses > 0]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1e-9, 1.0)
    low = min(low, high / 10)
    shown = axes.imshow(np.maximum(losses, low), cmap="YlOrRd", norm=LogNorm(low, high), aspect="auto")
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(shown, ax=axes, label="KL divergence with this group alone quantized [nat]", fraction=0.05, pad=0.02)
    if losses.shape[1] > MOST_WITH_FIGURES:
        return
    dark = np.log(np.maximum(losses, low) / low) > 0.7 * np.log(high / low)
    for (row, column), loss in np.ndenumerate(losses):
        if np.isfinite(loss):
            colour = "white" if dark[row, column] else "black"
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
            axes.text(column, row, _figure(float(loss)), fontsize=6, **style)


def _figure(loss: float) -> str:
    if 0.001 <= loss < 100:
        return f"{loss:.2g}"
    return f"{loss:.0e}".replace("e-0", "e-").replace("e+0", "e") if loss else "0"


def _frame_chosen(axes: "Axes", sensitivity: Sensitivity, options: list[str]) -> None:
    from matplotlib.patches import Rectangle

    for column, group in enumerate(sensitivity.table.groups):
        chosen = sensitivity.chosen.get(group)
        if chosen in options:
            corner = (column - 0.5, options.index(chosen) - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=FRAME, linewidth=2.2, clip_on=False))
