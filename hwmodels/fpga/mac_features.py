"""How much of what a multiply-accumulate unit is made of, counted from its two formats and its recipe, without building it.

A *bill* lists the parts of a unit: logic that reads codes, the array of a multiplier, rows of adders, stages of shifters,
negations, the adders of the tree and of the accumulator, all in bits, which is about in LUTs: a LUT of a 7-series fabric makes any
function of six inputs, one bit of an adder with some logic before it, or two stages of a shifter. What a bit of each costs in
truth is fitted to what was synthesised (``mac_model``). The recipes are those of ``hwmodels.fpga.rtl``.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.format import Format
from hwmodels.fpga.rtl.operand import Reading, read

#: inputs of a LUT, and bits of a code up to which its value is looked up whole
LUT_INPUTS = 6
#: bits of both codes up to which a table over both is a choice
TABLE_BITS = 7


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a recipe makes of a pair, as far as its parts are concerned."""

    mode: Literal["fixed", "magnitude", "floating", "table"]
    multiply: Literal["star", "rows", "booth", "table"]
    #: where a product of magnitudes is negated
    negation: Literal["late", "early", "complement"] = "late"
    summing: Literal["tree", "chain"] = "tree"


STRUCTURES = {
    "fixed-merged": Structure(mode="fixed", multiply="star", summing="chain"),
    "fixed-star": Structure(mode="fixed", multiply="star"),
    "fixed-rows": Structure(mode="fixed", multiply="rows"),
    "fixed-booth": Structure(mode="fixed", multiply="booth"),
    "magnitude-star": Structure(mode="magnitude", multiply="star", summing="chain"),
    "shift-rows": Structure(mode="floating", multiply="rows"),
    "shift-tree": Structure(mode="floating", multiply="star"),
    "shift-signed": Structure(mode="floating", multiply="star", negation="early"),
    "shift-fill": Structure(mode="floating", multiply="star", negation="complement"),
    "table": Structure(mode="table", multiply="table"),
}


class Lane(NamedTuple):
    """Parts of one lane, in bits."""

    #: LUTs that read the codes
    decode: float
    #: partial products that the synthesiser multiplies as it likes
    array: float
    #: both operands' width, where there is such an array
    edge: float
    #: adders of a multiplier by rows
    rows: float
    #: shifter, two stages to a LUT
    shift: float
    #: bits that are negated before they are shifted
    negate: float


class Range(NamedTuple):
    """What a number lies between."""

    low: int
    high: int

    @property
    def width(self) -> int:
        """Bits that hold it."""
        return bits(self.low, self.high)

    def plus(self, other: "Range", ones: int) -> "Range":
        """Range of a sum that takes in ``ones`` carries."""
        return Range(self.low + other.low, self.high + other.high + ones)


class Operand(NamedTuple):
    """What a multiplier takes of one side."""

    low: int
    high: int
    decode: float
    signed: bool
    shift_bits: int = 0

    @property
    def width(self) -> int:
        """Bits at the multiplier."""
        return bits(self.low, self.high)


#: order of the figures of a bill: parts that come once for each lane, then those of the sums
PARTS = (*(f"lanes_{name}" for name in Lane._fields), "lanes", "tree", "accumulator")


def bits(low: int, high: int) -> int:
    """Return the width that holds all whole numbers from ``low`` to ``high``: two's complement if any is negative."""
    return max(high.bit_length(), (~low).bit_length()) + 1 if low < 0 else max(high.bit_length(), 1)


def bill(weight: Format, activation: Format, recipe: str, lanes: int, accumulator_bits: int) -> NDArray[np.float64] | None:
    """Return the parts of a unit, float64 in the order of ``PARTS``; None where the recipe is none for the pair.

    Raises ``ValueError`` for formats that no generated unit can read.
    """
    found = _lane(weight, activation, recipe)
    if found is None:
        return None
    lane, product, ones = found
    sums = 2 if read(weight).has_root or read(activation).has_root else 1
    tree = _adders(product, ones, lanes, STRUCTURES[recipe].summing)
    return np.array([*(lanes * part for part in lane), lanes, sums * tree, sums * accumulator_bits], np.float64)


@lru_cache(maxsize=4096)
def _lane(weight: Format, activation: Format, recipe: str) -> tuple[Lane, Range, int] | None:
    """Return a lane's parts, what its product lies between, and how many ones it lacks."""
    w, a = read(weight), read(activation)
    structure = STRUCTURES[recipe]
    rooted = w.has_root or a.has_root
    if structure.mode == "table":
        return None if rooted or w.bits + a.bits > TABLE_BITS else _tabled(w, a)
    if structure.multiply == "booth" and rooted:
        return None
    if structure.mode == "floating" and not (w.shift_bits or a.shift_bits):
        return None
    return _multiplied(w, a, structure, rooted)


def _tabled(w: Reading, a: Reading) -> tuple[Lane, Range, int]:
    table = [None if x is None or y is None else x * y for x in w.integer for y in a.integer]
    product = _range(w, a)
    return Lane(_lookup(tuple(table), product.width), 0.0, 0.0, 0.0, 0.0, 0.0), product, 0


def _range(w: Reading, a: Reading) -> Range:
    corners = [x * y for x in w.range for y in a.range]
    return Range(min(0, *corners), max(0, *corners))


