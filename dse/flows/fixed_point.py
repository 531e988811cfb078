"""Fixed-point numbers: exact ranges of results, and the narrowest types that hold them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.errors import BitatlasError

#: bits that stored numbers may span
WIDEST = 62
_SIGNIFICAND_BITS = 24


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high`` times ``2**exponent``."""

    low: int
    high: int
    exponent: int

    @property
    def type(self) -> "FixedPoint":
        """The narrowest type that holds them."""
        signed = self.low < 0
        magnitudes = [end if end >= 0 else ~end for end in (self.low, self.high)]
        bits = max(magnitude.bit_length() for magnitude in magnitudes) + signed
        return FixedPoint(bits=max(bits, 1), exponent=self.exponent, signed=signed)

    def at(self, exponent: int) -> "Range":
        """Return the same numbers in a finer unit."""
        shift = self.exponent - exponent
        assert shift >= 0
        return Range(low=self.low << shift, high=self.high << shift, exponent=exponent)

    def __add__(self, other: "Range") -> "Range":
        """Return the range of sums."""
        exponent = min(self.exponent, other.exponent)
        one, two = self.at(exponent), other.at(exponent)
        return Range(low=one.low + two.low, high=one.high + two.high, exponent=exponent)

    def __or__(self, other: "Range") -> "Range":
        """Return the smallest range that holds both."""
        exponent = min(self.exponent, other.exponent)
        one, two = self.at(exponent), other.at(exponent)
        return Range(low=min(one.low, two.low), high=max(one.high, two.high), exponent=exponent)


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """A fixed-point type: ``bits`` in all, of which the lowest is worth ``2**exponent``."""

    bits: int
    exponent: int
    signed: bool

    @property
    def range(self) -> Range:
        """All that it holds."""
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)
        return Range(low=low, high=high, exponent=self.exponent)

    def __str__(self) -> str:
        """Return hls4ml's text: ``fixed<bits, bits before the point>``, ``ufixed`` without a sign."""
        return f"{'' if self.signed else 'u'}fixed<{self.bits},{self.bits + self.exponent}>"


def whole_numbers(values: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
    """Return float32 numbers as whole numbers times the largest power of two that divides them all, and its exponent.

    Raises ``BitatlasError`` where they span more than ``WIDEST`` bits.
    """
    numbers = np.asarray(values, np.float64)
    significand, exponent = np.frexp(numbers)
    whole = (significand * 2.0**_SIGNIFICAND_BITS).astype(np.int64)
    if not whole.any():
        return np.zeros(numbers.shape, np.int64), 0
    zeros = np.round(np.log2((whole & -whole)[whole != 0])).astype(np.int64)
    lowest = int((zeros + exponent[whole != 0]).min()) - _SIGNIFICAND_BITS
    span = int(exponent.max()) - lowest
    if span > WIDEST:
        raise BitatlasError(f"stored numbers must span at most {WIDEST} bits as fixed-point numbers, not {span}")
    return np.ldexp(numbers, -lowest).astype(np.int64), lowest


def range_of(values: NDArray[np.float32]) -> Range:
    """Return the range of float32 numbers."""
    whole, exponent = whole_numbers(values)
    return Range(low=int(whole.min(initial=0)), high=int(whole.max(initial=0)), exponent=exponent)
