"""The compiled loops: divide by the scale, round, multiply back, a block that fits the first-level cache at a time.

Scales repeat along the flat array: element ``i`` has the scale ``scales[(i // repeat) % len(scales)]``. One rounding rule is
compiled for every kind of format; ``TABLE`` is the general one, the others are closed forms of ``nearest_even``.
All of it releases the interpreter lock, so that threads can share an array.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

UNIFORM, FLOATING, LOGARITHMIC, TABLE, STOCHASTIC = range(5)
BLOCK = 2048
FEW = 15

ROUND_TO_INTEGER = np.float32(1.5 * 2**23)  # adding it leaves no bit below the units, rounded to nearest even
# float32 mantissas of the powers of two with exponents 1/2, 1/4 and 3/4, each rounded up: where a log-domain step is crossed
ROOT_MANTISSA = np.int32(0x3504F4)
QUARTER_MANTISSA = np.int32(0x1837F1)
THREE_QUARTERS_MANTISSA = np.int32(0x5744FD)


class Parameters(NamedTuple):
    """What a rounding loop needs to know of a format; unused numbers are zero."""

    #: one of the kinds above
    kind: int
    #: smallest and largest level
    low: np.float32
    high: np.float32
    #: number of bits of a code
    bits: int
    #: stored mantissa bits, or steps per octave of a logarithmic format
    mantissa_bits: int
    #: exponent of the smallest normal number of a floating format
    minimum_exponent: int
    #: whether codes carry a sign
    signed: bool
    #: code of the level zero, and of minus zero (or the same)
    zero: int
    negative_zero: int
    #: code of NaN, or -1
    nan: int
    #: which random sequence stochastic rounding draws from
    seed: np.uint64


@njit(cache=True, nogil=True, error_model="numpy")
def _divide(x, start, scales, repeat, block):  # type: ignore[no-untyped-def]
    """Fill ``block`` with ``x / scale``, where ``x[0]`` is element ``start`` of the whole array; return how many are NaN."""
    position = 0
    missing = np.int32(0)
    while position < len(x):
        run = (start + position) // repeat
        end = len(x) if len(scales) == 1 else min(len(x), (run + 1) * repeat - start)
        scale = scales[run % len(scales)]
        source, target = x[position:end], block[position:end]
        for i in range(len(source)):
            quotient = source[i] / scale
            missing += np.int32(quotient != quotient)
            target[i] = quotient
        position = end
    return missing


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply(block, start, scales, repeat, out):  # type: ignore[no-untyped-def]
    """Write ``block * scale`` into ``out``, where ``out[0]`` is element ``start`` of the whole array."""
    position = 0
    while position < len(out):
        run = (start + position) // repeat
        end = len(out) if len(scales) == 1 else min(len(out), (run + 1) * repeat - start)
        scale = scales[run % len(scales)]
        source, target = block[position:end], out[position:end]
        for i in range(len(target)):
            target[i] = source[i] * scale
        position = end


@njit(cache=True, nogil=True, error_model="numpy")
def _round_uniform(block, count, parameters):  # type: ignore[no-untyped-def]
    low, high = parameters.low, parameters.high
    for i in range(count):
        clipped = min(max(block[i], low), high)
        block[i] = (clipped + ROUND_TO_INTEGER) - ROUND_TO_INTEGER


@njit(cache=True, nogil=True, error_model="numpy")
def _round_floating(block, count, parameters):  # type: ignore[no-untyped-def]
    """Add and take away a power of two whose last place is the format's last place at the element's own exponent."""
    low, high = parameters.low, parameters.high
    to_last_place = np.float32(2.0 ** (23 - parameters.mantissa_bits))
    first_normal = np.float32(2.0**parameters.minimum_exponent)
    signed = parameters.signed
    unsigned_zero = np.float32(0.0) if parameters.zero == parameters.negative_zero else np.float32(-0.0)
    for i in range(count):
        clipped = min(max(block[i], low), high)
        exponent_bits = np.int32(np.float32(clipped).view(np.int32) & np.int32(0x7F800000))
        magic = max(exponent_bits.view(np.float32), first_normal) * to_last_place
        magnitude = (abs(clipped) + magic) - magic
        # adding +0 turns -0 into +0, adding -0 changes nothing
        block[i] = np.copysign(magnitude, clipped) + unsigned_zero if signed else magnitude


@njit(cache=True, nogil=True, error_model="numpy")
def _codes_uniform(block, parameters, codes):  # type: ignore[no-untyped-def]
    mask = np.int32((1 << parameters.bits) - 1)
    for i in range(len(codes)):
        codes[i] = np.int32(block[i]) & mask


@njit(cache=True, nogil=True, error_model="numpy")
def _codes_floating(block, parameters, codes):  # type: ignore[no-untyped-def]
    """Read the code off the bits of a value that is already a level."""
    drop = np.int32(23 - parameters.mantissa_bits)
    first_normal = np.int32((parameters.minimum_exponent + 127) << 23)
    rebias = np.int32((parameters.minimum_exponent + 126) << 23)
    per_step = np.float32(2.0 ** (parameters.mantissa_bits - parameters.minimum_exponent))
    sign_place = np.int32(parameters.bits - 1)
    for i in range(len(codes)):
        bits = np.float32(block[i]).view(np.int32)
        magnitude = np.int32(bits & np.int32(0x7FFFFFFF))
        normal = np.int32((magnitude - rebias) >> drop)
        subnormal = np.int32(min(abs(block[i]), np.float32(1 << 16)) * per_step) if magnitude < first_normal else np.int32(0)
        sign = np.int32(np.int32(bits < 0) << sign_place)
        codes[i] = (normal if magnitude >= first_normal else subnormal) | sign


@njit(cache=True, nogil=True, error_model="numpy")
def _codes_logarithmic(block, parameters, codes):  # type: ignore[no-untyped-def]
    """Round the logarithm to the nearest step by comparing mantissas; what lies below the smallest level is zero."""
    steps = np.int32(parameters.mantissa_bits)
    signed = parameters.signed
    lowest = np.int32((1 << (parameters.bits - (1 if signed else 0))) - 2)  # how many steps below 1 the smallest level is
    zero = np.int32(parameters.zero)
    sign_place = np.int32(parameters.bits - 1)
    first = QUARTER_MANTISSA if steps == 2 else ROOT_MANTISSA
    second = THREE_QUARTERS_MANTISSA if steps == 2 else np.int32(0x800000)
    for i in range(len(codes)):
        bits = np.float32(block[i]).view(np.int32)
        magnitude = np.int32(bits & np.int32(0x7FFFFFFF))
        mantissa = np.int32(magnitude & np.int32(0x7FFFFF))
        step = np.int32((magnitude >> np.int32(23)) - np.int32(127)) * steps + (mantissa >= first) + (mantissa >= second)
        below = np.int32(-min(step, np.int32(0)))
        if signed:
            code = max(np.int32(lowest + np.int32(1) - below), np.int32(0))
            codes[i] = code | np.int32(np.int32(bits < 0) << sign_place)
        else:
            codes[i] = below if below <= lowest and bits >= 0 else zero


@njit(cache=True, nogil=True, error_model="numpy")
def _level(x, thresholds):  # type: ignore[no-untyped-def]
    """Count the thresholds at or below ``x`` by bisection; they are sorted, and a power of two less one in number."""
    level = 0
    half = (len(thresholds) + 1) >> 1
    while half > 0:
        level += half * (x >= thresholds[level + half - 1])
        half >>= 1
    return level


@njit(cache=True, nogil=True, error_model="numpy")
def _codes_table(block, parameters, boundaries, level_codes, codes):  # type: ignore[no-untyped-def]
    levels = np.zeros(len(codes), np.int32)
    if len(boundaries) <= FEW:  # comparing with all of them goes in vectors, bisection does not
        for threshold in boundaries:
            for i in range(len(codes)):
                levels[i] += np.int32(block[i] >= threshold)
    else:
        for i in range(len(codes)):
            levels[i] = _level(block[i], boundaries)
    for i in range(len(codes)):
        code = level_codes[levels[i]]
        codes[i] = parameters.negative_zero if code == parameters.zero and np.signbit(block[i]) else code


@njit(cache=True, nogil=True)
def _mixed(z):  # type: ignore[no-untyped-def]
    """Return splitmix64's output for one state (Steele et al., OOPSLA 2014): a hash of 64 bits."""
    z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _random(seed, index):  # type: ignore[no-untyped-def]
    """Return a number in [0, 1) that depends on the two alone; each is hashed, so that near seeds give unrelated sequences."""
    return np.float64(_mixed(_mixed(seed) ^ np.uint64(index)) >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True, error_model="numpy")
