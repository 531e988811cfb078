"""Exact sums as accumulators hold them, and the numbers that are read out of them, each rounded once."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import accumulate_kernels as kernels

#: digits and exponent of the last place of the smallest number, by type
FLOAT64 = (53, -1074)
FLOAT32 = (24, -149)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Whole numbers ``numbers * 2**shift``, of any width.

    ``numbers`` is int32 or int64 of some shape, an object array of Python integers, or, with ``limbs``, uint32 with a first axis
    that counts the limbs of numbers in two's complement, the lowest first.
    """

    numbers: NDArray[Any]
    shift: int = 0
    limbs: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the numbers."""
        return self.numbers.shape[1:] if self.limbs else self.numbers.shape

    def to_integers(self) -> NDArray[Any]:
        """Return the numbers: int64 where all of them fit, else an object array of Python integers."""
        if self.limbs:
            return _narrowed(self._from_limbs())
        if self.numbers.dtype == object:
            return _narrowed(self.numbers * 2**self.shift if self.shift else self.numbers)
        wide = self.numbers.astype(np.int64)
        if self.shift == 0 or not wide.any():
            return wide
        reach = max(int(wide.max()), -int(wide.min())).bit_length() + self.shift
        return wide << self.shift if reach <= 63 else wide.astype(object) * 2**self.shift

    def wrapped(self, bits: int) -> "Sums":
        """Return the numbers modulo 2**bits, as two's complement of that width."""
        if bits > 64:
            half = 2 ** (bits - 1)
            numbers = self.to_integers().astype(object)
            return Sums(numbers=(numbers + half) % 2**bits - half)
        if self.limbs:
            low = self.numbers[0].astype(np.uint64)
            low |= self.numbers[1].astype(np.uint64) << np.uint64(32) if len(self.numbers) > 1 else np.uint64(0)
            low = low.view(np.int64)
            width = 64 if len(self.numbers) > 1 else 32
            low <<= 64 - width
            low >>= 64 - width
        else:
            low = self.numbers.astype(np.int64 if self.shift or bits > 32 else self.numbers.dtype)
        if self.shift >= 64:
            low[...] = 0
        low <<= min(self.shift, 63)
        unused = 8 * low.itemsize - bits
        low <<= unused
        low >>= unused
        return Sums(numbers=low)

    def to_float(self, exponent: int) -> NDArray[np.float64]:
        """Return the numbers times 2**exponent, each rounded once to float64, to nearest even; too large ones are Inf."""
        last = exponent + self.shift
        if not self.limbs and self.numbers.dtype != object and last >= FLOAT64[1]:
            # below 2**53 times the last place nothing is rounded, above it the result is no subnormal number
            with np.errstate(over="ignore"):
                return np.ldexp(self.numbers.astype(np.float64), last)
        if not self.limbs:
            rounded = [round_integer(int(number), last, *FLOAT64) for number in self.numbers.flat]
            return np.array(rounded, np.float64).reshape(self.shape)
        return self.rounded(np.full(self.shape, last, np.int64), *FLOAT64)

    def rounded(self, exponent: NDArray[np.int64], precision: int, least: int) -> NDArray[np.float64]:
        """Return the numbers, held as limbs and without their ``shift``, times 2**exponent, rounded once to so many digits."""
        out = np.empty(self.numbers[0].size, np.float64)
        flat = np.ascontiguousarray(self.numbers).reshape(len(self.numbers), out.size)
        kernels.round_limbs(flat, exponent.reshape(-1), precision, least, out)
        return out.reshape(self.shape)

    def _from_limbs(self) -> NDArray[np.object_]:
        size = 4 * len(self.numbers)
        data = np.ascontiguousarray(np.moveaxis(self.numbers, 0, -1)).astype("<u4").tobytes()
        made = np.empty(len(data) // size, object)
        made[:] = [int.from_bytes(data[i : i + size], "little", signed=True) << self.shift for i in range(0, len(data), size)]
        return made.reshape(self.shape)


def _narrowed(numbers: NDArray[Any]) -> NDArray[Any]:
    fits = all(-(2**63) <= number < 2**63 for number in numbers.flat)
    return numbers.astype(np.int64) if fits else numbers


def round_integer(number: int, exponent: int, precision: int, least: int) -> float:
    """Return ``number * 2**exponent`` rounded once, to nearest even, to ``precision`` digits and no last place below 2**least."""
    magnitude = abs(number)
    drop = max(magnitude.bit_length() - precision, least - exponent)
    if drop > 0:
        kept, rest, half = magnitude >> drop, magnitude & ((1 << drop) - 1), 1 << (drop - 1)
        magnitude = kept + (rest > half or (rest == half and kept & 1 == 1))
        exponent += drop
    return math.copysign(_power(magnitude, exponent), -1 if number < 0 else 1)


def _power(magnitude: int, exponent: int) -> float:
    try:
        return math.ldexp(magnitude, exponent)
    except OverflowError:
        return math.inf


def round_with_root(even: int, odd: int, exponent: int, precision: int, least: int) -> float:
    """Return ``(even + odd * sqrt(2)) * 2**exponent`` rounded once, as ``round_integer`` does, by the integer square root.

    |even + odd * sqrt(2)| is at least 1 / (|even| + |odd| * sqrt(2)) unless it is zero, since their product is a whole number;
    so that many more bits below the point leave ``precision`` digits and more even where the two nearly cancel.
    """
    if odd == 0:
        return round_integer(even, exponent, precision, least)
    below = even.bit_length() + odd.bit_length() + 2 * precision
    root = math.isqrt(2 * odd * odd << 2 * below)  # less than |odd| * sqrt(2) * 2**below, and by less than one
    floor = (even << below) + (root if odd > 0 else -root - 1)
    # the number lies strictly between floor and floor + 1: half-way between stands for all of it
    return round_integer(2 * floor + 1, exponent - below - 1, precision, least)
