"""Decode: from codes to float32."""

import numpy as np

from formats.compiled import compiled
from formats.kernels.elements import MAGNITUDE, logarithmic_bits
from formats.kernels.parameters import FLOATING, LOGARITHMIC, UNIFORM
from formats.kernels.pieces import BLOCK, first_scale, scale_at, shares_one_scale, spread_scales

#: elements of one scale that are decoded together, and again by table if one of them is irregular
LONG = 32 * BLOCK


@compiled
def decode_table(codes, scale, values, out):  # type: ignore[no-untyped-def]
    """Decode a piece by looking up the value of each code."""
    for i in range(len(codes)):
        out[i] = values[codes[i]] * scale_at(scale, i)


@compiled
def _uniform(codes, scale, p, out):  # type: ignore[no-untyped-def]
    """Decode and return whether some codes have to be decoded by table."""
    spare = np.int32(32 - p.bits if p.signed else 0)
    irregular = np.int32(p.irregular)
    nearest = MAGNITUDE
    for i in range(len(codes)):
        code = np.int32(codes[i])
        nearest = min(nearest, np.int32(code ^ irregular))
        value = np.int32(np.int32(code << (spare & np.int32(31))) >> (spare & np.int32(31)))
        out[i] = np.float32(value) * scale_at(scale, i)
    return nearest == 0


@compiled
def _floating(codes, scale, p, out):  # type: ignore[no-untyped-def]
    dropped = np.int32(23 - p.mantissa_bits)
    rebias = np.int32((p.minimum_exponent + 126) << 23)
    first_normal = np.int32(1 << p.mantissa_bits)
    step = np.float32(2.0 ** (p.minimum_exponent - p.mantissa_bits))
    mask = np.int32((1 << (p.bits - (1 if p.signed else 0))) - 1)
    to_sign = np.int32(32 - p.bits)
    irregular = np.int32(p.irregular)
    largest, nearest = np.int32(0), MAGNITUDE
    for i in range(len(codes)):
        code = np.int32(codes[i])
        magnitude = np.int32(code & mask)
        largest = max(largest, magnitude)
        nearest = min(nearest, np.int32(code ^ irregular))
        sign = np.int32(np.int32(code ^ magnitude) << (to_sign & np.int32(31)))
        normal = np.int32(np.int32(magnitude << (dropped & np.int32(31))) + rebias)
        subnormal = np.float32(np.float32(magnitude) * step).view(np.int32)
        bits = np.int32((normal if magnitude >= first_normal else subnormal) | sign)
        out[i] = bits.view(np.float32) * scale_at(scale, i)
    return largest > p.last_regular or nearest == 0


@compiled
def _logarithmic(codes, scale, p, out):  # type: ignore[no-untyped-def]
    steps = np.int32(p.mantissa_bits)
    signed = p.signed
    mask = np.int32((1 << (p.bits - (1 if signed else 0))) - 1)
    to_sign = np.int32(32 - p.bits)
    zero = np.int32(p.zero)
    for i in range(len(codes)):
        code = np.int32(codes[i])
        magnitude = np.int32(code & mask)
        sign = np.int32(np.int32(code ^ magnitude) << (to_sign & np.int32(31)))
        below = np.int32(mask - magnitude) if signed else magnitude
        bits = np.int32(0) if magnitude == zero else logarithmic_bits(below, steps)
        out[i] = np.int32(bits | sign).view(np.float32) * scale_at(scale, i)


@compiled
def decode_closed(codes, scale, p, out):  # type: ignore[no-untyped-def]
    """Decode a piece by the format's closed form; return whether it has to be done by table instead."""
    if p.decoded_kind == UNIFORM:
        return _uniform(codes, scale, p, out)
    if p.decoded_kind == FLOATING:
        return _floating(codes, scale, p, out)
    if p.decoded_kind == LOGARITHMIC:
        _logarithmic(codes, scale, p, out)
        return False
    return True


@compiled
def decode(codes, scales, repeat, p, t, offset, start, stop, out):  # type: ignore[no-untyped-def]
    """Decode ``codes[start:stop]`` into ``out[start:stop]``; returns 0, and has the arguments of ``quantize``."""
    spread = np.empty(BLOCK, np.float32)
    size = LONG if len(scales) == 1 else BLOCK
    for begin in range(start, stop, size):
        end = min(begin + size, stop)
        source, target = codes[begin:end], out[begin:end]
        if shares_one_scale(scales, repeat, begin, end):
            scale = first_scale(scales, repeat, begin)
            if decode_closed(source, scale, p, target):
                decode_table(source, scale, t.values, target)
        else:
            part = spread[: end - begin]
            spread_scales(scales, repeat, begin, part)
            if decode_closed(source, part, p, target):
                decode_table(source, part, t.values, target)
    return 0
