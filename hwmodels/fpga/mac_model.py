"""What a multiply-accumulate unit costs: looked up in the table of synthesised units, predicted where the table ends.

A pair in the table has units of two numbers of lanes. Every figure of a recipe lies on the line through its two, and the price is
that of the recipe with fewest LUTs at the lanes asked for. The arrival time is on a line in the logarithm of the lanes where a tree
adds them. The units of the table have accumulators for dot products of one length. For another length each bit more or less of an
accumulator is one LUT, one flip-flop and a quarter of a CARRY4, twice where even and odd powers of the square root of two are
summed apart; the arrival time is left as it is. All other pairs are predicted by a fit (``mac_fit``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from formats.arithmetic.width import bound_bits
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.cost import NotPricedError
from hwmodels.fpga import mac_fit
from hwmodels.fpga.ebops import LUT_PER_DSP
from hwmodels.fpga.mac_features import STRUCTURES, bill
from hwmodels.fpga.mac_fit import Fit
from hwmodels.fpga.rtl.operand import read as read_format
from hwmodels.fpga.synthesis.table import FEW_LANES, MANY_LANES
from hwmodels.fpga.unit_cost import UnitCost

if TYPE_CHECKING:
    from hwmodels.fpga.synthesis.table import Table

KEYS = ("weight", "activation", "dsp_allowed", "recipe")
FIGURES = ("lut", "carry4", "flip_flops", "dsp", "arrival_ps")
#: beyond this an exact accumulator is no sensible hardware, and no unit is generated
WIDEST_ACCUMULATOR = 512


class Line(NamedTuple):
    """A recipe of a pair at two numbers of lanes."""

    recipe: str
    accumulator_bits: int
    lanes: tuple[int, int]
    #: figures in the order of ``FIGURES`` with few and with many lanes
    few: tuple[float, ...]
    many: tuple[float, ...]

    def at(self, lanes: int) -> tuple[float, ...]:
        """Return the figures for any number of lanes."""
        depth = log2 if STRUCTURES[self.recipe].summing == "tree" else float
        shares = [_share(lanes, *self.lanes)] * (len(FIGURES) - 1) + [_share(*map(depth, (lanes, *self.lanes)))]
        return tuple(max(few + share * (many - few), 0.0) for few, many, share in zip(self.few, self.many, shares, strict=True))


def _share(x: float, low: float, high: float) -> float:
    return (x - low) / (high - low)


#: by weight, activation and whether DSP slices were allowed
Lines = dict[tuple[str, str, bool], tuple[Line, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class MacModel:
    """Prices by one table."""

    table: "Table"

    @cached_property
    def lines(self) -> Lines:
        """The table by pair."""
        rows = self.table.rows
        numbers = [rows[name].tolist() for name in ("lanes", "accumulator_bits", *FIGURES)]
        units: dict[tuple[str, str, bool, str], list[tuple[float, ...]]] = {}
        for w, a, dsp, recipe, *unit in zip(*(rows[name].tolist() for name in KEYS), *numbers, strict=True):
            units.setdefault((w, a, bool(dsp), recipe), []).append(tuple(unit))
        found: Lines = {}
        for (w, a, dsp, recipe), sizes in units.items():
            few, many = min(sizes), max(sizes)
            if few[0] == many[0] or (dsp and not few[2 + FIGURES.index("dsp")]):
                continue  # only tried with few lanes, since another recipe was smaller; or no use found for a slice
            line = Line(recipe, int(few[1]), (int(few[0]), int(many[0])), few[2:], many[2:])
            found[w, a, dsp] = (*found.get((w, a, dsp), ()), line)
        return found

    @cached_property
    def fabric(self) -> Fit:
        """Fit to the units without DSP slices."""
        return mac_fit.fit(mac_fit.samples(self.table.rows, dsp=False))

    @cached_property
    def slices(self) -> Fit:
        """Fit to the units with DSP slices."""
        return mac_fit.fit(mac_fit.samples(self.table.rows, dsp=True))

    def holds(self, weight: Format, activation: Format) -> bool:
        """Whether the pair is in the table."""
        return (weight.name, activation.name, False) in self.lines

    def price(self, weight: Format, activation: Format, *, lanes: int, dot_length: int, dsp: bool) -> UnitCost:
        """Return the cost of a unit, as ``unit_price`` does."""
        if lanes < 1 or dot_length < 1:
            raise InvalidValueError(f"lanes and dot length must be at least 1, not {lanes} and {dot_length}")
        bits, sums = _accumulators(weight, activation, dot_length)
        look = self.looked_up if self.holds(weight, activation) else self.predicted
        fabric = look(weight, activation, lanes, bits, sums, dsp=False)
        assert fabric is not None
        slices = look(weight, activation, lanes, bits, sums, dsp=True) if dsp else None
        return slices if slices is not None and slices.lut < fabric.lut else fabric

    def looked_up(self, weight: Format, activation: Format, lanes: int, bits: int, sums: int, *, dsp: bool) -> UnitCost | None:
        """Return the cost by the table of a unit with ``sums`` accumulators of ``bits``; None where it holds none with slices."""
        lines = self.lines.get((weight.name, activation.name, dsp), ())
        if not lines:
            return None
        return min((_unit(line, lanes, bits, sums) for line in lines), key=_weighed)

    def predicted(self, weight: Format, activation: Format, lanes: int, bits: int, sums: int, *, dsp: bool) -> UnitCost | None:
        """Return the cost by the fit; None where slices would find no use."""
        known = self.slices if dsp else self.fabric
        names = mac_fit.candidates(weight, activation, dsp=dsp)
        if dsp and not any(name in known.lut for name in names):
            return None
        recipe, lut = known.least(weight, activation, lanes, bits, names)
        parts = bill(weight, activation, recipe, lanes, bits)
        return UnitCost(
            lut=max(lut, 1.0),
            carry4=mac_fit.carry4(known, recipe, parts),
            flip_flops=float(sums * bits),
            dsp=float(lanes) if dsp else 0.0,
            arrival_ps=mac_fit.arrival_ps(known, recipe, parts),
            origin="predicted",
            recipe=recipe,
        )


def _unit(line: Line, lanes: int, bits: int, sums: int) -> UnitCost:
    more = sums * (bits - line.accumulator_bits)
    lut, carry4, flip_flops, dsp, arrival_ps = line.at(lanes)
    return UnitCost(
        lut=max(lut + more, 1.0),
        carry4=max(carry4 + more / 4, 0.0),
        flip_flops=max(flip_flops + more, 1.0),
        dsp=dsp,
        arrival_ps=arrival_ps,
        origin="synthesised" if FEW_LANES <= lanes <= MANY_LANES else "extrapolated",
        recipe=line.recipe,
    )


def _weighed(unit: UnitCost) -> float:
    """LUTs, a DSP slice for as many as it takes the place of in HGQ's measure."""
    return unit.lut + LUT_PER_DSP * unit.dsp


