"""The atlas as a picture and a page."""

import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hwmodels.files import replaced
from studies import provenance
from studies.format_atlas_formats import BLOCK, GROUPS, OTHER
from studies.format_atlas_scale import DECIBELS_PER_BIT
from studies.format_atlas_sources import GAUSSIAN, LAPLACE, SIGNED, SOFTMAX, STUDENT_T, WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: lines of the table by source and format
Figures = dict[tuple[str, str], dict[Any, Any]]
BITS, SNR, GAP = "bits [bit/element]", "snr [dB]", "gap_to_bound [dB]"
WIDTHS = range(2, 9)
#: colour and marker of every group
STYLES = dict(
    zip(
        (*GROUPS, BLOCK, OTHER),
        (
            ("#1f5fa8", "s"),
            ("#d9822b", "o"),
            ("#3c8d4f", "^"),
            ("#7cb342", "v"),
            ("#8e5bb5", "D"),
            ("#c0223b", "*"),
            ("#222222", "P"),
            ("#888888", "X"),
        ),
        strict=True,
    )
)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the formats with one scale for the tensor, each set of levels once, the best of every source and width first."""
    chosen = table[~table["group"].isin([BLOCK, "fitted"]) & (table["same_levels_as"] == "")]
    return chosen.sort_values(SNR, ascending=False, kind="stable")


def best(table: pd.DataFrame, source: str, width: int) -> pd.Series:
    """Return the line of the best format of one scale for the tensor."""
    chosen = ranked(table)
    return chosen[(chosen["source"] == source) & (chosen[BITS] == width)].iloc[0]


def write_figure(path: Path, table: pd.DataFrame) -> None:
    """Draw decibels against bits: a panel for each source, a colour and a marker for each group, the bound as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sources = list(table["source"].unique())
    rows = len(sources) // 2 + 1
    figure = Figure(figsize=(12, 5.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2, sharex=True, sharey=True).reshape(-1)
    for axes, source in zip(panels, sources, strict=False):
        _draw(axes, table[table["source"] == source], source)
    for axes in panels[len(sources) :]:
        axes.axis("off")
    _legend(panels[len(sources)], table)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata={"Software": "bitatlas"})


def _draw(axes: "Axes", table: pd.DataFrame, source: str) -> None:
    line = np.array([1.0, 9.2])
    axes.plot(line, DECIBELS_PER_BIT * line, color="black", linewidth=1.2, zorder=1)
    fitted = table[table["group"] == "fitted"]
    axes.plot(fitted[BITS], fitted[SNR], color="black", linewidth=0.9, linestyle=":", zorder=1)
    for group, (colour, marker) in STYLES.items():
        members = table[(table["group"] == group) & (table["same_levels_as"] == "")]
        size = 70 if marker == "*" else 26
        axes.scatter(members[BITS], members[SNR], color=colour, marker=marker, s=size, alpha=0.75, linewidths=0, zorder=3)
        if group != BLOCK and len(members):
            top = members.groupby(BITS)[SNR].max()
            axes.plot(top.index, top, color=colour, linewidth=1, alpha=0.55, zorder=2)
    if source == GAUSSIAN:
        for name, bits, decibels in table.loc[table["group"] == BLOCK, ["format", BITS, SNR]].itertuples(index=False):
            axes.annotate(name, (bits + 0.12, decibels), ha="left", va="center", fontsize=8, color=STYLES[BLOCK][0])
    for width in WIDTHS:
        one = best(table, source, width)
        place = (width - 0.12, max(one[SNR], DECIBELS_PER_BIT * width) + 0.6)  # clear of the bound
        axes.annotate(one["format"], place, ha="right", va="bottom", fontsize=9.5)
    axes.set(title=source, xlim=(0.4, 9.9), ylim=(0, 54), xticks=WIDTHS)
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.set(xlabel="bits of an element, with scales of blocks", ylabel="signal-to-noise ratio [dB]")
    axes.grid(visible=True, linewidth=0.4, alpha=0.6)


