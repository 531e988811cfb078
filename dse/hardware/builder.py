"""Putting a program together: instructions one after the other, each with what its result stands for and how large it can be."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dse.hardware.program import Instruction, Value
from dse.hardware.steps import Add, AddConstant, Clamp, MultiplyConstant, Rearrange, Rescale, Step
from formats.errors import InvalidValueError

#: bits of a multiplier, and of the product that is shifted
MULTIPLIER_BITS, PRODUCT_BITS = 31, 62
#: a multiplier has no fewer bits than these; numbers too wide for it are shifted first
FEWEST_BITS = 24

#: odd numbers of values that means are taken over: units that differ by them are divided by, not multiplied
COUNTS = tuple(range(3, 1024, 2))
#: mantissas of float64 units that are as good as equal
SAME = 2.0**-50
#: places below a unit that numbers of other units are rounded to
FINER_BITS = 8

Unit = NDArray[np.float64]


class Builder:
    """Instructions so far."""

    def __init__(self) -> None:
        """Begin with none."""
        self.instructions: list[Instruction] = []
        #: the node that is being lowered, for names and messages
        self.where = ""

    def emit(self, step: Step, operands: Sequence[Value], unit: Unit, low: int, high: int) -> Value:
        """Add an instruction and return what it makes; ``ValueError`` where its numbers could outgrow 62 bits."""
        if max(-low, high) >= 2**PRODUCT_BITS:
            bits = max(-low, high).bit_length() + 1
            what = f"fit {PRODUCT_BITS + 1} bits in whole-number arithmetic"
            raise InvalidValueError(f"numbers must {what}, not need {bits} ({self.where})")
        given = isinstance(step, Rearrange) and operands[0].given
        value = Value(name=f"{self.where}/{len(self.instructions)}", unit=unit, low=low, high=high, given=given)
        self.instructions.append(Instruction(step=step, operands=tuple(each.name for each in operands), output=value.name))
        return value

    def rescale(self, value: Value, unit: Unit) -> Value:
        """Return the value in whole numbers of another unit, each rounded once; exactly where that only shifts to the left."""
        real = value.unit / unit
        if (real == 1).all():
            return Value(name=value.name, unit=unit, low=value.low, high=value.high)
        ends = [end * float(factor) for end in (value.low, value.high) for factor in (real.min(), real.max())]
        low, high = int(min(ends)) - 1, int(max(ends)) + 1
        count = count_of(real)
        if count:
            return self._shifted(value, nearest_exponent(real * count), count, unit, (low, high))
        if value.bits > PRODUCT_BITS - FEWEST_BITS:  # places so far below the largest sums do not matter
            coarse = value.unit * 2.0 ** (value.bits - (PRODUCT_BITS - FEWEST_BITS))
            return self.rescale(self.rescale(value, coarse), unit)
        return self._multiplied(value, real, unit, (low, high))

    def _multiplied(self, value: Value, real: Unit, unit: Unit, ends: tuple[int, int]) -> Value:
        mantissa, exponent = np.frexp(real)
        bits = min(MULTIPLIER_BITS, PRODUCT_BITS - value.bits)
        multiplier = np.floor(np.ldexp(mantissa, bits) + 0.5).astype(np.int64)
        shift = bits - exponent.astype(np.int64)
        if shift.min() < 0:
            raise InvalidValueError(
                f"scales must differ by less than 2**{bits} to be requantized, not by {real.max():g} ({self.where})"
            )
        vanishing = shift > PRODUCT_BITS
        divisor = np.int64(1) << np.where(vanishing, 0, shift)
        step = Rescale(multiplier=np.where(vanishing, 0, multiplier), divisor=divisor, even=False)
        return self.emit(step, [value], unit, *ends)

    def _shifted(self, value: Value, left: NDArray[np.int64], count: int, unit: Unit, ends: tuple[int, int]) -> Value:
        """Multiply by ``2**left / count``, exactly but for the rounding."""
        if count == 1 and left.min() >= 0:
            return self.emit(MultiplyConstant(numbers=np.int64(1) << left), [value], unit, *ends)
        right = np.maximum(-left, 0)
        vanishing = right + count.bit_length() > PRODUCT_BITS
        multiplier = np.where(vanishing, 0, np.int64(1) << np.maximum(left, 0))
        divisor = np.where(vanishing, 1, count * (np.int64(1) << np.where(vanishing, 0, right)))
        return self.emit(Rescale(multiplier=multiplier, divisor=divisor, even=True), [value], unit, *ends)

    def unify(self, value: Value, axes: tuple[int, ...] | None = None) -> Value:
        """Return the value with one unit along some axes, by default all."""
        over = tuple(range(value.unit.ndim)) if axes is None else axes
        return self.rescale(value, finest(value.unit, over))

    def clamp(self, value: Value, low: NDArray[np.int64] | None, high: NDArray[np.int64] | None) -> Value:
        """Return the value kept between two ends, in its own numbers."""
        bottom = value.low if low is None else max(value.low, int(low.min()))
        top = value.high if high is None else min(value.high, int(high.max()))
        return self.emit(Clamp(low=low, high=high), [value], value.unit, min(bottom, top), max(bottom, top))

    def add(self, first: Value, second: Value) -> Value:
        """Return the sum."""
        unit = common(first.unit, second.unit)
        a, b = self.rescale(first, unit), self.rescale(second, unit)
        return self.emit(Add(), [a, b], unit, a.low + b.low, a.high + b.high)

    def add_constant(self, value: Value, constant: NDArray[np.float64]) -> Value:
        """Return the sum with stored real numbers, rounded to the value's unit, or to a 256th of it where they are no multiples."""
        if (np.round(constant / value.unit) * value.unit != constant).any() and value.bits + FINER_BITS < PRODUCT_BITS // 2:
            value = self.rescale(value, value.unit / (1 << FINER_BITS))
        unit = np.broadcast_to(value.unit, np.broadcast_shapes(value.unit.shape, constant.shape))
        numbers = np.round(constant / unit).astype(np.int64)
        low, high = min(int(numbers.min()), 0), max(int(numbers.max()), 0)
        return self.emit(AddConstant(numbers=numbers), [value], value.unit, value.low + low, value.high + high)

    def multiply_constant(self, value: Value, factor: NDArray[np.float64]) -> Value:
        """Return the product with stored real numbers: their magnitudes go into the unit, their signs into the numbers."""
        unit = value.unit * np.where(factor == 0, 1.0, np.abs(factor))
        if (factor > 0).all():
            return Value(name=value.name, unit=unit, low=value.low, high=value.high)
        largest = max(-value.low, value.high)
        return self.emit(MultiplyConstant(numbers=np.sign(factor).astype(np.int64)), [value], unit, -largest, largest)