def _codes_stochastic(block, first, parameters, levels, level_codes, codes):  # type: ignore[no-untyped-def]
    """Take the level above with the probability that makes the mean exact; ``levels`` are the level values themselves."""
    for i in range(len(codes)):
        x = min(max(block[i], parameters.low), parameters.high)
        level = max(_level(x, levels) - 1, 0)
        below = np.float64(levels[level])
        if x > below:  # then x is under the highest level, and there is a level above
            share = (np.float64(x) - below) / (np.float64(levels[level + 1]) - below)
            level += _random(parameters.seed, first + i) < share
        code = level_codes[level]
        codes[i] = parameters.negative_zero if code == parameters.zero and np.signbit(block[i]) else code


@njit(cache=True, nogil=True, error_model="numpy")
def _codes(block, first, parameters, thresholds, level_codes, codes):  # type: ignore[no-untyped-def]
    """Write the codes of a block of scaled values, of which the first is element ``first`` of the whole array."""
    if parameters.kind == UNIFORM:
        _round_uniform(block, len(codes), parameters)
        _codes_uniform(block, parameters, codes)
    elif parameters.kind == FLOATING:
        _round_floating(block, len(codes), parameters)
        _codes_floating(block, parameters, codes)
    elif parameters.kind == LOGARITHMIC:
        _codes_logarithmic(block, parameters, codes)
    elif parameters.kind == STOCHASTIC:
        _codes_stochastic(block, first, parameters, thresholds, level_codes, codes)
    else:
        _codes_table(block, parameters, thresholds, level_codes, codes)


