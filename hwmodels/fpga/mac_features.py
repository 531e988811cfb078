"""How much of what a multiply-accumulate unit is made of, counted from its two formats and its recipe, without building it.

A *bill* lists the parts of a unit: logic that reads codes, the array of a multiplier, rows of adders, stages of shifters,
negations, the adders of the tree and of the accumulator, all in bits, which is about in LUTs: a LUT of a 7-series fabric makes any
function of six inputs, one bit of an adder with some logic before it, or two stages of a shifter. What a bit of each costs in
truth is fitted to what was synthesised (``mac_fit``). The recipes are those of ``hwmodels.fpga.rtl``.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.format import Format
from hwmodels.fpga.lut_count import INPUTS, lookup_luts
from hwmodels.fpga.rtl.operand import Reading, read


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a recipe makes of a pair, as far as its parts are concerned."""

    mode: Literal["fixed", "magnitude", "floating", "table"]
    multiply: Literal["star", "rows", "booth"] = "star"
    #: where a product of magnitudes is negated
    negation: Literal["late", "early", "complement"] = "late"
    summing: Literal["tree", "chain"] = "tree"


STRUCTURES = {
    "fixed-merged": Structure(mode="fixed", summing="chain"),
    "fixed-star": Structure(mode="fixed"),
    "fixed-rows": Structure(mode="fixed", multiply="rows"),
    "fixed-booth": Structure(mode="fixed", multiply="booth"),
    "magnitude-star": Structure(mode="magnitude", summing="chain"),
    "shift-rows": Structure(mode="floating", multiply="rows"),
    "shift-tree": Structure(mode="floating"),
    "shift-signed": Structure(mode="floating", negation="early"),
    "shift-fill": Structure(mode="floating", negation="complement"),
    "table": Structure(mode="table"),
}


class Parts(NamedTuple):
    """Parts of one lane, in bits."""

    #: LUTs that read the codes
    decode: float = 0.0
    #: partial products that the synthesiser multiplies as it likes
    array: float = 0.0
    #: those of them beyond two rows: what is added up in several LUTs one behind the other
    deep: float = 0.0
    #: bits that are only let through or not: the product with an operand of one bit
    gate: float = 0.0
    #: adders of a multiplier by rows
    rows: float = 0.0
    #: shifter, two stages to a LUT
    shift: float = 0.0
    #: bits that are negated before they are shifted
    negate: float = 0.0
    #: bits that are handed to the sum of even or to that of odd powers of the root, counted for both
    mask: float = 0.0


class Range(NamedTuple):
    """What a number lies between."""

    low: int
    high: int

    @property
    def width(self) -> int:
        """Bits that hold it: two's complement if it may be negative."""
        if self.low < 0:
            return max(self.high.bit_length(), (~self.low).bit_length()) + 1
        return max(self.high.bit_length(), 1)

    def times(self, other: "Range") -> "Range":
        """Range of a product; 0 lies within."""
        corners = [x * y for x in self for y in other]
        return Range(min(0, *corners), max(0, *corners))

    def plus(self, other: "Range", ones: int) -> "Range":
        """Range of a sum that takes in ``ones`` carries."""
        return Range(self.low + other.low, self.high + other.high + ones)


class Operand(NamedTuple):
    """What a multiplier takes of one side."""

    range: Range
    decode: float
    #: whether there is a sign beside it
    sign: bool = False
    shift_bits: int = 0
    #: whether every code has the same significand
    constant: bool = False


class Lane(NamedTuple):
    """A lane: its parts, what its product lies between, and how many ones it lacks."""

    parts: Parts
    product: Range
    ones: int


#: order of the figures of a bill: parts that come once for each lane, then those of the sums
PARTS = (*Parts._fields, "lanes", "tree", "accumulator")


def bill(weight: Format, activation: Format, recipe: str, lanes: int, accumulator_bits: int) -> NDArray[np.float64]:
    """Return the parts of a unit, float64 in the order of ``PARTS``.

    Raises ``ValueError`` for formats that no generated unit can read.
    """
    lane = lane_of(weight, activation, recipe)
    sums = 2 if read(weight).has_root or read(activation).has_root else 1
    tree = adder_bits(lane, lanes, STRUCTURES[recipe].summing)
    return np.array([*(lanes * part for part in lane.parts), lanes, sums * tree, sums * accumulator_bits], np.float64)


@lru_cache(maxsize=4096)
def lane_of(weight: Format, activation: Format, recipe: str) -> Lane:
    """Return one lane of a unit."""
    w, a, structure = read(weight), read(activation), STRUCTURES[recipe]
    if structure.mode == "table":
        return Lane(Parts(decode=_product_table(w, a, magnitude=False)), _range(w).times(_range(a)), 0)
    x, y = (_operand(side, structure.mode) for side in (w, a))
    product, ones = _product(w, a, x, y, structure)
    mask = 2.0 * product.width if w.has_root or a.has_root else 0.0
    if structure.multiply == "star" and w.bits + a.bits <= INPUTS:
        # each bit of the product is a LUT, whatever is written
        looked_up = Parts(decode=_product_table(w, a, magnitude=structure.mode != "fixed"), mask=mask)
        return Lane(looked_up, product, ones)
    return Lane(_parts(x, y, structure, product)._replace(mask=mask), product, ones)


