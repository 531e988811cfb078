"""Quantize: every kind's loop from float32 to float32.

Each returns the largest magnitude among the quotients, as bits: NaN is above infinity there, and a maximum costs less than a
count. NaN stays NaN, in whatever format.
"""

import numpy as np

from formats.compiled import compiled
from formats.kernels.elements import (
    INFINITY,
    MAGNITUDE,
    SIGN,
    as_float,
    float_bits,
    floating_bits,
    half_octave_bits,
    octave_bits,
    positive_bits,
    shortened_bits,
    uniform_level,
)
from formats.kernels.few import quantize_few
from formats.kernels.parameters import FLOATING, SHORTENED, UNIFORM
from formats.kernels.pieces import BLOCK, first_scale, piece_end, scale_at, shares_one_scale, spread_scales
from formats.kernels.stochastic import stochastic_levels
from formats.kernels.table import table_levels


@compiled
def _uniform(x, scale, p, out):  # type: ignore[no-untyped-def]
    low, high = p.low, p.high
    worst = np.int32(0)
    for i in range(len(x)):
        q = x[i] / scale_at(scale, i)
        worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
        c = low if q < low else q  # compared this way round, NaN stays
        c = high if c > high else c
        out[i] = uniform_level(c) * scale_at(scale, i)
    return worst


@compiled
def signs(p):  # type: ignore[no-untyped-def]
    """Return the mask of the bits that make the magnitude, the mask of the sign, and what is added to levels.

    Adding +0 turns -0 into +0, for formats that have but one zero; adding -0 changes nothing.
    """
    zero = np.float32(0.0) if p.zero == p.negative_zero else np.float32(-0.0)
    return MAGNITUDE if p.signed else np.int32(-1), SIGN if p.signed else np.int32(0), zero


@compiled
def _floating(x, scale, p, out):  # type: ignore[no-untyped-def]
    mask, sign, zero = signs(p)
    high = float_bits(p.high)
    first_normal = np.int32((p.minimum_exponent + 127) << 23)
    dropped_exponent = np.int32((23 - p.mantissa_bits) << 23)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        magnitude = np.int32(bits & MAGNITUDE)
        worst = max(worst, magnitude)
        level = floating_bits(min(positive_bits(bits, mask), high), first_normal, dropped_exponent)
        kept = magnitude if magnitude > INFINITY else level
        out[i] = (as_float(kept | np.int32(bits & sign)) + zero) * scale_at(scale, i)
    return worst


@compiled
def _shortened(x, scale, p, out):  # type: ignore[no-untyped-def]
    mask, sign, zero = signs(p)
    high = float_bits(p.high)
    dropped = np.int32(23 - p.mantissa_bits)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        magnitude = np.int32(bits & MAGNITUDE)
        worst = max(worst, magnitude)
        level = shortened_bits(min(positive_bits(bits, mask), high), dropped)
        kept = magnitude if magnitude > INFINITY else level
        out[i] = (as_float(kept | np.int32(bits & sign)) + zero) * scale_at(scale, i)
    return worst


@compiled
def _octaves(x, scale, p, out):  # type: ignore[no-untyped-def]
    mask, sign, zero = signs(p)
    high, first = float_bits(p.high), float_bits(p.first)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        magnitude = np.int32(bits & MAGNITUDE)
        worst = max(worst, magnitude)
        level = octave_bits(min(positive_bits(bits, mask), high), first)
        kept = magnitude if magnitude > INFINITY else level
        out[i] = (as_float(kept | np.int32(bits & sign)) + zero) * scale_at(scale, i)
    return worst


@compiled
def _half_octaves(x, scale, p, out):  # type: ignore[no-untyped-def]
    mask, sign, zero = signs(p)
    high, first = float_bits(p.high), float_bits(p.first)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        magnitude = np.int32(bits & MAGNITUDE)
        worst = max(worst, magnitude)
        level = half_octave_bits(min(positive_bits(bits, mask), high), first)
        kept = magnitude if magnitude > INFINITY else level
        out[i] = (as_float(kept | np.int32(bits & sign)) + zero) * scale_at(scale, i)
    return worst


@compiled
def _scaled(levels, scale, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = levels[i] * scale_at(scale, i)


@compiled
def quantize_closed(x, scale, p, out):  # type: ignore[no-untyped-def]
    """Quantize a piece by the format's closed form."""
    if p.kind == UNIFORM:
        return _uniform(x, scale, p, out)
    if p.kind == FLOATING:
        return _floating(x, scale, p, out)
    if p.kind == SHORTENED:
        return _shortened(x, scale, p, out)
    if p.mantissa_bits == 1:
        return _octaves(x, scale, p, out)
    return _half_octaves(x, scale, p, out)


@compiled
def quantize_general(x, first, scale, p, t, block, out):  # type: ignore[no-untyped-def]
    """Quantize a piece by table or at random; its first element has the index ``first``, ``block`` takes as many levels."""
    worst = stochastic_levels(x, first, scale, p, t, block) if p.stochastic else table_levels(x, scale, p, t, block)
    _scaled(block, scale, out)
    return worst


@compiled
def quantize(x, scales, repeat, p, t, offset, start, stop, out):  # type: ignore[no-untyped-def]
    """Quantize ``x[start:stop]`` into ``out[start:stop]`` and return whether any is NaN.

    For random numbers ``x[0]`` is element ``offset``.
    """
    block = np.empty(BLOCK, np.float32)
    spread = np.empty(BLOCK, np.float32)
    worst = np.int32(0)
    begin = start
    while begin < stop:
        end = piece_end(p, len(scales), repeat, offset, begin, stop)
        source, target = x[begin:end], out[begin:end]
        if shares_one_scale(scales, repeat, begin, end):
            scale = first_scale(scales, repeat, begin)
            if p.closed:
                worst = max(worst, quantize_closed(source, scale, p, target))
            elif p.few:
                worst = max(worst, quantize_few(source, scale, t, target))
            else:
                worst = max(worst, quantize_general(source, offset + begin, scale, p, t, block, target))
        else:
            part = spread[: end - begin]
            spread_scales(scales, repeat, begin, part)
            if p.closed:
                worst = max(worst, quantize_closed(source, part, p, target))
            elif p.few:
                worst = max(worst, quantize_few(source, part, t, target))
            else:
                worst = max(worst, quantize_general(source, offset + begin, part, p, t, block, target))
        begin = end
    return 1 if worst > INFINITY else 0
