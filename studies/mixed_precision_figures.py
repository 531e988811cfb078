"""The study of mixed precision as a picture."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studies.mac_costs_figures import save
from studies.mixed_precision_data import COST, KL, VARIANTS, WITHIN, Found, Point, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colour, marker and line of each search, in their order
STYLES = (("#7a828a", "s", ":"), ("#d9822b", "^", "--"), ("#3c8d4f", "o", "-"), ("#1f5fa8", "D", "-"))
#: how far below float the accuracy axis reaches
SHOWN = 0.08


def write_fronts(path: Path, networks: Sequence[Found]) -> None:
    """Draw for every network the fronts of the four searches: accuracy and divergence against LUTs."""
    save(path, partial(_fronts, networks=networks), (5.2 * len(networks) + 0.6, 9))


def _fronts(figure: "Figure", networks: Sequence[Found]) -> None:
    grid = figure.subplots(2, len(networks), sharex="col", squeeze=False)
    for column, network in enumerate(networks):
        upper, lower = grid[0][column], grid[1][column]
        for variant, style in zip(VARIANTS, STYLES, strict=True):
            points = network.points[variant.name]
            _draw(upper, _accurate(points), "accuracy", style, variant.name)
            _draw(lower, front(points), KL, style, variant.name)
            chosen = network.chosen[variant.name]
            if chosen is not None:
                place = chosen.point.figures[COST] / 1000, chosen.point.figures["accuracy"]
                upper.scatter(*place, s=150, facecolors="none", edgecolors=style[0], linewidths=1.5, zorder=4)
        upper.axhline(network.float_accuracy, color="black", linewidth=1, linestyle="--", label="float32")
        upper.axhline((1 - WITHIN) * network.float_accuracy, color="#c0223b", linewidth=0.9, linestyle=":", label="1 % below")
        upper.set_ylim(network.float_accuracy - SHOWN, network.float_accuracy + 0.015)
        upper.set_title(f"{network.model} (float32: {network.float_accuracy:.3f})", fontsize=11)
        lower.set(yscale="log", xlabel="pipeline [1000 LUT]")
        for axes in (upper, lower):
            axes.grid(visible=True, which="both", linewidth=0.3, alpha=0.6)
    grid[0][0].set_ylabel("accuracy on the search's images [share]; circled: chosen")
    grid[1][0].set_ylabel("KL divergence from float32 [nat]")
    grid[0][-1].legend(loc="lower right", fontsize=8.5, framealpha=0.9)


def _draw(axes: "Axes", points: Sequence[Point], name: str, style: tuple[str, str, str], label: str) -> None:
    colour, marker, line = style
    x, y = [point.figures[COST] / 1000 for point in points], [point.figures[name] for point in points]
    axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        linestyle=line,
        markersize=4,
        linewidth=1.2,
        drawstyle="steps-post",
        alpha=0.85,
        label=label,
    )


def _accurate(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in accuracy and cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.figures[COST], -point.figures["accuracy"])):
        if not kept or point.figures["accuracy"] > kept[-1].figures["accuracy"]:
            kept.append(point)
    return kept
