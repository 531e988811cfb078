"""From int32 sums to codes of an integer format, bit for bit as ``formats.requantize`` and ``formats.requantize_by_shift``."""

import triton
import triton.language as tl

NEAREST_EVEN = tl.constexpr("nearest_even")
NEAREST_AWAY = tl.constexpr("nearest_away")
TOWARD_ZERO = tl.constexpr("toward_zero")


@triton.jit
def clamped_codes(numbers, zero_point, low, high, MASK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add the zero point to int64 numbers, clamp, and return the codes as uint8."""
    return (tl.minimum(tl.maximum(numbers + zero_point, low), high) & MASK).to(tl.uint8)


@triton.jit
def multiplied(sums, multiplier, shift):  # type: ignore[no-untyped-def]
    """Return ``sums * multiplier * 2**(shift - 31)`` as int64, rounded once, ties towards +infinity."""
    right = 31 - shift.to(tl.int64)
    one = tl.full([1], 1, tl.int64)
    product = sums.to(tl.int64) * multiplier.to(tl.int64)
    return (product + (one << (right - 1))) >> right


@triton.jit
def shifted(sums, shift, ROUNDING: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ``sums / 2**shift`` as int64, rounded once; a shift to the left saturates at 2**62."""
    numbers, right = sums.to(tl.int64), shift.to(tl.int64)
    one = tl.full([1], 1, tl.int64)
    down, left = tl.maximum(right, 0), tl.maximum(-right, 0)
    floor = numbers >> down
    rest = numbers - (floor << down)
    half = one << tl.maximum(down - 1, 0)
    if ROUNDING == NEAREST_EVEN:
        up = (rest > half) | ((rest == half) & ((floor & 1) == 1))
    elif ROUNDING == NEAREST_AWAY:
        up = (rest > half) | ((rest == half) & (numbers >= 0))
    elif ROUNDING == TOWARD_ZERO:
        up = (rest > 0) & (numbers < 0)
    else:
        up = rest < 0
    rounded = floor + (up & (down > 0)).to(tl.int64)
    limit = one << 62
    within = tl.minimum(tl.maximum(rounded, -(limit >> left)), limit >> left)
    outside = tl.where(rounded < 0, -limit, limit)
    return tl.where(within == rounded, within << left, outside)
