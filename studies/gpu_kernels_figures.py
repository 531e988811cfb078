"""Figures of GPU timings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from studies.gpu_kernels_data import Measured
from studies.mac_costs_figures import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: matplotlib draws this many series before colours recur; then the marker changes
COLOURS = 10
MARKERS = ("o", "^", "s", "D")


def write_bounds(path: Path, bounds: pd.DataFrame) -> None:
    """Draw the speed-ups that rooflines allow, a panel for each device."""
    names = list(dict.fromkeys(bounds["device"]))
    save(path, partial(_bounds, bounds=bounds, names=names), (3.4 * len(names), 4))


def _bounds(figure: "Figure", bounds: pd.DataFrame, names: Sequence[str]) -> None:
    panels = figure.subplots(1, len(names), sharey=True)
    rows = [int(name) for name in bounds.columns if name.isdecimal()]
    for axes, name in zip(panels, names, strict=True):
        for _, line in bounds[bounds["device"] == name].iterrows():
            axes.plot(rows, [line[str(row)] for row in rows], marker="o", markersize=3, label=line["product"])
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel="rows", title=f"{name}, roofline only")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("speed-up over bfloat16 at most")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)


def write_speed_ups(path: Path, table: pd.DataFrame, label: str) -> None:
    """Draw measured speed-ups against rows, a panel for each matrix."""
    shapes = sorted(set(zip(table["columns"], table["depth"], strict=True)))
    width = min(4, max(len(shapes), 1))
    height = max(-(-len(shapes) // width), 1)
    save(path, partial(_speed_ups, table=table, shapes=shapes, grid=(height, width), label=label), (4 * width, 3.4 * height + 1))


def _speed_ups(figure: "Figure", table: pd.DataFrame, shapes: Sequence[tuple[int, int]], grid: tuple[int, int], label: str) -> None:
    panels = figure.subplots(*grid, squeeze=False)
    if not shapes:
        panels[0, 0].set_title("no format timed beside bfloat16")
    for axes, (columns, depth) in zip(panels.flat, shapes, strict=False):
        part = table[(table["columns"] == columns) & (table["depth"] == depth)]
        for (weight, activation), line in part.groupby(["weight", "activation"]):
            best = line.groupby("rows")["speed_up"].max()
            axes.plot(best.index, best, marker="o", markersize=3, label=f"{weight} x {activation}")
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel="rows", ylabel="speed-up over bfloat16", title=f"{columns} x {depth}")
        axes.grid(alpha=0.3)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(label)


def write_roofline(path: Path, found: Measured) -> None:
    """Draw achieved rates against operations for each byte, under the device's roofs."""
    save(path, partial(_roofline, found=found), (8, 5))


def _roofline(figure: "Figure", found: Measured) -> None:
    device = found.device
    frame = found.frame[(found.frame["mode"] == "steady") & (found.frame["columns"] > 0)]
    axes = figure.subplots()
    intensity = frame["tera_operations"] * 1e3 / frame["gb_s"]
    for family in dict.fromkeys(frame["family"]):
        chosen = frame["family"] == family
        axes.scatter(intensity[chosen], frame["tera_operations"][chosen], s=12, label=family)
    x = np.geomspace(0.5, 1e4, 200)
    for name, rate in device.tera_operations.items():
        axes.plot(x, np.minimum(rate, x * device.memory_gb_s / 1e3), linewidth=1, label=f"roof, {name}")
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte", ylabel="TOP/s or TFLOP/s", title=found.label)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)


def write_predictions(path: Path, parts: Sequence[tuple[str, pd.DataFrame]], label: str) -> None:
    """Draw predicted against measured times."""
    save(path, partial(_predictions, parts=parts, label=label), (7, 5.5 + 0.04 * len(parts)))


def _predictions(figure: "Figure", parts: Sequence[tuple[str, pd.DataFrame]], label: str) -> None:
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel="measured [us]", ylabel="predicted [us]", title=label)
    axes.grid(alpha=0.3, which="both")
    if not parts:
        axes.text(0.5, 0.5, "too few timings for a fit", transform=axes.transAxes, ha="center")
        return
    for number, (name, part) in enumerate(parts):
        marker = MARKERS[number // COLOURS % len(MARKERS)]
        axes.scatter(part["measured"] * 1e6, part["predicted"] * 1e6, s=14, marker=marker, label=name)
    ends = [min(axes.get_xlim()[0], 1), axes.get_xlim()[1]]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
