"""Powers of two and of the square root of two, signed for weights and unsigned for activations such as softmax.

Rounded to the nearest in the log domain. ``pot`` and ``post`` spend a sign bit and the magnitude code 0 for zero; their code
layout is this project's convention, since papers that use the levels (POST: arXiv 2504.17263) leave it open. ``ulog2`` and
``ulogsqrt2`` count steps down from 1 and spend the last code for zero (log-sqrt2: RepQ-ViT, arXiv 2212.08254, which flushes
what falls below its last level to zero without a code for it).
"""

import numpy as np
from numpy.typing import NDArray

from formats.definition import ClosedForm, Spacing
from formats.format import Format

#: the closed form reads exponents off normal float32 numbers; formats that reach below them go by table
SMALLEST_NORMAL_EXPONENT = -126

_SPACING = {1: Spacing.POWERS_OF_TWO, 2: Spacing.POWERS_OF_ROOT_TWO}
_BASE = {1: "2", 2: "sqrt(2)"}


def signed(bits: int, steps_per_octave: int) -> Format:
    """``pot{b}`` (1 step for each octave) and ``post{b}`` (2): magnitude code c is base**(c - largest), c = 0 is +0 or -0."""
    codes = np.arange(2**bits, dtype=np.int64)
    largest = 2 ** (bits - 1) - 1
    magnitude = codes & largest
    sign = np.where(codes >> (bits - 1) == 1, -1, 1)
    name = {1: "pot", 2: "post"}[steps_per_octave]
    return _build(
        f"{name}{bits}",
        bits,
        np.where(magnitude == 0, 0, sign),
        largest - magnitude,
        steps_per_octave,
        counterpart=_unsigned_name(bits, steps_per_octave),
        summary=f"sign and power of {_BASE[steps_per_octave]}, {bits} bits, largest 1",
    )


def unsigned(bits: int, steps_per_octave: int) -> Format:
    """``ulog2_{b}`` (1 step for each octave) and ``ulogsqrt2_{b}`` (2): code q is base**-q, the last code is zero."""
    codes = np.arange(2**bits, dtype=np.int64)
    name = _unsigned_name(bits, steps_per_octave)
    return _build(
        name,
        bits,
        (codes < 2**bits - 1).astype(np.int64),
        codes,
        steps_per_octave,
        counterpart=name,
        summary=f"unsigned power of {_BASE[steps_per_octave]}, {bits} bits, largest 1",
    )


def _unsigned_name(bits: int, steps_per_octave: int) -> str:
    return f"{'ulog2' if steps_per_octave == 1 else 'ulogsqrt2'}_{bits}"


def _build(
    name: str,
    bits: int,
    significand: NDArray[np.int64],
    below_one: NDArray[np.int64],
    steps: int,
    *,
    counterpart: str,
    summary: str,
) -> Format:
    """Build from the number of steps that each magnitude lies below 1."""
    # an odd number of half octaves down is a whole number of octaves down, rounded up, and sqrt(2) up again
    root = below_one % steps
    exponent = -((below_one - root) // steps) - root
    deepest = int(exponent[significand != 0].min())
    form = ClosedForm(kind="logarithmic", signed=bool(significand.min() < 0), mantissa_bits=steps)
    return Format(
        name=name,
        bits=bits,
        significand=significand,
        exponent=np.where(significand == 0, 0, exponent),
        root=np.where(significand == 0, 0, root),
        negative_zero=2 ** (bits - 1) if form.signed else None,
        spacing=_SPACING[steps],
        closed_form=form if deepest >= SMALLEST_NORMAL_EXPONENT else None,
        unsigned_counterpart=counterpart,
        summary=summary,
    )