def _multiplied(w: Reading, a: Reading, structure: Structure, rooted: bool) -> tuple[Lane, Range, int]:
    x, y = (_operand(side, structure.mode) for side in (w, a))
    wide, narrow = max(x.width, y.width), min(x.width, y.width)
    array = rows = 0.0
    ones = 0
    if structure.multiply == "star":
        array = float(wide * narrow) if narrow > 1 else 0.0
    elif structure.multiply == "rows":
        rows = float((narrow - 1) * (wide + 1))
    else:
        rows, ones = _booth(wide, narrow, signed=min(x, y, key=lambda side: side.width).low < 0), 1
    negated = structure.mode != "fixed" and (x.signed or y.signed)
    product = _range(w, a)
    if rooted:
        product = Range(2 * product.low, 2 * product.high) if w.has_root and a.has_root else product
    significand = Range(x.low * y.high, x.high * y.high).width
    negate = float(significand + 1) if negated and structure.negation != "late" else 0.0
    shift = _shifter(significand, x.shift_bits, y.shift_bits, product.width) + (x.shift_bits > 0) * (y.shift_bits > 0) * max(
        x.shift_bits, y.shift_bits
    )
    if negated:
        largest = max(-product.low, product.high)
        ones = 0 if structure.negation == "early" else 1
        product = Range(-largest - ones, largest)
    edge = float(wide + narrow) if array else 0.0
    return Lane(x.decode + y.decode + rooted, array, edge, rows, shift, negate), product, ones


def _booth(wide: int, narrow: int, *, signed: bool) -> float:
    """Adder bits of a multiplier with a row for two bits of the narrower operand: three more than the wider one, each."""
    return float((narrow + (not signed) + 1) // 2 * (wide + 3))


def _shifter(width: int, w_bits: int, a_bits: int, most: int) -> float:
    """Bits of a shifter's stages, half counted: every stage adds as many places as it moves by."""
    stages = max(w_bits, a_bits) + (w_bits > 0 and a_bits > 0)
    total = 0
    for stage in range(stages):
        width = min(width + 2**stage, most)
        total += width
    return total / 2


def _operand(reading: Reading, mode: str) -> Operand:
    """Return what a multiplier takes of a side, and the LUTs that make it of a code."""
    low, high = reading.range
    largest = max(-low, high)
    sign = _lookup(reading.sign, 1) if reading.signed else 0.0
    if mode == "fixed":
        return Operand(low, high, _fixed_decode(reading), reading.signed)
    if mode == "magnitude":
        return Operand(0, largest, _magnitude_decode(reading) + sign, reading.signed)
    decode = _lookup(reading.significand, reading.significand_bits) + _lookup(reading.shift, reading.shift_bits) + sign
    return Operand(0, 2**reading.significand_bits - 1, decode, reading.signed, reading.shift_bits)


def _fixed_decode(reading: Reading) -> float:
    low, high = reading.range
    if reading.plain:
        return 0.0
    width = bits(low, high)
    if reading.bits <= LUT_INPUTS:
        return _lookup(tuple(None if entry is None else entry % 2**width for entry in reading.integer), width)
    return _magnitude_decode(reading) + (width if reading.signed else 0)


def _magnitude_decode(reading: Reading) -> float:
    if reading.bits <= LUT_INPUTS + reading.signed:
        table = tuple(None if entry is None else abs(entry) for entry in reading.integer)
        return _lookup(table, reading.magnitude_bits)
    read_out = _lookup(reading.significand, reading.significand_bits) + _lookup(reading.shift, reading.shift_bits)
    return read_out + _shifter(reading.significand_bits, reading.shift_bits, 0, reading.magnitude_bits)


@lru_cache(maxsize=1024)
def _lookup(table: tuple[int | None, ...], outputs: int) -> float:
    """LUTs of a table by code, one output at a time: none where a bit of the code serves, else by the inputs that matter."""
    known = np.array([entry is not None for entry in table])
    values = [0 if entry is None else entry for entry in table]
    total = 0.0
    for place in range(outputs):
        found = np.array([value >> place & 1 for value in values], dtype=np.int8)
        total += _function(found, known)
    return total


def _function(values: NDArray[np.int8], known: NDArray[np.bool_]) -> float:
    """LUTs of a function of one bit: a tree of multiplexers over LUTs where more inputs matter than one LUT has."""
    inputs = int(math.log2(len(values)))
    needed = 0
    for _ in range(inputs):
        # the lowest input is the last axis; if it does not matter it is taken out, else it is turned to the front
        pairs, both = values.reshape(-1, 2), known.reshape(-1, 2)
        if (both.all(axis=1) & (pairs[:, 0] != pairs[:, 1])).any():
            needed += 1
            values, known = pairs.T.reshape(-1), both.T.reshape(-1)
        else:
            values, known = np.where(both[:, 0], pairs[:, 0], pairs[:, 1]), both.any(axis=1)
    if needed < 2:  # constant or a wire; an inverter is taken in by what reads it
        return 0.0
    return 1.0 if needed <= LUT_INPUTS else (4.0 ** ((needed - LUT_INPUTS + 1) / 2 + 0.5) - 1) / 3


def _adders(product: Range, ones: int, lanes: int, summing: str) -> int:
    """Bits of all adders but the accumulator's."""
    if summing == "chain":
        total, width = product, 0
        for _ in range(lanes - 1):
            total = total.plus(product, ones)
            width += total.width
        return width
    level, width = [product] * lanes, 0
    while len(level) > 1:
        pairs = [level[i].plus(level[i + 1], ones) for i in range(0, len(level) - 1, 2)]
        width += sum(pair.width for pair in pairs)
        level = pairs + level[len(pairs) * 2 :]
    return width
