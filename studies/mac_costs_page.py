"""The study of multiply-accumulates as a page."""

import numpy as np
import pandas as pd

from studies import provenance
from studies.mac_costs_data import LANES, LENGTHS, integer_pairs
from studies.mac_costs_figures import PUBLISHED

PER_MAC = "lut_per_mac [LUT]"


def spoken(names: list[str]) -> str:
    """Return names as code, in words."""
    quoted = [f"`{name}`" for name in names]
    return "none" if not quoted else quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def findings(
    lines: pd.DataFrame, compared: pd.DataFrame, recipes: pd.DataFrame, same: pd.DataFrame, alone: pd.DataFrame, dsp: pd.DataFrame
) -> list[str]:
    """Return what the figures say, in sentences that hold whatever they are."""
    found = [_range(lines), _estimates(compared), _recipes(recipes), _published(same), _requantized(same)]
    return [*found, *_alone(alone), *_slices(dsp)]


def _range(lines: pd.DataFrame) -> str:
    low, high = lines.loc[lines[PER_MAC].idxmin()], lines.loc[lines[PER_MAC].idxmax()]
    whole = lines[integer_pairs(lines)]
    bits = whole["weight_bits [bit]"] * whole["activation_bits [bit]"]
    slope = (whole[PER_MAC] / bits).quantile([0.05, 0.5, 0.95])
    text = (
        f"A multiply-accumulate takes {low[PER_MAC]:.1f} LUT (`{low['weight']}` x `{low['activation']}`) to {high[PER_MAC]:.1f} "
        f"LUT (`{high['weight']}` x `{high['activation']}`)."
    )
    if len(whole):
        text += (
            f" Between integers it takes {slope[0.5]:.2f} LUT for each product of two bits in the median, {slope[0.05]:.2f} to "
            f"{slope[0.95]:.2f} over the middle nine tenths of {len(whole)} pairs."
        )
    return text


def _estimates(compared: pd.DataFrame) -> str:
    table = compared[(compared["pairs"] == "all") & (compared["of"] == "LUT per MAC")].set_index("estimate")

    def one(name: str) -> str:
        line = table.loc[name]
        median, most = line["median error [%]"], line["95th percentile [%]"]
        return f"{median:.1f} % ({most:.1f} %, rank correlation {line['rank correlation']:.3f})"

    return (
        f"Median error (95th percentile) of LUTs per MAC over all pairs: FINN's formula {one(FINN)}, after one factor for all "
        f"{one(FINN + ' times one factor')}; EBOPs after one factor {one('EBOPs times one factor')}; this model for a pair that "
        f"it does not know {one('this model, pair left out')}, for a format that it does not know "
        f"{one('this model, format left out')}."
    )


FINN = "FINN's formula"


def _recipes(recipes: pd.DataFrame) -> str:
    single = recipes[~recipes["recipe"].str.startswith("(")].set_index("recipe")
    counts = single["best with many lanes"].astype(int).sort_values(ascending=False)
    ranked = ", ".join(f"`{name}` {count}" for name, count in counts.items() if count)
    operator = recipes[recipes["recipe"].str.startswith("(")].iloc[0]
    return (
        f"The best recipe of a pair is {ranked} times. Written with the operator `*` alone, units take "
        f"{operator['more LUTs than the best, median [%]']:.1f} % more LUTs in the median and up to "
        f"{operator['at most [%]']:.1f} % more, and {operator['flipped [%]']:.1f} % of the orders between two weight formats "
        "turn round."
    )


def _published(same: pd.DataFrame) -> str:
    longest = same[(same["dot_length"] == LENGTHS[-1]) & ~same["format"].str.startswith("int")]
    over = longest.set_index("format")["over_integer [%]"]
    inside = over.between(*PUBLISHED)
    below, above = over[over < PUBLISHED[0]], over[over > PUBLISHED[1]]
    widths = ", ".join(str(bits) for bits in sorted(set(longest["bits"])))
    text = (
        f"Of {len(over)} minifloats of {widths} bits, {int(inside.sum())} lie in "
        f"the published +{PUBLISHED[0]} to +{PUBLISHED[1]} % over the integer of the same size"
    )
    for what, some in (("below it", below), ("above it", above)):
        if len(some):
            text += f"; {what} {', '.join(f'`{name}` {value:+.0f} %' for name, value in some.items())}"
    cheaper = over[over < 0]
    return f"{text}. Smaller than the integer: {spoken(list(cheaper.index))}."


def _requantized(same: pd.DataFrame) -> str:
    change = (
        (same["over_integer_requantized [%]"] - same["over_integer [%]"])
        .groupby(same["dot_length"])
        .apply(lambda some: float(np.abs(some).max()))
    )
    parts = ", ".join(f"{change[length]:.1f} points with {length} products" for length in LENGTHS if length in change)
    longest = same[(same["dot_length"] == LENGTHS[-1]) & ~same["format"].str.startswith("int")]
    own = longest["over_integer_own_requantizer [%]"] - longest["over_integer [%]"]
    return (
        f"A requantizer shared by all products of a sum moves these figures by at most {parts}. One for each unit of {LANES} lanes "
        f"moves them by {own.min():+.0f} to {own.max():+.0f} points."
    )


def _alone(alone: pd.DataFrame) -> list[str]:
    if alone.empty:
        return []
    always = alone[alone["cheaper with"] == alone["activations"]]
    never = alone[alone["cheaper with"] == 0]
    some = alone[(alone["cheaper with"] > 0) & (alone["cheaper with"] < alone["activations"])]
    return [
        f"As weights, against the integer of the same width and with the same activations: cheaper with every one "
        f"{spoken(list(always['weight']))}, with some {spoken(list(some['weight']))}, with none {spoken(list(never['weight']))}."
    ]