@lru_cache(maxsize=4096)
def _accumulators(weight: Format, activation: Format, dot_length: int) -> tuple[int, int]:
    """Return the width of an exact accumulator, and how many there are."""
    try:
        readings = read_format(weight), read_format(activation)
    except InvalidValueError as error:
        raise NotPricedError(str(error)) from None
    bits = bound_bits(activation, weight, dot_length)
    if bits > WIDEST_ACCUMULATOR:
        pair = f"{weight.name} x {activation.name}"
        raise NotPricedError(f"exact accumulator of {pair} must have at most {WIDEST_ACCUMULATOR} bits, not {bits}")
    return bits, 1 + any(reading.has_root for reading in readings)


def model(path: Path | None = None) -> MacModel:
    """Return the model of the table at ``path``, else of the shipped one with the user's own rows.

    A table is read as it is, whichever version of the tool made it: ``MacModel.table.tool`` tells which. ``BitatlasError`` names
    the file where there is none.
    """
    from hwmodels.fpga.synthesis import table as tables  # pandas takes its time

    if path is not None:
        return _of_table(tables.read(path))
    return _known(*((file, file.stat().st_mtime_ns if file.exists() else 0) for file in (tables.SHIPPED, tables.own_path())))


@lru_cache(maxsize=4)
def _of_table(table: "Table") -> MacModel:
    return MacModel(table=table)


@lru_cache(maxsize=4)
def _known(_shipped: tuple[Path, int], _own: tuple[Path, int]) -> MacModel:
    from hwmodels.fpga.synthesis.table import known

    return MacModel(table=known())


def unit_price(weight: Format, activation: Format, *, lanes: int, dot_length: int, dsp: bool) -> UnitCost:
    """Return the cost of a unit by the shipped table and the user's own rows, as ``UnitPrice`` has it.

    With ``dsp`` the unit of least LUT + 55 DSP among those that use DSP slices; where none does, or takes more LUTs than the one
    without, the one without. Raises ``NotPricedError`` for formats with NaN or Inf codes and for accumulators of more than 512
    bits.
    """
    return _priced(model(), weight, activation, lanes, dot_length, dsp)


@lru_cache(maxsize=1 << 15)
def _priced(found: MacModel, weight: Format, activation: Format, lanes: int, dot_length: int, dsp: bool) -> UnitCost:
    return found.price(weight, activation, lanes=lanes, dot_length=dot_length, dsp=dsp)


def errors(found: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile of the magnitudes of relative errors."""
    import numpy as np

    size = np.abs(np.asarray(found, np.float64))
    return float(np.median(size)), float(np.quantile(size, 0.95))