def _legend(axes: "Axes", table: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    distinct = table[table["same_levels_as"] == ""]
    handles = []
    for group, (colour, marker) in STYLES.items():
        families = distinct[distinct["group"] == group]["family"].unique()
        if len(families):
            label = textwrap.fill(f"{group}: {', '.join(families)}", 58, subsequent_indent="    ", break_on_hyphens=False)
            handles.append(Line2D([], [], color=colour, marker=marker, markersize=9, linewidth=1, label=label))
    handles += [
        Line2D([], [], color="black", linewidth=1.2, label="Gaussian rate-distortion bound, 6.02 dB a bit"),
        Line2D([], [], color="black", linewidth=0.9, linestyle=":", label="levels fitted to the samples themselves (lloydfit{b})"),
    ]
    heading = "Lines join the best of each group. Named is the best format\nwith one scale for the tensor at each width."
    axes.legend(
        handles=handles, loc="center left", fontsize=10, frameon=False, title=heading, title_fontsize=10.5, alignment="left"
    )


def page(table: pd.DataFrame, check: pd.DataFrame, made: str, *, samples: int, images: int, networks: str, seconds: float) -> str:
    """Return the report's text; ``made`` says of the command and the versions, ``seconds`` how long it took."""
    sources = list(table["source"].unique())
    tensors = dict(zip(table["source"], table["tensors"], strict=True))
    counted = "; ".join(f"{tensors[source]} of {source}" for source in sources if tensors[source] > 1)
    formats = table[table["group"] != "fitted"]["format"]
    return "\n".join(
        [
            "# Atlas of number formats",
            "",
            made,
            f"{formats.nunique()} formats of 2 to 8 bits on {len(sources)} sources, in {seconds:.0f} s.",
            "",
            "![Signal-to-noise ratio against bits](format_atlas.png)",
            "",
            "## What one learns",
            "",
            *(f"- {sentence}" for sentence in findings(table)),
            "",
            "## What is measured",
            "",
            "- Signal-to-noise ratio: 10 log10 of E[x²] / E[(x − x̂)²], x̂ being what the bit-exact quantizer returns. The bound "
            "is the least error at which R bits a number can hold a Gaussian source, 2^(−2R) of its energy: 6.02 dB a bit. **It "
            "bounds N(0, 1) only**: other sources can be held better, and block formats have scales that follow the values.",
            f"- Densities: {samples} numbers each, one from every 1/{samples} of the probability, in random order, fixed seeds.",
            f"- Networks: tensors of {networks}: {counted}. Activations are the computed operands of layers for "
            f"{images} calibration images, each once, without the images themselves, which are whole "
            "numbers of steps. The ratio of a source is the **mean of its tensors' decibels**, so that every layer counts alike; "
            "the table has the worst tensor too.",
            "- **One scale for each tensor**, that of least squared error: the best of 32 an octave, the largest level lying "
            "between 1/64 of the root mean square and 64 times the largest magnitude, the best 16 refined three times. "
            "`mse` and `lsq` of `formats.scaling` look from 0.1 to 1.25 of the largest magnitude only. Block formats follow their "
            "own rule, along the axis that a layer sums over.",
            "- Bits are those of a code; those of block formats hold the share of their blocks' scales, more where the summed axis "
            "is shorter than a block. The one float32 scale of a tensor is counted nowhere.",
            "- Unsigned formats are measured on sources that are never negative, signed formats on all. Formats whose levels are "
            "those of another of the same width but for a factor are in the table (`same_levels_as`), not in the picture or below.",
            "",
            "## Check: Lloyd-Max on N(0, 1)",
            "",
            "Mean squared error of `lloydmax{b}`: on the samples, as a share of their energy; integrated over the quantizer with "
            "scale 1; in closed form; as Max printed it. The run fails unless the first two are the last within 0.1 %.",
            "",
            provenance.markdown(check),
            "",
            "## The best three formats of each width [dB]",
            "",
            provenance.markdown(_best_three(table, sources)),
            "",
            "## Block formats [dB at bits of an element]",
            "",
            provenance.markdown(_blocks(table, sources)),
            "",
        ]
    )


def findings(table: pd.DataFrame) -> list[str]:
    """Return what the figures say, in sentences that hold whatever they are."""
    sources = list(table["source"].unique())
    figures: Figures = {(line["source"], line["format"]): line for line in table.to_dict("records")}
    low, high = best(table, GAUSSIAN, 4), best(table, GAUSSIAN, 8)
    first = (
        f"On {GAUSSIAN} the best formats of 4 and 8 bits, `{low['format']}` and `{high['format']}`, end {low[GAP]:.2f} and "
        f"{high[GAP]:.2f} dB short of the bound; `int4` and `int8` {figures[GAUSSIAN, 'int4'][GAP]:.2f} and "
        f"{figures[GAUSSIAN, 'int8'][GAP]:.2f} dB."
    )
    winners = Counter(str(best(table, source, width)["group"]) for source in sources for width in WIDTHS)
    counted = ", ".join(f"{group} {count}" for group, count in winners.most_common())
    second = f"Of the {len(sources) * len(WIDTHS)} pairs of source and width the best is of the group {counted}."
    parts = []
    for source, plain in ((WEIGHTS, "int4"), (SIGNED, "int4"), (SOFTMAX, "uint4")):
        one = best(table, source, 4)
        parts.append(f"`{one['format']}` on {source} ({one[SNR] - figures[source, plain][SNR]:+.2f} dB against `{plain}`)")
    third = f"Of 4 bits the best are {'; '.join(parts)}."
    gains = [figures[source, "pot8"][SNR] - figures[source, "pot4"][SNR] for source in sources]
    fourth = (
        f"Bits beyond 4 reach only further down in powers of two: `pot8` gains {min(gains):.2f} to {max(gains):.2f} dB over `pot4`."
    )
    tails = {
        name: ", ".join(f"{figures[source, name][GAP]:.2f}" for source in (GAUSSIAN, LAPLACE, STUDENT_T))
        for name in ("int8", "e3m4")
    }
    fifth = (
        f"On {GAUSSIAN}, Laplace and Student-t, in this order, `int8` ends {tails['int8']} dB short of the bound, `e3m4` "
        f"{tails['e3m4']} dB."
    )
    sixth = (
        f"Block formats against `int4` with the best scale for the tensor: `mxfp4` {_against(figures, sources, 'mxfp4', 'int4')}, "
        f"`nvfp4` {_against(figures, sources, 'nvfp4', 'int4')}, depending on the source."
    )
    return [first, second, third, fourth, fifth, sixth]


def _against(figures: Figures, sources: list[str], name: str, other: str) -> str:
    """Return how the decibels and bits of two formats differ."""
    decibels, bits = (
        [figures[source, name][column] - figures[source, other][column] for source in sources] for column in (SNR, BITS)
    )
    return f"{min(decibels):+.2f} to {max(decibels):+.2f} dB for {min(bits):+.2f} to {max(bits):+.2f} bits"


def _best_three(table: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    chosen = ranked(table)
    lines = []
    for source in sources:
        for width in WIDTHS:
            top = chosen[(chosen["source"] == source) & (chosen[BITS] == width)].head(3)
            cells = [f"`{name}` {decibels:.2f}" for name, decibels in zip(top["format"].tolist(), top[SNR].tolist(), strict=True)]
            ranks = dict(zip(("first", "second", "third"), cells, strict=False))
            lines.append({"source": source, "bits": width, **ranks, "gap of the first to the bound": f"{top.iloc[0][GAP]:.2f}"})
    return pd.DataFrame(lines)


def _blocks(table: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    blocks = table[table["group"] == BLOCK]
    cells = blocks.assign(
        cell=[f"{snr:.2f} at {bits:.2f}" for snr, bits in zip(blocks[SNR].tolist(), blocks[BITS].tolist(), strict=True)]
    )
    wide = cells.pivot(index="format", columns="source", values="cell").reindex(index=blocks["format"].unique(), columns=sources)
    return wide.reset_index()
