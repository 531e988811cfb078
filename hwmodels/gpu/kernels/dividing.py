"""Quotients of float32, rounded as IEEE 754's division rounds them, where many numbers have one divisor: Triton code.

A division for each number takes a dozen instructions and a branch. Here the divisor's reciprocal is divided once, and each
quotient takes six: a first guess and two corrections by its remainder, which a fused multiply-add has exactly. A guess within one
unit in the last place, corrected by a correctly rounded reciprocal, is rounded correctly (Markstein, "Computation of elementary
functions on the IBM RISC System/6000 processor", IBM Journal of Research and Development 34, 1990). Divisor and dividends are
brought near 1 first, so that no remainder is lost below float32's smallest numbers unless a quotient is below 2**-100, and then
only its sign is certain.
"""

import triton
import triton.language as tl

#: quotients beyond this, or below its reciprocal, need not be right
REACH = 2.0**100
_REACH = tl.constexpr(REACH)


@triton.jit
def divisor(scale):  # type: ignore[no-untyped-def]
    """Return what ``quotient`` needs of a positive scale: a power of two, the scale times it, and the reciprocal of that."""
    field = tl.maximum(scale.to(tl.int32, bitcast=True) >> 23, 1)
    # the reciprocal of 2**127 is subnormal
    power = tl.where(field < 254, (254 - field) << 23, 1 << 22).to(tl.float32, bitcast=True)
    near_one = scale * power
    return power, near_one, tl.div_rn(near_one * 0 + 1.0, near_one)


@triton.jit
def quotient(x, power, near_one, reciprocal, BOUNDED: tl.constexpr, SIGNED_ZERO: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ``x / scale``.

    Unless they are ``BOUNDED``, quotients beyond ``REACH`` in size, infinities too, are at least half of it. Without
    ``SIGNED_ZERO`` a quotient of zero may have either sign.
    """
    moved = x * power
    if not BOUNDED:
        moved = tl.clamp(moved, -_REACH, _REACH, propagate_nan=tl.PropagateNan.ALL)
    guess = moved * reciprocal
    for _ in tl.static_range(2):
        guess = tl.fma(tl.fma(-near_one, guess, moved), reciprocal, guess)
    if SIGNED_ZERO:  # a remainder of zero takes the sign from a zero
        signs: tl.constexpr = -0x80000000
        bits = (guess.to(tl.int32, bitcast=True) & 0x7FFFFFFF) | (x.to(tl.int32, bitcast=True) & signs)
        guess = bits.to(tl.float32, bitcast=True)
    return guess
