"""Scaled numbers to codes in registers: the closed forms of ``formats`` for nearest even, thresholds for every format and rounding.

Only integer operations on the bits of float32, and additions that float32 rounds to nearest even: no cast to a low-bit type, which
Triton rounds otherwise than IEEE 754. Kernels must be compiled without contraction into fused multiply-adds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from formats import kernels as loops
from formats.boundaries import DETERMINISTIC_ROUNDINGS, boundaries
from formats.definition import Definition
from formats.errors import InvalidValueError
from formats.kernels.elements import HALF_STEP, QUARTER_STEP, THREE_QUARTERS_STEP
from formats.names import unknown_name
from formats.rules import rule
from hwmodels.gpu.kernels.dividing import REACH

UNIFORM, FLOATING, LOGARITHMIC = tl.constexpr("uniform"), tl.constexpr("floating"), tl.constexpr("logarithmic")
#: levels are bisected by their thresholds: 15 of them in registers, or more in memory
FEW, BISECTED = tl.constexpr("few"), tl.constexpr("bisected")
_KINDS = {loops.UNIFORM: "uniform", loops.FLOATING: "floating", loops.LOGARITHMIC: "logarithmic"}
MOST_COMPARED = 15

_MAGNITUDE, _EXPONENT, _MANTISSA = tl.constexpr(0x7FFFFFFF), tl.constexpr(0x7F800000), tl.constexpr(0x007FFFFF)
_TO_OCTAVE = tl.constexpr(0x800000 - int(HALF_STEP))
_TO_HALF_OCTAVE = tl.constexpr(0x800000 - int(THREE_QUARTERS_STEP))
_HALF_OCTAVE = tl.constexpr(int(QUARTER_STEP) + 0x800000 - int(THREE_QUARTERS_STEP))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounding:
    """How a format rounds, as ``encoded`` wants it."""

    #: constants that the kernel is compiled for
    constants: dict[str, Any]
    #: float32: the smallest number that rounds to each level but the first, padded with infinity; empty for closed forms
    thresholds: torch.Tensor
    #: int32: the code of each level
    level_codes: torch.Tensor


def rounding_of(fmt: Definition, rounding: str, device: str | torch.device) -> Rounding:
    """Return how a format of at most 8 bits rounds where overflow saturates; ``ValueError`` for other widths and roundings."""
    if fmt.bits > 8:
        raise InvalidValueError(f"format of a quantize kernel must have at most 8 bits, not {fmt.bits}: {fmt.name}")
    if rounding not in DETERMINISTIC_ROUNDINGS:
        raise unknown_name("rounding", rounding, DETERMINISTIC_ROUNDINGS)
    found = rule(fmt, {}, rounding, "saturate", 0)
    numbers, tables = found
    kind = _KINDS.get(numbers.kind, "few" if len(tables.thresholds) <= MOST_COMPARED else "bisected")
    by_table = kind in ("few", "bisected")
    constants = {
        "KIND": kind,
        "BITS": fmt.bits,
        "SIGNED": bool(numbers.signed),
        "MANTISSA": int(numbers.mantissa_bits),
        "FIRST_NORMAL": (int(numbers.minimum_exponent) + 127) << 23 if kind == "floating" else 0,
        "LOW": int(numbers.low.view(np.int32)),
        "HIGH": int(numbers.high.view(np.int32)),
        "FIRST": int(numbers.first.view(np.int32)),
        "ZERO": int(numbers.zero),
        "NEGATIVE_ZERO": int(numbers.negative_zero),
        "NAN": int(numbers.nan),
        "THRESHOLDS": len(tables.thresholds) if by_table else 0,
        "EXACT": not _within_reach(fmt, rounding),
    }
    thresholds = tables.thresholds if by_table else np.zeros(1, np.float32)
    codes = tables.level_codes[: len(thresholds) + 1] if by_table else np.zeros(1, np.int64)
    if kind == "few":
        missing = MOST_COMPARED - len(thresholds)
        thresholds, codes = np.pad(thresholds, (0, missing), constant_values=np.inf), np.pad(codes, (0, missing), mode="edge")
    return Rounding(
        constants=constants,
        thresholds=torch.from_numpy(np.ascontiguousarray(thresholds)).to(device),
        level_codes=torch.from_numpy(codes.astype(np.int32)).to(device),
    )


def _within_reach(fmt: Definition, rounding: str) -> bool:
    """Whether every boundary between codes, and the largest level, is a quotient that ``dividing`` gives."""
    between = boundaries(fmt, rounding)
    if (between == 0).any():  # what is on which side of zero is not certain where quotients underflow
        return False
    edges = np.append(between, fmt.float32_values[np.isfinite(fmt.float32_values)])
    sizes = np.abs(edges[np.isfinite(edges) & (edges != 0)])
    return bool(sizes.size) and float(sizes.max()) <= REACH / 4 and float(sizes.min()) >= 4 / REACH


@triton.jit
def as_float(bits):  # type: ignore[no-untyped-def]
    """Return the float32 with these bits."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def as_bits(x):  # type: ignore[no-untyped-def]
    """Return the bits of a float32 as int32."""
    return x.to(tl.int32, bitcast=True)


@triton.jit
def constant(bits, like):  # type: ignore[no-untyped-def]
    """Return the float32 with these bits, as an int32 tensor of zeros takes its shape."""
    return as_float(like * 0 + bits)