def _slices(dsp: pd.DataFrame) -> list[str]:
    if dsp.empty:
        return []
    most = dsp.iloc[0]
    return [
        f"The synthesiser finds a use for DSP slices in {len(dsp)} pairs. A slice takes the place of "
        f"{dsp['saved'].median():.0f} LUT in the median, {most['saved']:.0f} at most (`{most['weight']}` x "
        f"`{most['activation']}`); HGQ's measure says 55. In {int((dsp['saved'] <= 0).sum())} of the pairs the unit with slices "
        "takes no fewer LUTs than the one without."
    ]


#: how the figures came about
_HOW = (
    "## How it was measured",
    "",
    "- Every unit was generated from the formats' definitions, shown equal to the emulator in simulation, and "
    "synthesised by Yosys for a Xilinx 7-series fabric. LUTs are cells of Yosys, inverters included; no vendor tool "
    "was at hand, and nothing was placed or routed.",
    "- A unit has lanes, an adder tree or chain, and an accumulator that is exact for the table's dot length. **LUT "
    "per MAC** is the slope between its two numbers of lanes, of the recipe that is smallest with many; `fixed` is "
    "where that line meets zero lanes. `mac_costs.csv` has both, and all estimates.",
    "- FINN's formula is the published one for integers (unit of PE = 1, without its 300 LUT for each layer), extended "
    "by this project to other formats (`hwmodels/finn_formula.py`). EBOPs are the product of both widths in fixed "
    "point (`hwmodels/fpga/ebops.py`). One factor: the median ratio to synthesis over all pairs, so fitted to what it "
    "is judged by.",
    "- This model: parts counted from the formats (`hwmodels/fpga/mac_features.py`), their LUTs fitted to the table "
    "(`mac_fit.py`). Every pair is predicted by a fit that does not know it; with a format left out, by one that knows "
    "no pair that the format is in, and of a pair's two formats the one whose loss costs more counts; with the widest "
    "quarter left out, by one that knows the pairs of narrower accumulators alone.",
    "",
)


def page(
    made: str,
    source: str,
    tables: dict[str, pd.DataFrame],
    told: list[str],
) -> str:
    """Return the report's text; ``made`` says of the command and the versions, ``source`` of the table, ``told`` what was found."""
    return "\n".join(
        [
            "# What a multiply-accumulate costs",
            "",
            made,
            source,
            "",
            "## What one learns",
            "",
            *(f"- {sentence}" for sentence in told),
            "",
            "![LUTs per MAC against bits](bits.png)",
            "",
            "![LUTs per MAC of all pairs](pairs.png)",
            "",
            *_HOW,
            *_judged(tables),
            *_weights_and_slices(tables),
        ]
    )


def _judged(tables: dict[str, pd.DataFrame]) -> list[str]:
    return [
        "## Estimates against synthesis",
        "",
        "![Estimates against synthesis](estimates.png)",
        "",
        provenance.markdown(tables["compared"]),
        "",
        "## Recipes",
        "",
        "More LUTs and flips are those of few lanes, where all recipes for a pair were tried. An order is that of two "
        "weight formats with the same activation format, both tried with the recipe. `(operator alone)` takes "
        "`fixed-star`, or where a pair was not tried with it `magnitude-star`, or `shift-tree`: what one writes with `*` "
        "and leaves to the synthesiser.",
        "",
        provenance.markdown(tables["recipes"]),
        "",
        "## Minifloats against integers of the same size",
        "",
        "![Minifloats against integers](minifloats.png)",
        "",
        f"Both operands have the format, units have {LANES} lanes, accumulators are exact for the dot length. A sum of K "
        "products needs one requantization, so units that share requantizers without idling pay 1/K of one for each "
        "multiply-accumulate: `requantizer_share`. `own_requantizer` is with one for each unit, mostly idle. The "
        "requantizer leads back to the format itself, by the kind with fewest LUTs (for any scale; one that was "
        f"synthesised before one by formula), without the memory of its parameters. The published interval, +{PUBLISHED[0]} "
        f"to +{PUBLISHED[1]} % without and +60 to +300 % with a conversion back to floating point, is of hand-made units on "
        "another fabric (Versal; Damsgaard et al., IEEE TCAD 44(6), 2025).",
        "",
        provenance.markdown(tables["same"]),
        "",
    ]


def _weights_and_slices(tables: dict[str, pd.DataFrame]) -> list[str]:
    return [
        "## Weights against integers of the same width",
        "",
        "LUTs per MAC over those of `int{b}` with the same activations, as many of them as the table has.",
        "",
        provenance.markdown(tables["alone"]) if len(tables["alone"]) else "The table has no such weights yet.",
        "",
        "## DSP slices",
        "",
        "LUTs of a unit with many lanes that each slice takes the place of, by recipe.",
        "",
        provenance.markdown(_by_recipe(tables["dsp"])) if len(tables["dsp"]) else "The table has no units with slices yet.",
        "",
    ]


def _by_recipe(dsp: pd.DataFrame) -> pd.DataFrame:
    found = dsp.groupby("recipe")["saved"].agg(["count", "min", "median", "max"]).round(1).reset_index()
    return found.rename(columns={"count": "pairs", "min": "least [LUT]", "median": "median [LUT]", "max": "most [LUT]"})