def _range(reading: Reading) -> Range:
    return Range(*reading.range)


def _product(w: Reading, a: Reading, x: Operand, y: Operand, structure: Structure) -> tuple[Range, int]:
    """Return what is handed to the adders: its range, and how many ones it lacks."""
    product = _range(w).times(_range(a))
    if w.has_root and a.has_root:
        product = Range(2 * product.low, 2 * product.high)
    if not (x.sign or y.sign):
        return product, int(structure.multiply == "booth")
    ones = int(structure.negation != "early")
    largest = max(-product.low, product.high)
    return Range(-largest - ones, largest), ones


def _parts(x: Operand, y: Operand, structure: Structure, product: Range) -> Parts:
    narrow, wide = sorted((x, y), key=lambda side: side.range.width)
    n, m = narrow.range.width, wide.range.width
    array = gate = rows = 0.0
    if n == 1 and narrow.range.low >= 0:
        gate = 0.0 if narrow.constant else float(m)
    elif structure.multiply == "star":
        array = float(n * m)
    elif structure.multiply == "rows":
        rows = float((n - 1) * (m + 1))
    else:  # a row for two bits, three bits wider than the operand
        rows = float((n + (narrow.range.low >= 0) + 1) // 2 * (m + 3))
    width = x.range.times(y.range).width
    early = (x.sign or y.sign) and structure.negation != "late"
    exponents = max(x.shift_bits, y.shift_bits) if x.shift_bits and y.shift_bits else 0
    return Parts(
        decode=x.decode + y.decode,
        array=array,
        deep=float((n - 2) * m) if array else 0.0,
        gate=gate,
        rows=rows,
        shift=exponents + _shifter(width, max(x.shift_bits, y.shift_bits) + bool(exponents), product.width),
        negate=float(width + 1) if early else 0.0,
    )


def _shifter(width: int, stages: int, most: int) -> float:
    """LUTs of a shifter, two stages to one: every stage adds as many places as it moves by."""
    total = 0
    for stage in range(stages):
        width = min(width + 2**stage, most)
        total += width
    return total / 2


def _product_table(w: Reading, a: Reading, *, magnitude: bool) -> float:
    """LUTs of the product, or of its magnitude, out of one table over both codes."""
    product = _range(w).times(_range(a))
    width = max(-product.low, product.high).bit_length() if magnitude else product.width
    sign = 1.0 if magnitude and (w.signed or a.signed) else 0.0
    entries = [None if x is None or y is None else x * y for x in w.integer for y in a.integer]
    table = tuple(None if entry is None else abs(entry) if magnitude else entry % 2**width for entry in entries)
    return sign + lookup_luts(table, width)


def _operand(reading: Reading, mode: str) -> Operand:
    """Return what a multiplier takes of a side, and the LUTs that make it of a code."""
    if mode == "fixed":
        return Operand(_range(reading), _fixed_decode(reading))
    sign = lookup_luts(reading.sign, 1) if reading.signed else 0.0
    if mode == "magnitude":
        largest = max(-reading.range[0], reading.range[1])
        constant = {abs(entry) for entry in reading.integer if entry is not None} == {largest}
        return Operand(Range(0, largest), _magnitude_decode(reading) + sign, reading.signed, constant=constant)
    used = {entry for entry in reading.significand if entry is not None}
    decode = sign + _lookups(reading)
    return Operand(Range(0, max(used)), decode, reading.signed, reading.shift_bits, len(used) == 1)


def _lookups(reading: Reading) -> float:
    """LUTs that read significand and shift from a code."""
    return lookup_luts(reading.significand, reading.significand_bits) + lookup_luts(reading.shift, reading.shift_bits)


def _fixed_decode(reading: Reading) -> float:
    """LUTs that make two's complement of a code."""
    if reading.plain:
        return 0.0
    width = _range(reading).width
    if reading.bits <= INPUTS:
        return lookup_luts(tuple(None if entry is None else entry % 2**width for entry in reading.integer), width)
    return _magnitude_decode(reading) + (width if reading.signed else 0)


def _magnitude_decode(reading: Reading) -> float:
    """LUTs that make the magnitude of a code."""
    if reading.bits <= INPUTS + reading.signed:
        return lookup_luts(tuple(None if entry is None else abs(entry) for entry in reading.integer), reading.magnitude_bits)
    return _lookups(reading) + _shifter(reading.significand_bits, reading.shift_bits, reading.magnitude_bits)


def adder_bits(lane: Lane, lanes: int, summing: str) -> int:
    """Bits of all adders behind the lanes but the accumulator's."""
    low, high = lane.product
    if summing == "chain":
        return sum(Range(k * low, k * high + (k - 1) * lane.ones).width for k in range(2, lanes + 1))
    # a level of a tree: as many equal sums, and one at its end that may be another
    count, each, last, width = lanes, lane.product, None, 0
    while count + (last is not None) > 1:
        pair = each.plus(each, lane.ones)
        width += count // 2 * pair.width
        if count % 2:
            if last is not None:
                last = each.plus(last, lane.ones)
                width += last.width
            else:
                last = each
        count, each = count // 2, pair
    return width