@triton.jit
def floating_steps(magnitude, MANTISSA: tl.constexpr, FIRST_NORMAL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the code of a floating magnitude, given as bits: steps within its binade, and the binades below.

    Adding a power of two whose last place is the format's last place at this magnitude counts the steps, rounded to nearest even.
    """
    power = tl.maximum(magnitude & _EXPONENT, FIRST_NORMAL)
    magic = power + ((23 - MANTISSA) << 23)
    steps = as_bits(as_float(magnitude) + as_float(magic)) - magic
    return ((power - FIRST_NORMAL) >> (23 - MANTISSA)) + steps


@triton.jit
def floating_level(magnitude, MANTISSA: tl.constexpr, FIRST_NORMAL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the level that a floating magnitude, given as bits, is rounded to, as float32."""
    magic = as_float(tl.maximum(magnitude & _EXPONENT, FIRST_NORMAL) + ((23 - MANTISSA) << 23))
    return (as_float(magnitude) + magic) - magic


@triton.jit
def _logarithmic(magnitude, STEPS: tl.constexpr, FIRST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return how many steps below 1 a magnitude's nearest level in the log domain lies, and whether it is not zero instead."""
    if STEPS == 1:
        below = 127 - ((magnitude + _TO_OCTAVE) >> 23)
    else:
        moved = magnitude + _TO_HALF_OCTAVE
        below = (127 - (moved >> 23)) * 2 - ((moved & _MANTISSA) >= _HALF_OCTAVE).to(tl.int32)
    return below, magnitude >= FIRST


@triton.jit
def _level_by_table(q, thresholds, level_codes, KIND: tl.constexpr, THRESHOLDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the code of the last level whose threshold a number reaches."""
    level = tl.zeros_like(as_bits(q))
    half: tl.constexpr = (THRESHOLDS + 1) // 2
    if KIND == FEW:
        level = _level_of_few(q, thresholds)
    else:
        for i in tl.static_range(16):
            if (half >> i) > 0:
                level += tl.where(q >= tl.load(thresholds + level + ((half >> i) - 1)), half >> i, 0)
    return tl.load(level_codes + level)


@triton.jit
def _level_of_few(q, thresholds):  # type: ignore[no-untyped-def]
    """Return the last level whose threshold, of 15, a number reaches: bisected, the thresholds chosen among registers."""
    first = q >= tl.load(thresholds + 7)
    second = q >= tl.where(first, tl.load(thresholds + 11), tl.load(thresholds + 3))
    upper = tl.where(second, tl.load(thresholds + 13), tl.load(thresholds + 9))
    third = q >= tl.where(first, upper, tl.where(second, tl.load(thresholds + 5), tl.load(thresholds + 1)))
    highest = tl.where(third, tl.load(thresholds + 14), tl.load(thresholds + 12))
    higher = tl.where(third, tl.load(thresholds + 10), tl.load(thresholds + 8))
    lower = tl.where(third, tl.load(thresholds + 6), tl.load(thresholds + 4))
    lowest = tl.where(third, tl.load(thresholds + 2), tl.load(thresholds))
    fourth = q >= tl.where(first, tl.where(second, highest, higher), tl.where(second, lower, lowest))
    return tl.where(first, 8, 0) + tl.where(second, 4, 0) + tl.where(third, 2, 0) + fourth.to(tl.int32)


@triton.jit
def encoded(  # type: ignore[no-untyped-def]
    q, thresholds, level_codes, KIND: tl.constexpr, BITS: tl.constexpr, SIGNED: tl.constexpr, MANTISSA: tl.constexpr,
    FIRST_NORMAL: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, FIRST: tl.constexpr, ZERO: tl.constexpr,
    NEGATIVE_ZERO: tl.constexpr, NAN: tl.constexpr, THRESHOLDS: tl.constexpr,
):  # fmt: skip
    """Return the codes, int32, of float32 numbers already divided by their scale; ``LOW``, ``HIGH`` and ``FIRST`` are bits."""
    bits = as_bits(q)
    magnitude = bits & _MAGNITUDE if SIGNED else tl.maximum(bits, 0)
    magnitude = tl.minimum(magnitude, HIGH)
    sign = (bits >> 31) & ((1 << (BITS - 1)) if SIGNED else 0)
    if KIND == UNIFORM:
        clipped = tl.minimum(tl.maximum(q, constant(LOW, bits)), constant(HIGH, bits))
        code = (as_bits(clipped + 12582912.0) + ZERO) & ((1 << BITS) - 1)  # 1.5 * 2**23 leaves no bit below the units
    elif KIND == FLOATING:
        code = floating_steps(magnitude, MANTISSA, FIRST_NORMAL)
        if ZERO == NEGATIVE_ZERO:
            sign = tl.where(code > 0, sign, 0)
        code |= sign
    elif KIND == LOGARITHMIC:
        below, above = _logarithmic(magnitude, MANTISSA, FIRST)
        level = (1 << (BITS - 1)) - 1 - below if SIGNED else below
        code = tl.where(above, level, ZERO) | sign
    else:
        code = _level_by_table(q, thresholds, level_codes, KIND, THRESHOLDS)
        if ZERO != NEGATIVE_ZERO:
            code = tl.where((code == ZERO) & (bits < 0), NEGATIVE_ZERO, code)
    if NAN >= 0:
        code = tl.where(q != q, NAN, code)
    return code
