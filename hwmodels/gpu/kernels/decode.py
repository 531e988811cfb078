"""Codes to floats in registers, by integer operations on the bits of floats, as ``decoding`` describes formats: Triton code.

Codes whose kind allows it are decoded two at a time, in the halves of 32 bits: ``lanes`` and ``finish``. All others, and tables, go
by ``decode``. No cast from a type of 8 bits or fewer is used: Triton's own differ from device to device.
"""

import triton
import triton.language as tl


@triton.jit
def lanes(  # type: ignore[no-untyped-def]
    pairs,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    P0: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """Return what tensor cores take, or nearly, for the codes in the halves or quarters of each uint32.

    In halves these are the bits of 16-bit floats, which ``finish`` makes values of. In quarters they are int8, the code at the top
    of each byte, for the kind ``top``, and float8_e4m3fn for ``whole`` (numbers up to 16 in size, times 2**-9) and ``minifloat``
    (magnitudes moved up ``P0`` places); ``as it is`` leaves bytes alone.
    """
    both: tl.constexpr = 0x10001
    four: tl.constexpr = 0x1010101
    if KIND == "as it is":
        bits = pairs
    elif KIND == "top":
        bits = (pairs ^ (P0 * four)) << (8 - BITS)
    elif KIND == "whole":
        negative = (pairs >> (BITS - 1)) & four
        # two's complement without a carry into the next byte
        bits = ((pairs ^ ((negative << BITS) - negative)) + negative) | (negative << 7)
    elif KIND == "minifloat":
        own: tl.constexpr = 1 << (BITS - 1)
        bits = ((pairs & (own * four)) << (8 - BITS)) | ((pairs & ((own - 1) * four)) << P0)
    elif KIND == "planes":
        bits = (pairs & (3 * both)) << 14  # 2 with its sign, in float16 and bfloat16 alike
    elif KIND == "integer":
        # the code in the last places of a float that is 2**MANTISSA and more
        bits = (pairs ^ (P0 * both)) | (((BIAS + MANTISSA) << MANTISSA) * both)
    else:
        own_place: tl.constexpr = BITS - 1
        magnitudes: tl.constexpr = ((1 << own_place) - 1 if SIGNED else (1 << BITS) - 1) * both
        bits = (pairs & magnitudes) << (MANTISSA - P0)
        if SIGNED:
            bits = bits | ((pairs & ((1 << own_place) * both)) << (15 - own_place))
    return bits


@triton.jit
def finish(  # type: ignore[no-untyped-def]
    halves,
    KIND: tl.constexpr,
    CARRIER: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    P1: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Return the values of the bits of ``lanes``, int16: what they are too much is taken off, or the biases are divided out.

    What ``factor`` says is left to scales. Without ``NATIVE`` bfloat16 is reckoned with in float32, which gives the same: the
    interpreter has no arithmetic of bfloat16.
    """
    narrow: tl.constexpr = CARRIER != "bfloat16" or NATIVE
    built = _half(halves, CARRIER, NATIVE)
    if KIND == "integer":
        built = built - ((1 << MANTISSA) + P1)
    elif KIND == "floating" and P1 != BIAS and CARRIER != "float16":
        built = built * 2.0 ** (BIAS - P1)  # one that is known when the kernel is compiled: no tensor of them has a layout
    return built if narrow else _carried(built, CARRIER)


@triton.jit
def _half(halves, CARRIER: tl.constexpr, NATIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the 16-bit floats that int16 are the bits of, or float32 of the same value for bfloat16 that is not ``NATIVE``."""
    if CARRIER == "float16":
        return halves.to(tl.float16, bitcast=True)
    elif NATIVE:
        return halves.to(tl.bfloat16, bitcast=True)
    else:
        return (halves.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def decode(  # type: ignore[no-untyped-def]
    codes,
    table,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    CARRIER: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """Return the values of int32 codes of any shape in the type called ``CARRIER``, of which the table is made too."""
    if KIND == "table":
        # the compiler need not think of codes below zero where it makes addresses
        values = tl.load(table + codes.to(tl.uint32, bitcast=True).to(tl.int64))
    else:
        if KIND == "planes":
            built = as_float(_planes(codes, MANTISSA, BIAS), MANTISSA)
        elif KIND == "integer":
            # the code in the last places of a float that is 2**MANTISSA and more, from which that is taken off again
            built = as_float((codes ^ P0) | ((BIAS + MANTISSA) << MANTISSA), MANTISSA) - ((1 << MANTISSA) + P1)
        elif KIND == "floating":
            built = _floating(codes, BITS, MANTISSA, BIAS, P0, P1, P2, SIGNED)
        else:
            built = as_float(_power(codes, BITS, MANTISSA, BIAS, P0, P1, P2, SIGNED), MANTISSA)
        values = _carried(built, CARRIER)
    return values


@triton.jit
def as_float(bits, MANTISSA: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the float16 or float32, by its number of mantissa bits, that the low bits of int32 are."""
    if MANTISSA == 10:
        return bits.to(tl.int16).to(tl.float16, bitcast=True)
    else:
        return bits.to(tl.float32, bitcast=True)


@triton.jit
def _carried(built, CARRIER: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return float32 as the carrier, which holds it exactly: bfloat16 is the upper half of its bits."""
    if CARRIER == "bfloat16":
        return (built.to(tl.int32, bitcast=True) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    elif CARRIER == "float16":
        return built.to(tl.float16)
    else:
        return built


@triton.jit
def _planes(codes, MANTISSA: tl.constexpr, BIAS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the bits of 1 where bit 0 is set, with bit 1 as the sign."""
    width: tl.constexpr = 31 if MANTISSA == 23 else 15
    return ((codes & 1) * (BIAS << MANTISSA)) | ((codes >> 1) << width)


@triton.jit
def _floating(  # type: ignore[no-untyped-def]
    codes,
    BITS: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    OWN_MANTISSA: tl.constexpr,
    OWN_BIAS: tl.constexpr,
    INFINITY: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """Return the float with the code's fields, times the power of two by which the biases differ."""
    sign_place: tl.constexpr = 31 if MANTISSA == 23 else 15
    own_place: tl.constexpr = BITS - 1
    magnitude = codes & ((1 << own_place) - 1) if SIGNED else codes
    sign = (codes >> own_place) << sign_place if SIGNED else codes * 0
    value = as_float(sign | (magnitude << (MANTISSA - OWN_MANTISSA)), MANTISSA)
    if OWN_BIAS != BIAS:
        # the product must not be widened, so the factor is built as a float of the same type
        value = value * as_float(tl.full(codes.shape, (2 * BIAS - OWN_BIAS) << MANTISSA, tl.int32), MANTISSA)
        if INFINITY >= 0:
            infinite = as_float(sign | ((2 * BIAS + 1) << MANTISSA), MANTISSA)
            value = tl.where(magnitude == INFINITY, infinite, value)
    return value


@triton.jit
def _power(  # type: ignore[no-untyped-def]
    codes,
    BITS: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    FIRST: tl.constexpr,
    STEP: tl.constexpr,
    ZERO: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """Return the bits of the power of two whose exponent is ``FIRST + STEP * magnitude``, or of zero, with the sign."""
    sign_place: tl.constexpr = 31 if MANTISSA == 23 else 15
    own_place: tl.constexpr = BITS - 1
    magnitude = codes & ((1 << own_place) - 1) if SIGNED else codes
    bits = (magnitude * STEP + (FIRST + BIAS)) << MANTISSA
    if ZERO >= 0:
        bits = tl.where(magnitude == ZERO, 0, bits)
    if SIGNED:
        bits = bits | ((codes >> own_place) << sign_place)
    return bits