@njit(cache=True, nogil=True, error_model="numpy")
def encode(x, scales, repeat, parameters, thresholds, level_codes, start, stop, codes):  # type: ignore[no-untyped-def]
    """Encode ``x[start:stop]`` into ``codes[start:stop]`` and return how many elements are NaN."""
    block = np.empty(BLOCK, np.float32)
    missing = 0
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        found = _divide(x[position : position + count], position, scales, repeat, block)
        _codes(block, position, parameters, thresholds, level_codes, codes[position : position + count])
        if found and parameters.nan >= 0:
            for i in range(position, position + count):
                if np.isnan(x[i]):
                    codes[i] = parameters.nan
        missing += found
    return missing


@njit(cache=True, nogil=True, error_model="numpy")
def quantize(x, scales, repeat, parameters, thresholds, level_codes, table, start, stop, out):  # type: ignore[no-untyped-def]
    """Quantize ``x[start:stop]`` into ``out[start:stop]`` and return how many elements are NaN."""
    block = np.empty(BLOCK, np.float32)
    codes = np.empty(BLOCK, np.uint16)
    missing = 0
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        found = _divide(x[position : position + count], position, scales, repeat, block)
        missing += found
        if parameters.kind == UNIFORM:
            _round_uniform(block, count, parameters)
        elif parameters.kind == FLOATING:
            _round_floating(block, count, parameters)
        else:
            _codes(block, position, parameters, thresholds, level_codes, codes[:count])
            for i in range(count):
                block[i] = table[codes[i]]
        if found and parameters.nan >= 0:
            for i in range(count):
                if np.isnan(x[position + i]):
                    block[i] = np.nan
        _multiply(block, position, scales, repeat, out[position : position + count])
    return missing


@njit(cache=True, nogil=True, error_model="numpy")
def decode(codes, scales, repeat, table, start, stop, out):  # type: ignore[no-untyped-def]
    """Decode ``codes[start:stop]`` into ``out[start:stop]``."""
    block = np.empty(BLOCK, np.float32)
    for position in range(start, stop, BLOCK):
        count = min(BLOCK, stop - position)
        part = codes[position : position + count]
        for i in range(count):
            block[i] = table[part[i]]
        _multiply(block, position, scales, repeat, out[position : position + count])
