"""The compiled loop that reads numbers in Z[sqrt(2)] out as float64."""

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled

#: the square root of two as the sum of two float64, exact to 2**-107
ROOT = 1.4142135623730951
ROOT_REST = -9.667293313452913e-17
#: bound on the error of the sum below, relative to the sum of the terms' magnitudes; its own steps lose below 2**-96
DOUBT = 2.0**-94


@compiled
def _two_sum(a: float, b: float) -> tuple[float, float]:
    """Return the rounded sum and what rounding lost (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


@compiled
def _split(a: float) -> tuple[float, float]:
    """Return two numbers of 26 digits that sum up to ``a`` (Veltkamp)."""
    scaled = 134217729.0 * a
    high = scaled - (scaled - a)
    return high, a - high


@compiled
def _two_product(a: float, b: float) -> tuple[float, float]:
    """Return the rounded product and what rounding lost (Dekker)."""
    total = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return total, ((a_high * b_high - total) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled
def combine(even: NDArray[np.int64], odd: NDArray[np.int64], out: NDArray[np.float64], settled: NDArray[np.bool_]) -> None:
    """Write even + odd * sqrt(2) rounded to float64, and whether the rounding is beyond doubt."""
    half = np.int64(32)
    for i in range(len(even)):
        odd_high = float((odd[i] >> half) << half)
        odd_low = float(odd[i] - ((odd[i] >> half) << half))
        even_high = float((even[i] >> half) << half)
        even_low = float(even[i] - ((even[i] >> half) << half))
        first, first_rest = _two_product(odd_high, ROOT)
        second, second_rest = _two_product(odd_low, ROOT)
        rest = first_rest + second_rest + (odd_high + odd_low) * ROOT_REST
        total, lost = _two_sum(first, even_high)
        rest += lost
        total, lost = _two_sum(total, second)
        rest += lost
        total, lost = _two_sum(total, even_low)
        rest += lost
        magnitude = abs(odd_high) * 2.0 + odd_low * 2.0 + abs(even_high) + even_low
        doubt = magnitude * DOUBT
        total, rest = _two_sum(total, rest)
        low, high = total + (rest - doubt), total + (rest + doubt)
        out[i] = low
        settled[i] = low == high
