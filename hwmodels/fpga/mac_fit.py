"""Fits what a bit of every part of a unit costs to the table of synthesised units, and tells how far the fit is off.

A unit's LUTs are taken to be the bill of its parts (``mac_features``) times a LUT count for each part, none of them negative. The
counts are fitted for each recipe by itself, to the least relative error; the error enters by its magnitude, not its square
(iteratively reweighted least squares), so that odd pairs do not bend the rest, and few rows do not leave a count far from 1. What
a pair costs is the least over its recipes, as in the table. A least of uncertain figures is too small: one factor makes up for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from formats import registry
from formats.format import Format
from hwmodels.cost import NotPricedError
from hwmodels.fpga.candidates import dsp_names, fabric_names
from hwmodels.fpga.mac_features import PARTS, STRUCTURES, Parts, bill
from hwmodels.fpga.rtl.operand import read

if TYPE_CHECKING:
    import pandas as pd

Counts = Mapping[str, NDArray[np.float64]]
#: fewest rows of a recipe from which it is fitted
FEWEST = 5
#: how much a count of 1 LUT for each part weighs, in rows; what a unit in practice has none of counts 0
PRIOR_WEIGHT = 0.1
PRIOR = np.array([name not in ("deep", "mask", "lanes") for name in PARTS], np.float64)
#: adders have a CARRY4 for four bits
CARRY_PRIOR = np.array([0.25 * (name in ("rows", "tree", "accumulator")) for name in PARTS])
#: relative errors below this weigh as if they were this large
SMALLEST_ERROR = 0.02
ROUNDS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Rows of a table, with their bills; every field has one entry for each row."""

    rows: "pd.DataFrame"
    #: float64 of shape (rows, parts)
    bills: NDArray[np.float64]

    @cached_property
    def by_recipe(self) -> Mapping[str, NDArray[np.int64]]:
        """Rows of each recipe."""
        names = self.rows["recipe"].to_numpy()
        return {recipe: np.flatnonzero(names == recipe) for recipe in STRUCTURES}

    def figures(self, name: str) -> NDArray[np.float64]:
        """Return a column as float64."""
        return self.rows[name].to_numpy(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Counts by recipe and part, of units without DSP slices or of units with one in each lane."""

    lut: Counts
    carry4: Counts
    arrival_ps: Counts
    #: what the least over the recipes is multiplied by
    factor: float

    def least(
        self, weight: Format, activation: Format, lanes: int, accumulator_bits: int, names: tuple[str, ...]
    ) -> tuple[str, float]:
        """Return the recipe of least LUTs among ``names``, and the LUTs."""
        found = {
            name: float(bill(weight, activation, name, lanes, accumulator_bits) @ self.lut[name])
            for name in names
            if name in self.lut
        }
        if not found:
            pair = f"{weight.name} x {activation.name}"
            raise NotPricedError(f"table of units must hold {FEWEST} or more of a recipe for {pair}, not fewer")
        recipe = min(found, key=found.__getitem__)
        return recipe, self.factor * found[recipe]


def samples(rows: "pd.DataFrame", *, dsp: bool) -> Samples:
    """Return the rows without DSP slices allowed, or with ``dsp`` those that have some."""
    kept = rows[(rows["dsp_allowed"] == 1) & (rows["dsp"] > 0)] if dsp else rows[rows["dsp_allowed"] == 0]
    columns = ("weight", "activation", "recipe", "lanes", "accumulator_bits")
    found = [
        bill(registry.scalar(w), registry.scalar(a), recipe, lanes, bits)
        for w, a, recipe, lanes, bits in zip(*(kept[column].tolist() for column in columns), strict=True)
    ]
    return Samples(rows=kept.reset_index(drop=True), bills=np.array(found, np.float64).reshape(len(kept), len(PARTS)))


def fit(given: Samples, kept: NDArray[np.bool_] | None = None) -> Fit:
    """Fit to the samples, or to those that are ``kept``."""
    every = np.ones(len(given.rows), np.bool_) if kept is None else kept
    chosen = {recipe: rows[every[rows]] for recipe, rows in given.by_recipe.items()}
    chosen = {recipe: rows for recipe, rows in chosen.items() if len(rows) >= FEWEST}
    lut, carry4, arrival = (given.figures(name) for name in ("lut", "carry4", "arrival_ps"))
    counts = {recipe: _counts(given.bills[rows], lut[rows], PRIOR) for recipe, rows in chosen.items()}
    estimates = np.full(len(lut), np.nan)
    for recipe, rows in chosen.items():
        estimates[rows] = given.bills[rows] @ counts[recipe]
    return Fit(
        lut=counts,
        carry4={recipe: _counts(given.bills[rows], carry4[rows], CARRY_PRIOR) for recipe, rows in chosen.items()},
        arrival_ps={recipe: _counts(_depths(given.bills[rows], recipe), arrival[rows], None) for recipe, rows in chosen.items()},
        factor=_factor(given, every, estimates),
    )


def _factor(given: Samples, kept: NDArray[np.bool_], estimates: NDArray[np.float64]) -> float:
    """Return the median ratio of what is least in truth to what is least by estimate, over units of the samples."""
    frame = given.rows.assign(estimate=estimates)[kept]
    least = frame.groupby(["weight", "activation", "lanes"])[["lut", "estimate"]].min()
    ratios = (least["lut"] / least["estimate"]).to_numpy(np.float64)
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) else 1.0


def _counts(bills: NDArray[np.float64], truth: NDArray[np.float64], prior: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return what each part counts: non-negative, of least absolute relative error."""
    from scipy.optimize import nnls

    width = bills.shape[1]
    scaled = bills / np.maximum(truth, 1.0)[:, None]
    target = np.minimum(truth, 1.0)
    pull = np.sqrt(PRIOR_WEIGHT) * np.eye(width) if prior is not None else np.zeros((0, width))
    wanted = np.sqrt(PRIOR_WEIGHT) * prior if prior is not None else np.zeros(0)
    weights = np.ones(len(truth))
    counts = np.zeros(width)
    for _ in range(ROUNDS):
        counts, _ = nnls(np.vstack((scaled * weights[:, None], pull)), np.concatenate((target * weights, wanted)))
        weights = 1 / np.sqrt(np.maximum(np.abs(scaled @ counts - target), SMALLEST_ERROR))
    return counts


def _depths(bills: NDArray[np.float64], recipe: str) -> NDArray[np.float64]:
    """Return what an arrival time grows with: a constant, adders one behind the other, and widths of accumulator and parts."""
    lanes = bills[:, PARTS.index("lanes")]
    parts = bills[:, : len(Parts._fields)] / lanes[:, None]
    adders = np.log2(lanes) if STRUCTURES[recipe].summing == "tree" else lanes
    return np.column_stack((np.ones(len(lanes)), adders, bills[:, -1], np.sqrt(parts)))


def carry4(found: Fit, recipe: str, parts: NDArray[np.float64]) -> float:
    """Return the carry cells of a unit by its bill."""
    return float(parts @ found.carry4[recipe])


def arrival_ps(found: Fit, recipe: str, parts: NDArray[np.float64]) -> float:
    """Return the arrival time of a unit by its bill, in ps."""
    return float((_depths(parts[None], recipe) @ found.arrival_ps[recipe])[0])


def candidates(weight: Format, activation: Format, *, dsp: bool) -> tuple[str, ...]:
    """Return the recipes for a pair by name."""
    choose = dsp_names if dsp else fabric_names
    return choose(read(weight), read(activation))


def leave_one_out(rows: "pd.DataFrame", by: Literal["pair", "format", "width"]) -> "pd.DataFrame":
    """Predict every pair of a table by a fit that knows nothing of it, or nothing of one of its formats (so up to twice).

    With ``width`` the pairs whose accumulators are wider than three quarters of all, by a fit that knows the others alone.

    The result has a row for each prediction: ``left_out``, ``weight``, ``activation``, ``lanes``, ``lut`` of the best recipe,
    ``predicted``, ``error`` (relative) and both ``recipe`` and ``predicted_recipe``.
    """
    import pandas as pd

    given = samples(rows, dsp=False)
    least = given.rows.loc[given.rows.groupby(["weight", "activation", "lanes"])["lut"].idxmin()]
    found = []
    for left_out, kept, judged in _splits(given, least, by):
        known = fit(given, kept)
        for w, a, lanes, bits, lut, recipe in _units(judged):
            weight, activation = registry.scalar(w), registry.scalar(a)
            name, predicted = known.least(weight, activation, lanes, bits, candidates(weight, activation, dsp=False))
            found.append((left_out, w, a, lanes, lut, predicted, predicted / lut - 1, recipe, name))
    names = ["left_out", "weight", "activation", "lanes", "lut", "predicted", "error", "recipe", "predicted_recipe"]
    return pd.DataFrame(found, columns=names)


def _units(judged: "pd.DataFrame") -> Iterator[tuple[str, str, int, int, int, str]]:
    columns = ("weight", "activation", "lanes", "accumulator_bits", "lut", "recipe")
    return zip(*(judged[column].tolist() for column in columns), strict=True)


def _splits(given: Samples, least: "pd.DataFrame", by: str) -> Iterator[tuple[str, NDArray[np.bool_], "pd.DataFrame"]]:
    """Yield what is left out, the samples that are kept, and the best units to judge by."""
    if by == "pair":
        for (w, a), judged in least.groupby(["weight", "activation"]):
            out = (given.rows["weight"] == w) & (given.rows["activation"] == a)
            yield f"{w} x {a}", ~out.to_numpy(np.bool_), judged
    elif by == "width":
        widest = float(least["accumulator_bits"].quantile(0.75))
        kept = (given.rows["accumulator_bits"] <= widest).to_numpy(np.bool_)
        yield f"wider than {widest:g} bits", kept, least[least["accumulator_bits"] > widest]
    else:
        for name in sorted({*least["weight"], *least["activation"]}):
            out, judged = ((frame["weight"] == name) | (frame["activation"] == name) for frame in (given.rows, least))
            yield name, ~out.to_numpy(np.bool_), least[judged]