def count_of(real: Unit) -> int:
    """Return the odd number that each ratio is a power of two divided by, 0 where there is no such one: a mean's, or 1."""
    for count in (1, *COUNTS):
        mantissa = np.frexp(real * count)[0]
        if ((np.abs(mantissa - 0.5) < SAME) | (np.abs(mantissa - 1) < SAME)).all():
            return count
    return 0


def nearest_exponent(real: Unit) -> NDArray[np.int64]:
    """Return the exponents of the powers of two next to some numbers."""
    mantissa, exponent = np.frexp(real)
    return np.asarray(exponent - (mantissa < 0.75), np.int64)


def exact_ratio(real: float) -> Fraction:
    """Return the ratio of two units as it was before it was rounded to float64."""
    count = count_of(np.array(real))
    return Fraction(2) ** int(nearest_exponent(np.array(real * count))) / count if count else Fraction(real)


def finest(unit: Unit, axes: tuple[int, ...]) -> Unit:
    """Return the unit for all numbers along some axes.

    It is the smallest where all are powers of two times that; else a power of two so fine that rounding to it hardly counts.
    """
    least = unit.min(axis=axes, keepdims=True)
    together = (np.frexp(unit / least)[0] == 0.5).all(axis=axes, keepdims=True)
    mantissa, exponent = np.frexp(unit)
    fine = np.ldexp(1.0, exponent - 1 - np.where(mantissa == 0.5, 0, FINER_BITS))
    found: Unit = np.where(together, least, fine.min(axis=axes, keepdims=True))
    return found


def common(first: Unit, second: Unit) -> Unit:
    """Return the unit for the sum of two numbers, place by place."""
    both: Unit = np.stack(np.broadcast_arrays(first, second))
    return finest(both, (0,)).reshape(both.shape[1:])
