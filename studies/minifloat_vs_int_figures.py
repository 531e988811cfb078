"""The study of minifloats against integers as pictures."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from studies.mac_costs_figures import plain_numbers, save
from studies.minifloat_vs_int_data import INTEGER, MINIFLOAT, NONE, best_rows
from studies.minifloat_vs_int_page import ACCURACY, KL, LUT, MEMORY, WEIGHT_BITS, duels, equal_widths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colour and marker of either side
STYLES = {INTEGER: ("#1f5fa8", "s"), MINIFLOAT: ("#d9822b", "o")}
#: how far below float the accuracy axis reaches
SHOWN = 0.12
#: figures of cost: column, divisor, label
COSTS = ((MEMORY, 8192, "weight memory [KiB]"), (LUT, 1000, "multiply-accumulate units [1000 LUT]"))


def write_fronts(path: Path, lines: pd.DataFrame, float_accuracy: float) -> None:
    """Draw one network: accuracy and divergence against memory and LUTs."""
    save(path, partial(_fronts, lines=lines, float_accuracy=float_accuracy), (13, 9.5))


def _fronts(figure: "Figure", lines: pd.DataFrame, float_accuracy: float) -> None:
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    plain = lines[lines["steps"] == NONE]
    for column, (cost, unit, label) in enumerate(COSTS):
        for row, measured in enumerate((ACCURACY, KL)):
            axes = grid[row][column]
            for kind in STYLES:
                _side(axes, kind, plain, cost, unit, measured, hollow=True)
                _side(axes, kind, best_rows(lines), cost, unit, measured, hollow=False)
            axes.grid(visible=True, which="both", linewidth=0.3, alpha=0.6)
            axes.margins(x=0.08)
            if cost == LUT:
                axes.set_xscale("log")
                plain_numbers(axes.xaxis)
        grid[1][column].set_xlabel(label)
        grid[0][column].axhline(float_accuracy, color="black", linewidth=1, linestyle="--", label=f"float32: {float_accuracy:.3f}")
    grid[0][0].set(ylim=(float_accuracy - SHOWN, float_accuracy + 0.015), ylabel="accuracy [share]")
    grid[1][0].set(yscale="log", ylabel="KL divergence from float32 [nat]")
    _names(grid[1][1], best_rows(lines))
    grid[0][1].legend(loc="lower right", fontsize=8.5, framealpha=0.9)
    figure.suptitle(f"{lines['model'].iloc[0]} on {lines['data'].iloc[0]}", fontsize=12)


def _side(axes: "Axes", kind: str, lines: pd.DataFrame, cost: str, unit: float, measured: str, *, hollow: bool) -> None:
    """Draw the points of one side, and a line through those that no other of the side beats."""
    colour, marker = STYLES[kind]
    some = lines[lines["kind"] == kind].sort_values([cost, KL])
    if hollow:
        axes.scatter(
            some[cost] / unit, some[measured], facecolors="none", edgecolors=colour, marker=marker, s=20, linewidths=0.8, alpha=0.6
        )
        return
    axes.scatter(some[cost] / unit, some[measured], color=colour, marker=marker, s=30, alpha=0.85, linewidths=0, zorder=3)
    better = -some[measured] if measured == ACCURACY else some[measured]
    kept = some[better < better.cummin().shift(fill_value=float("inf"))]
    label = f"{kind}s, best steps (hollow: no steps)"
    axes.plot(kept[cost] / unit, kept[measured], color=colour, linewidth=1.2, alpha=0.7, label=label, drawstyle="steps-post")


def _names(axes: "Axes", best: pd.DataFrame) -> None:
    """Name the formats that no other of either side beats in divergence and LUTs."""
    some = best[best["kind"].isin(list(STYLES))].sort_values([LUT, KL])
    kept = some[some[KL] < some[KL].cummin().shift(fill_value=float("inf"))]
    for _, row in kept.iterrows():
        name = row["weight"] if row["weight"] == row["activation"] else f"{row['weight']}/{row['activation']}"
        axes.annotate(
            name,
            (row[LUT] / 1000, row[KL]),
            (-4, -11),
            textcoords="offset points",
            fontsize=7,
            ha="right",
            color=STYLES[row["kind"]][0],
        )


def write_widths(path: Path, lines: pd.DataFrame, floats: dict[str, float]) -> None:
    """Draw for every network divergence and accuracy against width: the integer and the best minifloat, with and without steps."""
    save(path, partial(_widths, lines=lines, floats=floats), (4.6 * len(floats), 7.6))


def _widths(figure: "Figure", lines: pd.DataFrame, floats: dict[str, float]) -> None:
    grid = figure.subplots(2, len(floats), sharex=True, sharey="row", squeeze=False)
    cases = ((duels(lines[lines["steps"] == NONE]), "no steps", ":"), (duels(lines), "best steps", "-"))
    for column, (model, float_accuracy) in enumerate(floats.items()):
        for found, label, style in cases:
            some = found[found["model"] == model]
            for side, (colour, marker) in STYLES.items():
                drawn = {"color": colour, "marker": marker, "linestyle": style, "markersize": 5, "label": f"{side}, {label}"}
                loss = some[f"{side} accuracy"] - float_accuracy
                grid[0][column].plot(some["bits"], 100 * loss, **drawn)
                grid[1][column].plot(some["bits"], some[f"{side} KL [nat]"], **drawn)
            if style == "-":
                lower = some[["integer KL [nat]", "minifloat KL [nat]"]].min(axis=1)
                for bits, name, divergence in zip(some["bits"], some["minifloat"], lower, strict=True):
                    place = (bits, divergence)
                    grid[1][column].annotate(name, place, (0, -14), textcoords="offset points", ha="center", fontsize=8)
        grid[0][column].set_title(f"{model} (float32: {float_accuracy:.3f})", fontsize=11)
        grid[0][column].axhline(0, color="black", linewidth=0.8, linestyle="--")
        grid[1][column].set_xlabel("bits of weights and activations")
        for axes in grid[:, column]:
            axes.grid(visible=True, which="both", linewidth=0.3, alpha=0.6)
            axes.set_xticks(sorted(set(equal_widths(lines)[WEIGHT_BITS])))
            axes.margins(x=0.08, y=0.08)
    grid[0][0].set(ylabel="accuracy minus float32 [points]", ylim=(-100 * SHOWN, 1.5))
    grid[1][0].set(ylabel="KL divergence from float32 [nat]", yscale="log")
    grid[1][-1].legend(fontsize=8.5, framealpha=0.9)
