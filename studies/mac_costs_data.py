"""The tables behind the study of what a multiply-accumulate costs: a line for each pair of formats, and what follows from them."""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from formats import registry
from formats.arithmetic.width import bound_bits
from formats.errors import BitatlasError
from hwmodels.cost import NotPricedError
from hwmodels.finn_formula import lut_per_mac
from hwmodels.fpga import mac_fit
from hwmodels.fpga.ebops import ebops_per_mac
from hwmodels.fpga.mac_model import MacModel, errors
from hwmodels.fpga.rtl.operand import read
from hwmodels.fpga.unit_cost import KINDS, RequantizerPrice, UnitCost
from studies.format_atlas_formats import GROUPS, OTHER

PAIR = ["weight", "activation"]
#: lengths of the dot products that a requantization is shared out over: 64 channels, 3 x 3 x 64, 3 x 3 x 512
LENGTHS = (64, 576, 4608)
#: what multiplies by an operator alone and leaves the rest to the synthesiser, the first that a pair was tried with
OPERATOR = ("fixed-star", "magnitude-star", "shift-tree")
LANES = 12
#: predictions by what the fit does not know, and their columns
PREDICTIONS = {"this model, pair left out": "predicted", "this model, format left out": "predicted_unknown_format"}


def group(name: str) -> str:
    """Return what the format's family belongs to."""
    for family in registry.FAMILIES:
        if family.numbers(name) is not None:
            return next((key for key, patterns in GROUPS.items() if family.pattern in patterns), OTHER)
    raise BitatlasError(f"format of a table must be registered, not {name}")


def whole_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the units without DSP slices of pairs that have units of two sizes."""
    kept = rows[rows["dsp_allowed"] == 0]
    return kept[kept.groupby(PAIR)["lanes"].transform("nunique") > 1]


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each pair: its best recipe with many lanes, that recipe's slope, formulas and predictions beside it.

    Predictions are by a fit that does not know the pair (``predicted``), or does not know one of its formats (the worse of two).
    """
    kept = whole_table(rows)
    few, many = int(kept["lanes"].min()), int(kept["lanes"].max())
    wide = kept.pivot(index=[*PAIR, "recipe", "accumulator_bits", "dot_length"], columns="lanes", values="lut").dropna()
    wide = wide.reset_index().rename(columns={few: "few", many: "many"})
    best = wide.loc[wide.groupby(PAIR)["many"].idxmin()].reset_index(drop=True)
    best["few_best"] = best.merge(kept[kept["lanes"] == few].groupby(PAIR)["lut"].min().rename("least"), on=PAIR)["least"]
    lines = pd.DataFrame(
        {
            "weight": best["weight"],
            "activation": best["activation"],
            "weight_group": [group(name) for name in best["weight"]],
            "activation_group": [group(name) for name in best["activation"]],
            "weight_bits [bit]": [registry.scalar(name).bits for name in best["weight"]],
            "activation_bits [bit]": [registry.scalar(name).bits for name in best["activation"]],
            "accumulator_bits [bit]": best["accumulator_bits"],
            "recipe": best["recipe"],
            f"lut_{few}_lanes [LUT]": best["few_best"],
            f"lut_{many}_lanes [LUT]": best["many"],
            "lut_per_mac [LUT]": (best["many"] - best["few"]) / (many - few),
            "fixed [LUT]": best["few"] - few * (best["many"] - best["few"]) / (many - few),
        }
    )
    formula = [_formulas(w, a, k, few, many) for w, a, k in best[[*PAIR, "dot_length"]].itertuples(index=False)]
    lines[["finn_per_mac [LUT]", f"finn_{few}_lanes [LUT]", f"finn_{many}_lanes [LUT]", "ebops_per_mac"]] = formula
    return _with_predictions(lines, kept, few, many)


def _formulas(w: str, a: str, dot_length: int, few: int, many: int) -> tuple[float, float, float, float]:
    weight, activation = registry.scalar(w), registry.scalar(a)
    low, high = (lanes * lut_per_mac(weight, activation, dot_length, lanes) for lanes in (few, many))
    return (high - low) / (many - few), low, high, float(ebops_per_mac(weight, activation))


def _with_predictions(lines: pd.DataFrame, kept: pd.DataFrame, few: int, many: int) -> pd.DataFrame:
    modes: tuple[tuple[Literal["pair", "format"], str], ...] = (("pair", "predicted"), ("format", "predicted_unknown_format"))
    for by, column in modes:
        found = mac_fit.leave_one_out(kept, by)
        # a pair is predicted without either of its formats: the prediction that is further off counts
        wide = found.assign(off=found["error"].abs()).pivot(index=["left_out", *PAIR], columns="lanes", values=["predicted", "off"])
        worst = wide.loc[wide["off"][many].groupby(level=PAIR).idxmax(), "predicted"].reset_index()
        flat = pd.DataFrame(
            {
                "weight": worst["weight"],
                "activation": worst["activation"],
                f"{column}_{few}_lanes [LUT]": worst[few],
                f"{column}_{many}_lanes [LUT]": worst[many],
                f"{column}_per_mac [LUT]": (worst[many] - worst[few]) / (many - few),
            }
        )
        lines = lines.merge(flat, on=PAIR, how="left")
    return lines


