"""The lanes' products and the accumulator to the next sum, on carry chains.

A product that is to be negated enters as its complement, and the 1 that is missing then enters as the carry of an adder: on an
FPGA both are free, since the LUT in front of a carry chain has inputs to spare and the chain has a carry input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amaranth import Cat, Const, Module, Mux, Value

from hwmodels.fpga.rtl.products import Product
from hwmodels.fpga.rtl.wires import extended, shape_of, wired


@dataclass(frozen=True, kw_only=True, eq=False)
class Partial:
    """A sum that lacks as many ones as there are ``carries`` set; ``low`` and ``high`` bound what it is without them."""

    value: Value
    low: int
    high: int
    carries: tuple[Value, ...] = ()


def terms(m: Module, products: Sequence[Product], *, odd: bool) -> list[Partial]:
    """Return what the products add to the sum of even, or of odd, powers of the root."""
    return [_term(m, product, odd=odd) for product in products]


def _term(m: Module, product: Product, *, odd: bool) -> Partial:
    value, negate, carries = product.value, product.negate, product.carries
    if product.odd is not None:
        chosen = product.odd if odd else ~product.odd
        value = wired(m, _masked(value, chosen))
        negate = None if negate is None else wired(m, negate & chosen)
        carries = tuple(wired(m, carry & chosen) for carry in carries)
    if negate is None:
        return Partial(value=value, low=product.low, high=product.high, carries=carries)
    largest = max(-product.low, product.high)
    low, high = -largest - 1, largest
    wide = extended(value, shape_of(low, high).width)
    inverted = wired(m, (wide ^ negate.replicate(len(wide))).as_signed())
    return Partial(value=inverted, low=low, high=high, carries=(negate,))


def _masked(value: Value, chosen: Value) -> Value:
    masked = value.as_unsigned() & chosen.replicate(len(value))
    return masked.as_signed() if value.shape().signed else masked


def merged(m: Module, parts: Sequence[Partial], accumulator: Partial, bits: int) -> Value:
    """Add everything in one expression and leave the order to the synthesiser."""
    del m
    total: Value = accumulator.value
    for part in parts:
        total = sum(part.carries, start=total + part.value)
    return extended(total, bits)[:bits].as_signed()


def chain(m: Module, parts: Sequence[Partial], accumulator: Partial, bits: int) -> Value:
    """Add one lane after the other, the accumulator last: fewest LUTs, since only the second operand of an adder is masked."""
    total = parts[0]
    for part in parts[1:]:
        total = added(m, total, part)
    return _finished(m, total, accumulator, bits)


def tree(m: Module, parts: Sequence[Partial], accumulator: Partial, bits: int) -> Value:
    """Add neighbours level by level, the accumulator last: shortest path."""
    level = list(parts)
    while len(level) > 1:
        pairs = [added(m, *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return _finished(m, level[0], accumulator, bits)


def added(m: Module, one: Partial, other: Partial) -> Partial:
    """Add two partial sums; the adder takes in one of their carries."""
    low, high = one.low + other.low, one.high + other.high
    carries = (*one.carries, *other.carries)
    if carries:
        high += 1
    shape = shape_of(low, high)
    value = wired(m, _sum(one.value, other.value, carries[-1] if carries else None, shape.width, signed=shape.signed), keep=True)
    return Partial(value=value, low=low, high=high, carries=carries[:-1])


def _sum(one: Value, other: Value, carry: Value | None, width: int, *, signed: bool) -> Value:
    """Return one + other + carry in ``width`` bits, on a single carry chain."""
    if carry is None:
        total = (one + other)[:width] if max(len(one), len(other)) >= width else extended(one + other, width)[:width]
    else:
        # a 1 and the carry, one place below the operands, carry into them if the carry is set
        left, right = (Cat(Const(1, 1) if x is one else carry, extended(x, width)[:width]) for x in (one, other))
        total = (left + right)[1 : width + 1]
    return total.as_signed() if signed else total


def _finished(m: Module, total: Partial, accumulator: Partial, bits: int) -> Value:
    """Add the accumulator, modulo 2**bits."""
    while len(total.carries) > 1:
        first, *rest = total.carries
        total = added(m, replace(total, carries=()), Partial(value=first, low=0, high=1, carries=tuple(rest)))
    carry = total.carries[0] if total.carries else None
    return _sum(total.value, accumulator.value, carry, bits, signed=True)


def saturating(m: Module, parts: Sequence[Partial], accumulator: Partial, bits: int) -> Value:
    """Add one lane after the other to the accumulator, each sum clipped: the order of the emulator."""
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    total: Value = accumulator.value
    for part in parts:
        shape = shape_of(lowest + part.low, highest + part.high + len(part.carries))
        carry = part.carries[0] if part.carries else None
        wide = wired(m, _sum(total, part.value, carry, shape.width, signed=True), keep=True)
        total = _clipped(m, wide, bits)
    return total


def _clipped(m: Module, wide: Value, bits: int) -> Value:
    """Clip to ``bits`` bits: in range where all bits from the sign of the narrow number up are equal."""
    above = wide[bits - 1 :]
    overflow = above.any() & ~above.all()
    limit = Cat((~wide[-1]).replicate(bits - 1), wide[-1])
    return wired(m, Mux(overflow, limit, wide[:bits]).as_signed())
