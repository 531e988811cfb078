"""Encode: every kind's loop from float32 to codes; each returns the largest magnitude among the quotients, as bits."""

import numpy as np

from formats.compiled import compiled
from formats.kernels.elements import (
    INFINITY,
    MAGNITUDE,
    PLACES,
    float_bits,
    floating_code,
    half_octave_bits,
    octave_bits,
    positive_bits,
    shortened_bits,
    steps_below_one,
    uniform_code,
)
from formats.kernels.few import encode_few
from formats.kernels.parameters import FLOATING, SHORTENED, TABLE, UNIFORM
from formats.kernels.pieces import BLOCK, first_scale, piece_end, scale_at, shares_one_scale, spread_scales
from formats.kernels.stochastic import stochastic_levels
from formats.kernels.table import table_codes


@compiled
def _uniform(x, scale, p, codes):  # type: ignore[no-untyped-def]
    low, high, mask = p.low, p.high, np.int32((1 << p.bits) - 1)
    zero = np.int32(p.zero)
    worst = np.int32(0)
    for i in range(len(x)):
        q = x[i] / scale_at(scale, i)
        worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
        codes[i] = uniform_code(min(max(q, low), high), zero, mask)
    return worst


@compiled
def _sign_place(p):  # type: ignore[no-untyped-def]
    """Return the bit that holds a code's sign, or 0."""
    return np.int32(1 << (p.bits - 1)) if p.signed else np.int32(0)


@compiled
def _floating(x, scale, p, codes):  # type: ignore[no-untyped-def]
    mask = MAGNITUDE if p.signed else np.int32(-1)
    high, sign_place = float_bits(p.high), _sign_place(p)
    dropped = np.int32(23 - p.mantissa_bits)
    first_normal = np.int32((p.minimum_exponent + 127) << 23)
    dropped_exponent = np.int32(dropped << 23)
    # codes of magnitudes up to this one take the sign: all but zero where it has but one code
    signless = np.int32(0) if p.zero == p.negative_zero else np.int32(-1)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        worst = max(worst, np.int32(bits & MAGNITUDE))
        code = floating_code(min(positive_bits(bits, mask), high), first_normal, dropped_exponent, dropped)
        sign = np.int32(np.int32(bits >> PLACES) & sign_place)
        codes[i] = code | (sign if code > signless else np.int32(0))
    return worst


@compiled
def _shortened(x, scale, p, codes):  # type: ignore[no-untyped-def]
    mask = MAGNITUDE if p.signed else np.int32(-1)
    high, sign_place = float_bits(p.high), _sign_place(p)
    dropped = np.int32(23 - p.mantissa_bits)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        worst = max(worst, np.int32(bits & MAGNITUDE))
        level = shortened_bits(min(positive_bits(bits, mask), high), dropped)
        codes[i] = np.int32(level >> (dropped & PLACES)) | np.int32(np.int32(bits >> PLACES) & sign_place)
    return worst


@compiled
def _logarithmic(x, scale, p, codes):  # type: ignore[no-untyped-def]
    mask = MAGNITUDE if p.signed else np.int32(-1)
    high, first, sign_place = float_bits(p.high), float_bits(p.first), _sign_place(p)
    steps = np.int32(p.mantissa_bits)
    octaves = p.mantissa_bits == 1
    # a signed format counts up from its smallest level, an unsigned one down from its largest
    start, direction = (np.int32((1 << (p.bits - 1)) - 1), np.int32(-1)) if p.signed else (np.int32(0), np.int32(1))
    zero = np.int32(p.zero)
    worst = np.int32(0)
    for i in range(len(x)):
        bits = float_bits(x[i] / scale_at(scale, i))
        worst = max(worst, np.int32(bits & MAGNITUDE))
        magnitude = min(positive_bits(bits, mask), high)
        level = octave_bits(magnitude, first) if octaves else half_octave_bits(magnitude, first)
        code = zero if level == 0 else np.int32(start + np.int32(direction * steps_below_one(level, steps)))
        codes[i] = code | np.int32(np.int32(bits >> PLACES) & sign_place)
    return worst


@compiled
def _with_nan(x, p, codes):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        if x[i] != x[i]:
            codes[i] = p.nan


@compiled
def encode_closed(x, scale, p, codes):  # type: ignore[no-untyped-def]
    """Encode a piece by the format's closed form."""
    if p.kind == UNIFORM:
        worst = _uniform(x, scale, p, codes)
    elif p.kind == FLOATING:
        worst = _floating(x, scale, p, codes)
    elif p.kind == SHORTENED:
        worst = _shortened(x, scale, p, codes)
    else:
        worst = _logarithmic(x, scale, p, codes)
    if worst > INFINITY and p.nan >= 0:
        _with_nan(x, p, codes)
    return worst


@compiled
def encode_general(x, first, scale, p, t, block, codes):  # type: ignore[no-untyped-def]
    """Encode a piece by thresholds or at random; its first element has the index ``first``, ``block`` takes as many levels."""
    if p.stochastic:
        worst = stochastic_levels(x, first, scale, p, t, block)
        levels, one = block[: len(x)], np.float32(1)
        if p.kind == TABLE:
            table_codes(levels, one, p, t, np.empty(len(x), np.float32), codes)
        else:
            encode_closed(levels, one, p, codes)
    elif p.few:
        worst = encode_few(x, scale, t, codes)
    else:
        worst = table_codes(x, scale, p, t, block, codes)
    if worst > INFINITY and p.nan >= 0:
        _with_nan(x, p, codes)
    return worst


@compiled
def encode(x, scales, repeat, p, t, offset, start, stop, codes):  # type: ignore[no-untyped-def]
    """Encode ``x[start:stop]`` into ``codes[start:stop]`` and return whether any is NaN.

    For random numbers ``x[0]`` is element ``offset``.
    """
    block = np.empty(BLOCK, np.float32)
    spread = np.empty(BLOCK, np.float32)
    worst = np.int32(0)
    begin = start
    while begin < stop:
        end = piece_end(p, len(scales), repeat, offset, begin, stop)
        source, target = x[begin:end], codes[begin:end]
        if shares_one_scale(scales, repeat, begin, end):
            scale = first_scale(scales, repeat, begin)
            if p.closed:
                worst = max(worst, encode_closed(source, scale, p, target))
            else:
                worst = max(worst, encode_general(source, offset + begin, scale, p, t, block, target))
        else:
            part = spread[: end - begin]
            spread_scales(scales, repeat, begin, part)
            if p.closed:
                worst = max(worst, encode_closed(source, part, p, target))
            else:
                worst = max(worst, encode_general(source, offset + begin, part, p, t, block, target))
        begin = end
    return 1 if worst > INFINITY else 0