def integer_pairs(lines: pd.DataFrame) -> pd.Series:
    """Whether both codes of a pair are integers as they are, by line."""
    plain = {name: read(registry.scalar(name)).plain for name in {*lines["weight"], *lines["activation"]}}
    return lines["weight"].map(plain) & lines["activation"].map(plain)


def comparison(lines: pd.DataFrame) -> pd.DataFrame:
    """Return how far formulas and predictions are off, for integers and for all pairs."""
    slope = "lut_per_mac [LUT]"
    finn, ebops = lines["finn_per_mac [LUT]"], lines["ebops_per_mac"]
    tried = [
        ("FINN's formula", slope, finn),
        ("FINN's formula times one factor", slope, finn * (lines[slope] / finn).median()),
        ("EBOPs as LUTs", slope, ebops),
        ("EBOPs times one factor", slope, ebops * (lines[slope] / ebops).median()),
        *((label, slope, lines[f"{column}_per_mac [LUT]"]) for label, column in PREDICTIONS.items()),
    ]
    for size in (name for name in lines.columns if name.startswith("lut_") and name.endswith("_lanes [LUT]")):
        ending = size.removeprefix("lut")
        tried += [("FINN's formula", size, lines[f"finn{ending}"])]
        tried += [(label, size, lines[f"{column}{ending}"]) for label, column in PREDICTIONS.items()]
    whole = integer_pairs(lines)
    found = []
    for name, column, estimate in tried:
        truth = lines[column]
        for kind, chosen in (("integers", whole), ("all", whole | True)):
            if not chosen.any():
                continue
            error = (estimate / truth - 1)[chosen]
            median, most = errors(error.to_numpy())
            found.append(
                {
                    "estimate": name,
                    "of": _in_words(column),
                    "pairs": kind,
                    "number": int(chosen.sum()),
                    "median error [%]": round(100 * median, 1),
                    "95th percentile [%]": round(100 * most, 1),
                    "bias (median) [%]": round(100 * float(error.median()), 1),
                    "rank correlation": round(float(estimate[chosen].corr(truth[chosen], method="spearman")), 3),
                }
            )
    return pd.DataFrame(found)


