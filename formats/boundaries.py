"""Where rounding changes from one level to the next: exact, from the definition, in whole numbers.

This is the meaning of a format's rounding. For every pair of neighbouring levels it finds the smallest float32 that rounds to
the upper one, with rational arithmetic. Every fast path must agree with it, and every other artefact (a code book in ONNX,
a threshold in hardware) can be made from it.
"""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from formats.definition import Definition

DETERMINISTIC_ROUNDINGS = ("nearest_even", "nearest_away", "toward_zero")
ROUNDINGS = (*DETERMINISTIC_ROUNDINGS, "stochastic")


def level_codes(fmt: Definition) -> NDArray[np.int64]:
    """Codes in ascending order of value, of every level that an encoder can choose without overflow.

    Minus zero is left out (the sign of a zero is settled after rounding), and so are NaN, the infinities and values that float32
    would carry as an infinity or as zero. Of codes with the same value the first is taken.
    """
    carried = fmt.float32_values
    chosen = np.isfinite(carried) & ((carried != 0) | (fmt.values == 0))
    if fmt.negative_zero is not None:
        chosen[fmt.negative_zero] = False
    codes = np.flatnonzero(chosen).astype(np.int64)
    return codes[np.unique(fmt.values[codes], return_index=True)[1]]


def boundaries(fmt: Definition, rounding: str) -> NDArray[np.float32]:
    """Smallest float32 that rounds to level i + 1, for each of the levels 0 … n - 2 of ``level_codes``: shape (n - 1,)."""
    codes = level_codes(fmt)
    pair = _RULES[rounding] if fmt.spacing == "linear" or rounding == "toward_zero" else _geometric
    found = [pair(fmt, int(low), int(high)) for low, high in pairwise(codes)]
    return np.array(found, dtype=np.float32)


def overflow_boundary(fmt: Definition, rounding: str, code: int) -> np.float32:
    """Smallest magnitude that overflows where overflow is not to saturate: it rounds to what would follow the last level, ``code``.

    What would follow has the next significand, even where that code stands for something else. Rounding toward zero leaves
    overflow to infinity itself.
    """
    if rounding == "toward_zero":
        return np.float32(np.inf)
    significand = abs(int(fmt.significand[code]))
    middle = Fraction(2 * significand + 1, 2) * _two_to(int(fmt.exponent[code]))
    if rounding == "nearest_away" or significand % 2 == 1:
        return _smallest_float32(lambda x: x >= middle, float(middle))
    return _smallest_float32(lambda x: x > middle, float(middle))


def _two_to(exponent: int) -> Fraction:
    return Fraction(2**exponent) if exponent >= 0 else Fraction(1, 2**-exponent)


def _exact(fmt: Definition, code: int) -> Fraction:
    assert fmt.root[code] == 0
    return _two_to(int(fmt.exponent[code])) * int(fmt.significand[code])


def _square(fmt: Definition, code: int) -> Fraction:
    value = _two_to(int(fmt.exponent[code])) * int(fmt.significand[code])
    return value * value * (1 + int(fmt.root[code]))


def _next_up(value: np.float32) -> np.float32:
    return np.float32(np.nextafter(value, np.float32(np.inf)))


def _smallest_float32(reached: Callable[[Fraction], bool], near: float) -> np.float32:
    """Return the smallest float32 for which the monotone condition ``reached`` holds, searching from ``near``."""
    value = np.float32(near)
    while reached(Fraction(float(value))):
        value = np.nextafter(value, np.float32(-np.inf))
    while not reached(Fraction(float(value))):
        value = _next_up(value)
    return value


def _nearest(fmt: Definition, low: int, high: int, *, tie_to_upper: bool) -> np.float32:
    middle = (_exact(fmt, low) + _exact(fmt, high)) / 2
    if tie_to_upper:
        return _smallest_float32(lambda x: x >= middle, float(middle))
    return _smallest_float32(lambda x: x > middle, float(middle))


def _nearest_even(fmt: Definition, low: int, high: int) -> np.float32:
    """Send a tie to the level that is an even multiple of the distance of the two.

    With one mantissa bit or more that is the even mantissa; with none it is the larger magnitude, as IEEE 754-2019 (4.3.1) has
    it for a precision of one digit. Where neither is such a multiple it is the even code; a tie at zero between a negative and a
    positive level goes to the positive one, as in the sign function.
    """
    below, above = _exact(fmt, low), _exact(fmt, high)
    distance = above - below
    on_their_grid = (above / distance).denominator == 1
    to_upper = (above / distance) % 2 == 0 if on_their_grid else high % 2 == 0 or below == -above
    return _nearest(fmt, low, high, tie_to_upper=to_upper)


def _nearest_away(fmt: Definition, low: int, high: int) -> np.float32:
    return _nearest(fmt, low, high, tie_to_upper=_exact(fmt, low) + _exact(fmt, high) >= 0)


def _toward_zero(fmt: Definition, low: int, high: int) -> np.float32:
    below, above = _carried(fmt, low), _carried(fmt, high)
    if below >= 0:
        return _smallest_float32(lambda x: x >= above, float(above))
    return _smallest_float32(lambda x: x > below, float(below)) if above <= 0 else np.float32(0)


def _carried(fmt: Definition, code: int) -> Fraction:
    """Return the level exactly, or as float32 carries it where it is irrational: so that decoded values encode to themselves."""
    return Fraction(float(fmt.float32_values[code])) if fmt.root[code] else _exact(fmt, code)


def _geometric(fmt: Definition, low: int, high: int) -> np.float32:
    """Boundary in the log domain; compares fourth powers, so that no root is ever taken. There are no ties: it is irrational."""
    if fmt.values[low] < 0:  # the mirror image: what rounds to the upper level is all above the negated positive boundary
        return _next_up(-_geometric_positive(_square(fmt, high), _square(fmt, low), fmt))
    return _geometric_positive(_square(fmt, low), _square(fmt, high), fmt)


def _geometric_positive(low_square: Fraction, high_square: Fraction, fmt: Definition) -> np.float32:
    if low_square == 0:  # zero stands where the level below the smallest would be: half or 1/sqrt(2) of it
        low_square = high_square / (4 if fmt.spacing == "powers of two" else 2)
    fourth_power = low_square * high_square
    near = float(low_square) ** 0.25 * float(high_square) ** 0.25
    return _smallest_float32(lambda x: x > 0 and x**4 > fourth_power, near)


_RULES: dict[str, Callable[[Definition, int, int], np.float32]] = {
    "nearest_even": _nearest_even,
    "nearest_away": _nearest_away,
    "toward_zero": _toward_zero,
}
