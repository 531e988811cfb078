"""Stochastic rounding: the level above with the probability that makes the mean exact, from a counter-based generator.

Element i of the array draws the i-th number of the sequence that a seed names, whatever the thread count, and rounds up where
that is below its share of the way to the next level. Numbers have 32 bits, so the mean is exact to 2**-31 of a step.
"""

import numpy as np

from formats.compiled import compiled
from formats.kernels.elements import (
    EXPONENT,
    INFINITY,
    MAGNITUDE,
    MANTISSA,
    ROOT_MANTISSA,
    SIGN,
    as_float,
    binade,
    float_bits,
    logarithmic_bits,
)
from formats.kernels.parameters import FLOATING, LOGARITHMIC, SHORTENED, UNIFORM
from formats.kernels.table import bisect, divide

TO_WHOLE = np.float32(2.0**31)


@compiled
def mixed64(z):  # type: ignore[no-untyped-def]
    """Return splitmix64's output for one state (Steele et al., OOPSLA 2014): a hash of 64 bits."""
    z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def random_bits(index, first_key, second_key):  # type: ignore[no-untyped-def]
    """Return 32 bits for an index of 32 bits: two rounds of multiply and shift (constants: Wellons, hash-prospector), each keyed.

    One round alone would make sequences of related keys shifted copies of one another.
    """
    z = np.uint32(index ^ first_key)
    z = np.uint32(np.uint32(z ^ np.uint32(z >> np.uint32(16))) * np.uint32(0x21F0AAAD))
    z = np.uint32(np.uint32(z ^ np.uint32(z >> np.uint32(15))) * np.uint32(0x735A2D97))
    z = np.uint32(np.uint32(z ^ np.uint32(z >> np.uint32(15))) + second_key)
    z = np.uint32(np.uint32(z ^ np.uint32(z >> np.uint32(16))) * np.uint32(0x7FEB352D))
    z = np.uint32(np.uint32(z ^ np.uint32(z >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(z ^ np.uint32(z >> np.uint32(16)))


@compiled
def rounds_up(share, bits):  # type: ignore[no-untyped-def]
    """Whether a number that has gone ``share`` (at least 0, below 1) of the way to the next level is rounded to that one."""
    return np.int32(bits >> np.uint32(1)) < np.int32(share * TO_WHOLE)


@compiled
def _uniform(first, keys, p, block):  # type: ignore[no-untyped-def]
    for i in range(len(block)):
        c = min(max(block[i], p.low), p.high)
        below = np.floor(c)
        up = rounds_up(np.float32(c - below), random_bits(np.uint32(first + np.uint32(i)), keys[0], keys[1]))
        block[i] = (below + np.float32(1) if up else below) + np.float32(0)  # adding +0 turns -0 into +0


@compiled
def _floating(first, keys, p, block):  # type: ignore[no-untyped-def]
    """Count in steps of the format's last place at each element's own exponent: scaling by a power of two is exact."""
    mantissa_bits = p.mantissa_bits if p.kind == FLOATING else 0
    first_normal = np.int32((p.minimum_exponent + 127) << 23)
    one_step = np.int32((127 * 2 + mantissa_bits) << 23)
    last_place = np.int32(mantissa_bits << 23)
    zero = np.float32(0.0) if p.zero == p.negative_zero else np.float32(-0.0)
    for i in range(len(block)):
        c = min(max(block[i], p.low), p.high)
        power = binade(np.int32(float_bits(c) & MAGNITUDE), first_normal)
        steps = np.float32(abs(c) * as_float(one_step - power))
        below = np.floor(steps)
        up = rounds_up(np.float32(steps - below), random_bits(np.uint32(first + np.uint32(i)), keys[0], keys[1]))
        level = (below + np.float32(1) if up else below) * as_float(power - last_place)
        block[i] = np.copysign(level, c) + zero


@compiled
def _shortened(first, keys, p, block):  # type: ignore[no-untyped-def]
    """Compare what the mantissa loses, which is the share, with as many of the bits drawn."""
    below = np.int32((1 << (23 - p.mantissa_bits)) - 1)
    zero = np.float32(0.0) if p.zero == p.negative_zero else np.float32(-0.0)
    for i in range(len(block)):
        bits = float_bits(min(max(block[i], p.low), p.high))
        drawn = np.int32(np.int32(random_bits(np.uint32(first + np.uint32(i)), keys[0], keys[1]) >> np.uint32(1)) & below)
        kept = np.int32(np.int32(bits & MAGNITUDE) & np.int32(~below))
        magnitude = np.int32(kept + below + np.int32(1)) if drawn < np.int32(bits & below) else kept
        block[i] = as_float(magnitude | np.int32(bits & SIGN)) + zero


@compiled
def _half_octaves(first, keys, p, block):  # type: ignore[no-untyped-def]
    """Levels are those that float32 carries; neighbours differ by a number that it carries too."""
    deepest = np.int32(logarithmic_bits(np.int32(p.deepest), np.int32(2)))
    zero = np.float32(0.0) if p.zero == p.negative_zero else np.float32(-0.0)
    for i in range(len(block)):
        c = min(max(block[i], p.low), p.high)
        magnitude = np.int32(float_bits(c) & MAGNITUDE)
        odd = np.int32(magnitude & MANTISSA) >= ROOT_MANTISSA
        octave = np.int32(magnitude & EXPONENT)
        half = np.int32(octave | ROOT_MANTISSA)
        lower = half if odd else octave
        upper = np.int32(octave + np.int32(1 << 23)) if odd else half
        lower, upper = (lower, upper) if magnitude >= deepest else (np.int32(0), deepest)
        share = np.float32(np.float32(abs(c) - as_float(lower)) / np.float32(as_float(upper) - as_float(lower)))
        up = rounds_up(share, random_bits(np.uint32(first + np.uint32(i)), keys[0], keys[1]))
        block[i] = np.copysign(as_float(upper if up else lower), c) + zero


@compiled
def _between_levels(first, keys, p, t, block):  # type: ignore[no-untyped-def]
    for i in range(len(block)):
        c = min(max(block[i], p.low), p.high)
        level = bisect(c, t.thresholds)
        below = np.float64(t.values[t.level_codes[level]])
        if c > below:  # then c is under the highest level, and there is a level above
            share = (np.float64(c) - below) / (np.float64(t.thresholds[level]) - below)
            level += rounds_up(share, random_bits(np.uint32(first + np.uint32(i)), keys[0], keys[1]))
        code = t.level_codes[level]
        block[i] = t.values[p.negative_zero if code == p.zero and np.signbit(c) else code]


@compiled
def stochastic_levels(x, first, scale, p, t, block):  # type: ignore[no-untyped-def]
    """Leave levels near ``x / scale`` in ``block`` and return the largest quotient's bits."""
    worst = divide(x, scale, block)
    key = mixed64(p.key ^ mixed64(np.uint64(first >> 32)))
    keys = (np.uint32(key & np.uint64(0xFFFFFFFF)), np.uint32(key >> np.uint64(32)))
    index = np.uint32(np.uint64(first) & np.uint64(0xFFFFFFFF))
    part = block[: len(x)]
    if p.kind == UNIFORM:
        _uniform(index, keys, p, part)
    elif p.kind == FLOATING or (p.kind == LOGARITHMIC and p.mantissa_bits == 1):
        _floating(index, keys, p, part)
    elif p.kind == SHORTENED:
        _shortened(index, keys, p, part)
    elif p.kind == LOGARITHMIC:
        _half_octaves(index, keys, p, part)
    else:
        _between_levels(index, keys, p, t, part)
    if worst > INFINITY:
        for i in range(len(x)):
            if x[i] != x[i]:
                block[i] = np.nan
    return worst