def beyond(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how far predictions of the widest quarter of the pairs are off, by a fit to the others, as ``comparison`` does."""
    found = mac_fit.leave_one_out(whole_table(rows), "width")
    lines = []
    for lanes, some in found.groupby("lanes"):
        median, most = errors(some["error"].to_numpy())
        lines.append(
            {
                "estimate": "this model, widest quarter left out",
                "of": f"LUT of {lanes} lanes",
                "pairs": "widest quarter",
                "number": len(some),
                "median error [%]": round(100 * median, 1),
                "95th percentile [%]": round(100 * most, 1),
                "bias (median) [%]": round(100 * float(some["error"].median()), 1),
                "rank correlation": round(float(some["predicted"].corr(some["lut"], method="spearman")), 3),
            }
        )
    return pd.DataFrame(lines)


def _in_words(column: str) -> str:
    name = column.removeprefix("lut_").removesuffix(" [LUT]").replace("_", " ")
    return "LUT per MAC" if name == "per mac" else f"LUT of {name}"


def recipes(rows: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """Return for each recipe how often it was tried and is the best, and what it would cost and flip to know no other.

    Flips are judged with few lanes, where every recipe was tried: of all pairs of weight formats that were tried with the recipe,
    with the same activation format, those whose order is another one than by the best recipes.
    """
    kept = whole_table(rows)
    few = kept[kept["lanes"] == kept["lanes"].min()]
    table = few.pivot(index=PAIR, columns="recipe", values="lut")
    best = table.min(axis=1)
    operator = table[[name for name in OPERATOR if name in table]].bfill(axis=1).iloc[:, 0]
    counts = lines["recipe"].value_counts()
    found = []
    for name, lut in [*((name, table[name]) for name in table), ("(operator alone)", operator)]:
        tried = lut.notna()
        excess = (lut[tried] / best[tried] - 1).to_numpy()
        flipped, ordered = flips(best[tried], lut[tried])
        found.append(
            {
                "recipe": name,
                "tried": int(tried.sum()),
                "best with many lanes": int(counts.get(name, 0)) if name in table else "",
                "more LUTs than the best, median [%]": round(100 * float(np.median(excess)), 1),
                "at most [%]": round(100 * float(excess.max()), 1),
                "orders of formats": ordered,
                "flipped [%]": round(100 * flipped / ordered, 1) if ordered else 0.0,
            }
        )
    return pd.DataFrame(found)


def flips(best: pd.Series, other: pd.Series) -> tuple[int, int]:
    """Return how many pairs of weights, with the same activation, are the other way round; and how many pairs differ at all."""
    flipped = ordered = 0
    for _, one in best.groupby(level="activation"):
        for x, y in combinations(one.index, 2):
            true, changed = best[x] - best[y], other[x] - other[y]
            ordered += bool(true)
            flipped += bool(true * changed < 0)
    return flipped, ordered


@dataclass(frozen=True, kw_only=True)
class Requantized:
    """What one multiply-accumulate costs with its share of the accumulator and of the requantizer behind it."""

    lut: float
    #: LUTs of the requantizer, shared out over the products of one sum
    share: float
    #: the same where each unit of ``LANES`` has one of its own
    own: float
    origin: str


def same_size(model: MacModel, price: RequantizerPrice, widths: tuple[int, ...] = (4, 6, 8)) -> pd.DataFrame:
    """Return minifloats against integers of the same width, both operands of the same format, for several dot lengths."""
    found = []
    for bits in widths:
        names = [f"int{bits}", *(f"e{e}m{bits - 1 - e}" for e in range(1, bits))]
        for length in LENGTHS:
            units = {name: _requantized(model, price, name, length) for name in names}
            whole = units[names[0]]
            for name, unit in units.items():
                found.append(
                    {
                        "format": name,
                        "bits": bits,
                        "dot_length": length,
                        "lut_per_mac [LUT]": round(unit.lut, 2),
                        "requantizer_share [LUT]": round(unit.share, 2),
                        "over_integer [%]": _over(unit.lut, whole.lut),
                        "over_integer_requantized [%]": _over(unit.lut + unit.share, whole.lut + whole.share),
                        "over_integer_own_requantizer [%]": _over(unit.lut + unit.own, whole.lut + whole.own),
                        "origin": unit.origin,
                    }
                )
    return pd.DataFrame(found)


def _over(one: float, other: float) -> float:
    return round(100 * (one / other - 1), 1)


def _requantized(model: MacModel, price: RequantizerPrice, name: str, length: int) -> Requantized:
    """Cost of a lane of a unit, and of a requantizer to the format itself shared out over the products of one sum."""
    fmt = registry.scalar(name)
    unit = model.price(fmt, fmt, lanes=LANES, dot_length=length, dsp=False)
    lane = _requantizer(price, name, bound_bits(fmt, fmt, length))
    origin = f"{unit.origin}; requantizer {lane.origin}, {lane.recipe}"
    return Requantized(lut=unit.lut / LANES, share=lane.lut / length, own=lane.lut / LANES, origin=origin)


def _requantizer(price: RequantizerPrice, name: str, accumulator_bits: int) -> UnitCost:
    """Return the cheapest requantizer of LUTs alone; kinds that were synthesised come before formulas."""
    found = []
    for kind in KINDS:
        try:
            found.append(price(accumulator_bits, registry.scalar(name), kind=kind, dsp=False))
        except NotPricedError:
            continue
    if not found:
        raise NotPricedError(f"output format must be one that a requantizer is priced for, not {name}")
    return min(found, key=lambda unit: (unit.origin == "formula", unit.lut))


def weights_alone(lines: pd.DataFrame) -> pd.DataFrame:
    """Return weights of minifloats and powers of two against integers of the same width, with the same activations."""
    integer = lines[lines["weight"].str.fullmatch(r"int\d+")]
    keys = ["activation", "weight_bits [bit]"]
    both = lines.merge(integer[[*keys, "lut_per_mac [LUT]"]], on=keys, suffixes=("", " of the integer"))
    both = both[~both["weight"].str.fullmatch(r"int\d+") & (both["weight_group"] != "integer")]
    both["over"] = both["lut_per_mac [LUT]"] / both["lut_per_mac [LUT] of the integer"] - 1
    found = []
    for (bits, weight), some in both.groupby(["weight_bits [bit]", "weight"]):
        found.append(
            {
                "weight": weight,
                "bits": bits,
                "activations": len(some),
                "cheaper with": int((some["over"] < 0).sum()),
                "least [%]": round(100 * float(some["over"].min()), 1),
                "median [%]": round(100 * float(some["over"].median()), 1),
                "most [%]": round(100 * float(some["over"].max()), 1),
            }
        )
    columns = ["weight", "bits", "activations", "cheaper with", "least [%]", "median [%]", "most [%]"]
    return pd.DataFrame(found, columns=columns).sort_values(["bits", "median [%]"], ignore_index=True)


def slices(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each pair that has units with DSP slices: the LUTs that one takes the place of, with many lanes."""
    lanes = rows["lanes"].max()
    many = rows[rows["lanes"] == lanes]
    fabric = many[many["dsp_allowed"] == 0].groupby(PAIR)["lut"].min().rename("without")
    used = many[(many["dsp_allowed"] == 1) & (many["dsp"] > 0)].sort_values("lut").drop_duplicates(PAIR)
    found = used.merge(fabric.reset_index(), on=PAIR)
    found["saved"] = (found["without"] - found["lut"]) / found["dsp"]
    return found[[*PAIR, "recipe", "lut", "dsp", "without", "saved"]].sort_values("saved", ascending=False, ignore_index=True)
