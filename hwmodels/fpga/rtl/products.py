"""A lane: two decoded operands to their product."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from amaranth import Cat, Const, Module, Mux, Value

from hwmodels.fpga.rtl.boolean import lookup
from hwmodels.fpga.rtl.decode import Operand
from hwmodels.fpga.rtl.operand import Reading
from hwmodels.fpga.rtl.wires import extended, shape_of, trimmed, wired


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """``value``, negated where ``negate`` is set; it belongs to the sum of odd powers of the root where ``odd`` is set."""

    value: Value
    low: int
    high: int
    negate: Value | None = None
    odd: Value | None = None
    #: ones that ``value`` lacks
    carries: tuple[Value, ...] = ()


class Negation(StrEnum):
    """Where the sign of a product of magnitudes is applied."""

    #: in the adders behind the lane
    LATE = "late"
    #: before the shift, as a number in two's complement
    EARLY = "early"
    #: before the shift, as the complement; the one that is missing is a carry of the adders behind the lane
    COMPLEMENT = "complement"


#: from two numbers, and the range of their product, to the product and the ones that it lacks
Multiply = Callable[[Module, Value, Value, int, int], tuple[Value, tuple[Value, ...]]]


def star(m: Module, x: Value, y: Value, low: int, high: int) -> tuple[Value, tuple[Value, ...]]:
    """Multiply by the synthesiser's own operator: it alone may become a DSP slice."""
    del m
    return trimmed(x * y, low, high), ()


def rows(m: Module, x: Value, y: Value, low: int, high: int) -> tuple[Value, tuple[Value, ...]]:
    """Multiply by one row for each bit of the narrower operand, added one after the other on carry chains."""
    if len(y) > len(x):
        x, y = y, x
    negative_top = y.shape().signed
    total: Value = _row(x, y[0], subtract=negative_top and len(y) == 1)
    done: list[Value] = []
    for place in range(1, len(y)):
        done.append(total[0])
        rest = total[1:].as_signed() if total.shape().signed else total[1:]
        row = Mux(y[place], x, 0)
        total = rest - row if negative_top and place == len(y) - 1 else rest + row
        total = wired(m, total, keep=True)
    result = Cat(*done, total)
    return trimmed(result.as_signed() if total.shape().signed else result, low, high), ()


def booth(m: Module, x: Value, y: Value, low: int, high: int) -> tuple[Value, tuple[Value, ...]]:
    """Multiply by one row for two bits of the narrower operand, recoded to -2 … 2 (Booth 1951, radix 4: MacSorley 1961).

    A row's bit depends on two bits of one operand and three of the other: with the bit it is added to, the inputs of one LUT.
    """
    if len(y) > len(x):
        x, y = y, x
    digits = (len(y) + (not y.shape().signed) + 1) // 2
    spread = Cat(Const(0, 1), extended(y, 2 * digits))
    wide = extended(x, len(x) + 2)  # room for twice x and for its negative
    if digits == 1:
        wide = extended(x, max(len(x) + 2, shape_of(low, high).width))
    wide = wired(m, wide)
    first, carry = _booth_row(m, wide, spread[:3])
    total: Value = wired(m, first)
    done: list[Value] = []
    for digit in range(1, digits):
        done += [total[0], total[1]]
        rest = total[2:].as_signed()
        row, ones = _booth_row(m, wide, spread[2 * digit : 2 * digit + 3])
        width = len(wide) + 1
        left, right = (Cat(bit, extended(value, width)) for bit, value in ((Const(1, 1), rest), (ones, row)))
        total = wired(m, (left + right)[1 : width + 1].as_signed(), keep=True)
    # without its carry the product may be one less than its least
    return trimmed(Cat(*done, total).as_signed(), min(low, 0) - 1, high), (carry,)


