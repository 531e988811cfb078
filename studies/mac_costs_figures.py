"""The study of multiply-accumulates as pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hwmodels.files import replaced
from studies.format_atlas_page import STYLES
from studies.mac_costs_data import LENGTHS, integer_pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: activations that a panel is drawn for, the first four of these that enough weights meet in the table
PANELS = ("uint4", "int8", "e2m1", "e4m3", "uint8", "int4", "uint2")
ENOUGH = 4
#: published interval of exact minifloat units over integer units of the same size, in percent
PUBLISHED = (20, 180)
INTEGER_COLOUR, OTHER_COLOUR = "#1f5fa8", "#d9822b"


def save(path: Path, draw: Callable[["Figure"], None], size: tuple[float, float]) -> None:
    """Draw a picture into a file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata={"Software": "bitatlas"})


def panels(lines: pd.DataFrame) -> list[str]:
    """Return the activations to draw a panel for."""
    counts = lines["activation"].value_counts()
    wanted = [name for name in PANELS if counts.get(name, 0) >= ENOUGH][:4]
    return wanted or [str(counts.index[0])]


def plain_numbers(*axes: "Axis") -> None:
    """Label logarithmic axes with 1, 2, 5, 10 and so on."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def against_bits(figure: "Figure", lines: pd.DataFrame) -> None:
    """LUTs per MAC against the weight's bits, a panel for each of some activations."""
    chosen = panels(lines)
    columns = min(len(chosen), 2)
    axes_of = np.atleast_1d(figure.subplots(-(-len(chosen) // columns), columns, sharex=True, squeeze=False)).reshape(-1)
    for axes, activation in zip(axes_of, chosen, strict=False):
        _panel(axes, lines[lines["activation"] == activation], activation)
    for axes in axes_of[len(chosen) :]:
        axes.axis("off")
    axes_of[0].legend(fontsize=9, frameon=False, title="family of the weight")


def _panel(axes: "Axes", some: pd.DataFrame, activation: str) -> None:
    for name, (colour, marker) in STYLES.items():
        members = some[some["weight_group"] == name]
        if len(members):
            axes.scatter(
                members["weight_bits [bit]"], members["lut_per_mac [LUT]"], color=colour, marker=marker, s=34, alpha=0.8, label=name
            )
    integer = some[some["weight"].str.fullmatch(r"int\d+")].sort_values("weight_bits [bit]")
    axes.plot(integer["weight_bits [bit]"], integer["lut_per_mac [LUT]"], color=STYLES["integer"][0], linewidth=1, alpha=0.6)
    low, high = some["weight_bits [bit]"].min(), some["weight_bits [bit]"].max()
    for bits in range(low, high + 1):
        level = some[some["weight_bits [bit]"] == bits].sort_values("lut_per_mac [LUT]")
        for place, one in ((-9, level.head(1)), (4, level[1:].tail(1))):
            for name, y in zip(one["weight"], one["lut_per_mac [LUT]"], strict=True):
                axes.annotate(name, (bits, y), (4, place), textcoords="offset points", fontsize=7.5)
    axes.set(title=f"activation {activation}", yscale="log", xlabel="bits of the weight", ylabel="LUT per MAC")
    axes.set_xlim(low - 0.4, high + 0.9)
    plain_numbers(axes.yaxis)
    axes.tick_params(labelbottom=True)
    axes.grid(visible=True, which="both", linewidth=0.3, alpha=0.6)


def estimates(figure: "Figure", lines: pd.DataFrame) -> None:
    """Formulas and predictions of LUTs per MAC against what was synthesised."""
    drawn = {
        "FINN's formula": "finn_per_mac [LUT]",
        "EBOPs, as LUTs": "ebops_per_mac",
        "this model, pair left out": "predicted_per_mac [LUT]",
        "this model, format left out": "predicted_unknown_format_per_mac [LUT]",
    }
    whole = integer_pairs(lines)
    truth = lines["lut_per_mac [LUT]"]
    span = np.array([truth.min() * 0.7, truth.max() * 1.4])
    for axes, (title, column) in zip(figure.subplots(1, 4, sharex=True), drawn.items(), strict=True):
        axes.fill_between(span, 0.75 * span, 1.25 * span, color="#dddddd", linewidth=0)
        axes.plot(span, span, color="black", linewidth=0.8)
        for label, chosen, colour in (("other pairs", ~whole, OTHER_COLOUR), ("two integers", whole, INTEGER_COLOUR)):
            axes.scatter(truth[chosen], lines[column][chosen], s=12, alpha=0.7, color=colour, linewidths=0, label=label)
        axes.set(title=title, xscale="log", yscale="log", xlim=span, ylim=(0.4 * span[0], 2.5 * span[1]))
        axes.set(xlabel="LUT per MAC, synthesised", ylabel="estimate")
        plain_numbers(axes.xaxis, axes.yaxis)
        axes.grid(visible=True, linewidth=0.3, alpha=0.6)
        axes.legend(fontsize=8, frameon=False, title="grey: within 25 %", title_fontsize=8, loc="upper left")


def heat_map(figure: "Figure", lines: pd.DataFrame) -> None:
    """LUTs per MAC of every pair of the table: weights down, activations across, each by family and about by cost."""
    order = {}
    for side in ("weight", "activation"):
        cost = lines.groupby(side)["lut_per_mac [LUT]"].median()
        families = lines.drop_duplicates(side).set_index(side)[[f"{side}_group", f"{side}_bits [bit]"]]
        families = families.assign(cost=cost, group=families[f"{side}_group"].map(list(STYLES).index))
        order[side] = families.sort_values(["group", f"{side}_bits [bit]", "cost"]).index
    wide = lines.pivot(index="weight", columns="activation", values="lut_per_mac [LUT]")
    values = wide.reindex(index=order["weight"], columns=order["activation"]).to_numpy(np.float64)
    axes = figure.subplots()
    axes.set_facecolor("#eeeeee")
    shown = axes.imshow(np.log10(values), cmap="viridis", aspect="auto")
    middle = (np.nanmin(np.log10(values)) + np.nanmax(np.log10(values))) / 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if np.log10(value) < middle else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(values.shape[1]), order["activation"], rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(values.shape[0]), order["weight"], fontsize=8)
    axes.set(xlabel="activation", ylabel="weight", title="LUT per MAC of the best recipe; grey: not in the table")
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, label="LUT per MAC")
    ticks = [tick for tick in (5, 10, 20, 50, 100, 200, 500) if np.nanmin(values) <= tick <= np.nanmax(values)]
    bar.set_ticks(np.log10(np.array(ticks, np.float64)), labels=[str(tick) for tick in ticks])


def minifloats(figure: "Figure", found: pd.DataFrame) -> None:
    """Minifloats against integers of the same size, with the published interval."""
    axes = figure.subplots()
    chosen = found[~found["format"].str.startswith("int")]
    names = list(dict.fromkeys(chosen["format"]))
    place = {name: number for number, name in enumerate(names)}
    axes.axhspan(*PUBLISHED, color="#e6e6e6", label=f"published: +{PUBLISHED[0]} to +{PUBLISHED[1]} %")
    axes.axhline(0, color="black", linewidth=1)
    longest = chosen[chosen["dot_length"] == LENGTHS[-1]]
    for origin, filled in (("synthesised", True), ("predicted", False)):
        some = longest[longest["origin"].str.startswith(origin)]
        x = some["format"].map(place)
        face = INTEGER_COLOUR if filled else "none"
        axes.scatter(x, some["over_integer [%]"], s=60, facecolors=face, edgecolors=INTEGER_COLOUR, label=f"unit alone, {origin}")
    axes.scatter(
        longest["format"].map(place),
        longest["over_integer_own_requantizer [%]"],
        marker="x",
        color=OTHER_COLOUR,
        label="with a requantizer for each unit of 12 lanes",
    )
    bits = dict(zip(chosen["format"], chosen["bits"], strict=True))
    axes.set_xticks(range(len(names)), [f"{name}\n{bits[name]} bit" for name in names], fontsize=9)
    axes.set_yscale("symlog", linthresh=100)
    axes.set_ylim(min(-20, 1.1 * longest["over_integer [%]"].min()), 1.4 * longest["over_integer [%]"].max())
    axes.set_yticks((-20, 0, 20, 50, 100, 180, 400, 800), labels=["-20", "0", "20", "50", "100", "180", "400", "800"])
    axes.set(ylabel="LUT over the integer of the same size [%]", xlabel="format of weight and activation")
    axes.set_title(f"Exact multiply-accumulate of two numbers of the same format, {LENGTHS[-1]} products")
    axes.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
