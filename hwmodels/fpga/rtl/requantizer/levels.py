"""Which accumulators lead to which code, from the emulator alone."""

import numpy as np
from numpy.typing import NDArray

from formats.boundaries import level_codes
from formats.errors import InvalidValueError
from formats.format import Format


def ordered_codes(output: Format) -> NDArray[np.int64]:
    """Return the codes that an encoder gives, from the least number to the largest, a minus zero before the zero."""
    codes = level_codes(output)
    if output.negative_zero is None:
        return codes
    zero = np.flatnonzero(output.values[codes] == 0)[0]
    return np.insert(codes, zero, output.negative_zero)


def encoded(accumulators: NDArray[np.int64], output: Format, scale: float = 1.0, lsb_exponent: int = 0) -> NDArray[np.int64]:
    """Return ``output.encode(fl32(accumulator * 2**lsb_exponent), scale)`` for every accumulator: what thresholds stand for."""
    numbers = np.ldexp(np.asarray(accumulators, np.int64).astype(np.float64), lsb_exponent)
    return output.encode(numbers.astype(np.float32), np.float32(scale)).astype(np.int64)


def encoded_exactly(accumulators: NDArray[np.int64], output: Format, lsb_exponent: int) -> NDArray[np.int64]:
    """Return the code of the exact number ``accumulator * 2**lsb_exponent``, which is rounded once.

    float32 holds accumulators of 25 bits, so that this is ``encoded``. Wider ones are cut off at 24 bits with the last one set if
    anything was lost (rounding to odd: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008), after which
    rounding to 22 bits or fewer, as all formats do, is as if from the exact number. Raises ``ValueError`` where float32 has no
    such exponent.
    """
    if not -100 <= lsb_exponent <= 60:
        raise InvalidValueError(f"exponent of an accumulator's LSB must be -100 to 60, not {lsb_exponent}")
    numbers = np.asarray(accumulators, np.int64)
    magnitude = np.abs(numbers)
    lost = np.maximum(np.frexp(magnitude.astype(np.float64))[1] - 24, 0)
    kept = magnitude >> lost
    odd = kept | ((kept << lost) != magnitude)
    return encoded(np.where(numbers < 0, -(odd << lost), odd << lost), output, 1.0, lsb_exponent)


def thresholds(output: Format, scale: float, accumulator_bits: int, lsb_exponent: int = 0) -> NDArray[np.int64]:
    """Return the smallest accumulator that leads to each level but the first, or beyond: shape (levels - 1,), ascending.

    An accumulator that is at or above t of them leads to ``ordered_codes(output)[t]``, which for every accumulator of
    ``accumulator_bits`` bits is ``encoded(accumulator, output, scale, lsb_exponent)``. Levels that none leads to have the threshold
    ``2**(accumulator_bits - 1)``, one above the largest; those that every one exceeds, the least accumulator. Found by bisection
    against the encoder, which is monotone.
    """
    codes = ordered_codes(output)
    rank = np.zeros(2**output.bits, np.int64)
    rank[codes] = np.arange(len(codes))
    wanted = np.arange(1, len(codes))
    low = np.full(len(wanted), -(2 ** (accumulator_bits - 1)), np.int64)
    high = np.full(len(wanted), 2 ** (accumulator_bits - 1), np.int64)
    while (low < high).any():
        middle = low + (high - low) // 2
        reached = rank[encoded(middle, output, scale, lsb_exponent)] >= wanted
        open_ = low < high
        high = np.where(open_ & reached, middle, high)
        low = np.where(open_ & ~reached, middle + 1, low)
    return low