def _booth_row(m: Module, x: Value, bits: Value) -> tuple[Value, Value]:
    """Return a row, complemented where its digit is negative, and whether it is."""
    double = wired(m, (bits[0] & bits[1] & ~bits[2]) | (~bits[0] & ~bits[1] & bits[2]))
    single = wired(m, bits[0] ^ bits[1])
    negative = wired(m, bits[2] & ~(bits[0] & bits[1]))
    shifted = Cat(Const(0, 1), x)[: len(x)]
    row = (x & single.replicate(len(x))) | (shifted & double.replicate(len(x)))
    return (row ^ negative.replicate(len(x))).as_signed(), negative


def _row(x: Value, bit: Value, *, subtract: bool) -> Value:
    chosen = Mux(bit, x, 0)
    return -chosen if subtract else chosen


def multiplied(m: Module, w: Operand, a: Operand, multiply: Multiply, negation: Negation) -> Product:
    """Multiply the significands, shift by both shifts, and apply the sign or hand it on."""
    corners = [x * y for x in (w.low, w.high) for y in (a.low, a.high)]
    low, high = min(0, *corners), max(0, *corners)
    value, carries = multiply(m, w.significand, a.significand, low, high)
    value = wired(m, value)
    negate = _both(m, w.sign, a.sign)
    fill: Value = Const(0, 1)
    if negate is not None and negation is not Negation.LATE:
        high = max(-low, high)
        low = -high - 1
        value = wired(m, _complemented(value, negate, shape_of(low, high).width))
        if negation is Negation.EARLY:
            value = wired(m, trimmed(value + negate, low, high))
        else:
            fill, carries = negate, (negate,)
        negate = None
    value, largest = wired(m, _shifted(m, value, fill, w, a)), w.largest * a.largest
    if w.root is not None and a.root is not None:
        # root times root is two: one place more
        value, largest = _stage(m, value, fill, w.root & a.root, 1), 2 * largest
    low, high = -largest - len(carries) if low < 0 else 0, largest if high > 0 else 0
    odd = _both(m, w.root, a.root)
    return Product(value=trimmed(value, low, high), low=low, high=high, negate=negate, odd=odd, carries=carries)


def _both(m: Module, one: Value | None, other: Value | None) -> Value | None:
    if one is None or other is None:
        return other if one is None else one
    return wired(m, one ^ other)


def _complemented(value: Value, negate: Value, width: int) -> Value:
    return (extended(value, width) ^ negate.replicate(max(width, len(value)))).as_signed()


def _shifted(m: Module, value: Value, fill: Value, w: Operand, a: Operand) -> Value:
    shifts = [side.shift for side in (w, a) if side.shift is not None]
    if not shifts:
        return value
    total = wired(m, sum(shifts[1:], start=shifts[0]))
    for place in range(len(total)):
        value = _stage(m, value, fill, total[place], 2**place)
    moved = value[w.shift_offset + a.shift_offset :]
    return moved.as_signed() if value.shape().signed else moved


def _stage(m: Module, value: Value, fill: Value, shift: Value, places: int) -> Value:
    """Shift left by ``places`` where ``shift`` is set; copies of ``fill`` come in, ones for a complement."""
    moved = Cat(fill.replicate(places), value)
    chosen = Mux(shift, moved, extended(value, len(moved)))
    return wired(m, chosen.as_signed() if value.shape().signed else chosen)


def looked_up(m: Module, weight: Value, activation: Value, w: Reading, a: Reading) -> Product:
    """Return the product out of one table over both codes."""
    inputs = Cat(activation, weight)
    table = [None if x is None or y is None else x * y for x in w.integer for y in a.integer]
    found = [entry for entry in table if entry is not None]
    low, high = min(0, *found), max(0, *found)
    shape = shape_of(low, high)
    raw = Cat(*lookup(m, inputs, [None if entry is None else entry % 2**shape.width for entry in table], shape.width))
    return Product(value=raw.as_signed() if shape.signed else raw, low=low, high=high)
