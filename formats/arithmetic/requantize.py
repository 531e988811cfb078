"""From an integer accumulator to the codes of an integer format, in integers alone and bit for bit.

Two ways: a 31-bit multiplier and a shift, as TensorFlow Lite and gemmlowp do it (Jacob et al., arXiv 1712.05877, section 2.2),
and a shift alone, for scales that are powers of two.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.arithmetic.matmul import as_format
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from formats.names import unknown_name

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
#: exponent of the multiplier's unit
FRACTION = 31
#: shifts that the single-rounding product can take
SHIFTS = (-31, 30)
VARIANTS = ("double", "single")
ROUNDINGS = ("nearest_even", "nearest_away", "toward_zero", "floor")


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return (multiplier, shift) such that ``multiplier * 2**(shift - 31)`` is nearest to ``real``, ties away from zero.

    The multiplier is 2**30 … 2**31 - 1, or 0 for zero and for what is below 2**-32, as in TensorFlow Lite's QuantizeMultiplier.
    Raises ``ValueError`` for numbers that are negative, not finite, or too large for a shift of 30.
    """
    if not (math.isfinite(real) and real >= 0):
        raise InvalidValueError(f"real multiplier must be finite and not negative, not {real}")
    mantissa, shift = math.frexp(real)
    multiplier = math.floor(math.ldexp(mantissa, FRACTION) + 0.5)  # exact: 53 bits hold the sum
    if multiplier == 2**FRACTION:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < SHIFTS[0]:
        return 0, 0
    if shift > SHIFTS[1]:
        raise InvalidValueError(f"real multiplier must be below 2**{SHIFTS[1]}, not {real}")
    return multiplier, shift


def requantize(
    accumulators: ArrayLike,
    multiplier: ArrayLike,
    shift: ArrayLike,
    fmt: str | Format,
    zero_point: ArrayLike = 0,
    *,
    variant: str = "double",
) -> NDArray[Any]:
    """Return the codes of ``clamp(zero_point + accumulators * multiplier * 2**(shift - 31))`` in an integer format.

    ``accumulators`` are int32 numbers, ``multiplier`` 0 … 2**31 - 1 and ``shift`` -31 … 30; these and ``zero_point`` broadcast.
    ``variant="double"`` rounds twice, as gemmlowp: SaturatingRoundingDoublingHighMul of the accumulator shifted left, where the
    shift is positive, then RoundingDivideByPOT by a negative one; both to nearest, ties of the product towards +infinity (so
    gemmlowp's nudge has it), ties of the division away from zero. ``"single"`` rounds once, ties towards +infinity, as
    TensorFlow Lite does when built for it. A left shift saturates to int32: the reference leaves its overflow undefined.
    Raises ``ValueError`` for numbers out of range, ``TypeError`` for other than integers.
    """
    numbers = _integers("accumulators", accumulators, INT32_MIN, INT32_MAX)
    factor = _integers("multiplier", multiplier, 0, INT32_MAX)
    exponent = _integers("shift", shift, *SHIFTS)
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    scaled = _double_rounding(numbers, factor, exponent) if variant == "double" else _single_rounding(numbers, factor, exponent)
    return _as_codes(fmt, scaled, zero_point)


def requantize_by_shift(
    accumulators: ArrayLike, shift: ArrayLike, fmt: str | Format, zero_point: ArrayLike = 0, *, rounding: str = "nearest_even"
) -> NDArray[Any]:
    """Return the codes of ``clamp(zero_point + accumulators / 2**shift)`` in an integer format, rounded once.

    ``accumulators`` are int64 numbers; ``shift`` is -62 … 62 (negative: to the left) and broadcasts, as ``zero_point`` does.
    ``rounding`` is ``nearest_even``, ``nearest_away``, ``toward_zero`` or ``floor``.
    """
    numbers = _integers("accumulators", accumulators, -(2**63), 2**63 - 1)
    right = _integers("shift", shift, -62, 62)
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", rounding, ROUNDINGS)
    down = np.maximum(right, 0)
    floor = numbers >> down
    rest = numbers - (floor << down)
    half = np.int64(1) << np.maximum(down - 1, 0)
    up = {
        "nearest_even": (rest > half) | ((rest == half) & (floor & 1 == 1)),
        "nearest_away": (rest > half) | ((rest == half) & (numbers >= 0)),
        "toward_zero": (rest > 0) & (numbers < 0),
        "floor": np.zeros(rest.shape, np.bool_),
    }[rounding]
    rounded = floor + (up & (down > 0))
    return _as_codes(fmt, _shifted_left(rounded, np.maximum(-right, 0), -(2**62), 2**62), zero_point)


def _shifted_left(numbers: NDArray[np.int64], left: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """Return ``numbers << left`` where that lies within the limits, else the limit."""
    within = np.clip(numbers, -((-low) >> left), high >> left)
    return np.where(within == numbers, within << left, np.where(numbers < 0, low, high))


def _double_rounding(numbers: NDArray[np.int64], factor: NDArray[np.int64], exponent: NDArray[np.int64]) -> NDArray[np.int64]:
    raised = _shifted_left(numbers, np.maximum(exponent, 0), INT32_MIN, INT32_MAX)
    product = raised * factor  # the multiplier is never negative, so the one product that overflows does not occur
    nudge = np.where(product >= 0, np.int64(1 << 30), np.int64(1 - (1 << 30)))
    nudged = product + nudge
    high = np.where(nudged < 0, -(-nudged >> FRACTION), nudged >> FRACTION)  # division that truncates
    right = np.maximum(-exponent, 0)
    mask = (np.int64(1) << right) - 1
    threshold = (mask >> 1) + (high < 0)
    rounded: NDArray[np.int64] = (high >> right) + ((high & mask) > threshold)
    return rounded


def _single_rounding(numbers: NDArray[np.int64], factor: NDArray[np.int64], exponent: NDArray[np.int64]) -> NDArray[np.int64]:
    right = FRACTION - exponent
    return (numbers * factor + (np.int64(1) << (right - 1))) >> right


def _as_codes(fmt: str | Format, numbers: NDArray[np.int64], zero_point: ArrayLike) -> NDArray[Any]:
    """Add the zero point, clamp, and return the codes of an integer format."""
    found, low, high = _integer_format(fmt)
    zero = _integers("zero point", zero_point, low, high)
    clamped = np.clip(numbers + zero, low, high)
    codes: NDArray[Any] = (clamped & (2**found.bits - 1)).astype(found.code_dtype)
    return codes


def _integer_format(fmt: str | Format) -> tuple[Format, int, int]:
    """Return the format, its smallest and its largest number."""
    found = as_format(fmt)
    numbers = np.sort(found.values[np.isfinite(found.values)]).astype(np.int64) if isinstance(found, Format) else None
    if isinstance(found, Format) and numbers is not None:
        low, high = int(numbers[0]), int(numbers[-1])
        every = np.arange(low, high + 1)
        if np.array_equal(found.values[every & (2**found.bits - 1)], every):
            return found, low, high
    raise InvalidValueError(f"output format must be an integer in two's complement or unsigned, not {found.name}")


def _integers(what: str, given: ArrayLike, low: int, high: int) -> NDArray[np.int64]:
    array = np.asarray(given)
    if array.dtype.kind not in "ui":
        raise InvalidTypeError(f"{what} must be integers, not {array.dtype}")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        wrong = int(array.min()) if int(array.min()) < low else int(array.max())
        raise InvalidValueError(f"{what} must be {low} to {high}, not {wrong}")
    return array.astype(np.int64)
