"""Tiles of weights out of packed rows, in registers: eight codes of any width are whole bytes, read as the words they lie in."""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.decode import decode, finish, lanes


@triton.jit
def weight_tile(  # type: ignore[no-untyped-def]
    row,
    start,
    table,
    COUNT: tl.constexpr,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    CARRIER: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    SIGNED: tl.constexpr,
    PAIRED: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Return the values of the codes ``start`` … ``start + COUNT - 1`` of each row, of shape (rows, COUNT).

    ``row`` points to the first 32-bit word of each row, of shape (rows, 1); ``start`` and ``COUNT`` are multiples of 8. The other
    constants are those of ``decode.paired_arguments``, and whether bfloat16 has arithmetic.
    """
    if PAIRED:
        values = _paired_tile(row, start, COUNT, KIND, BITS, CARRIER, MANTISSA, BIAS, P0, P1, SIGNED, NATIVE)
    else:
        codes = code_tile(row, start, BITS, COUNT)
        values = decode(codes, table, KIND, BITS, CARRIER, MANTISSA, BIAS, P0, P1, P2, SIGNED)
    return values


@triton.jit
def _paired_tile(  # type: ignore[no-untyped-def]
    row,
    start,
    COUNT: tl.constexpr,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    CARRIER: tl.constexpr,
    MANTISSA: tl.constexpr,
    BIAS: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    SIGNED: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Return the values of codes that are decoded two at a time: of eight the first with the fifth, and so on."""
    octet = start // 8 + tl.arange(0, COUNT // 8)[None, :]
    low, high = _octets(row, octet, BITS)
    first = lanes(_pair(low, high, 0, BITS), KIND, BITS, MANTISSA, BIAS, P0, SIGNED)
    second = lanes(_pair(low, high, 1, BITS), KIND, BITS, MANTISSA, BIAS, P0, SIGNED)
    third = lanes(_pair(low, high, 2, BITS), KIND, BITS, MANTISSA, BIAS, P0, SIGNED)
    fourth = lanes(_pair(low, high, 3, BITS), KIND, BITS, MANTISSA, BIAS, P0, SIGNED)
    even = tl.interleave(
        tl.interleave(first.to(tl.int16), (first >> 16).to(tl.int16)),
        tl.interleave(third.to(tl.int16), (third >> 16).to(tl.int16)),
    )
    odd = tl.interleave(
        tl.interleave(second.to(tl.int16), (second >> 16).to(tl.int16)),
        tl.interleave(fourth.to(tl.int16), (fourth >> 16).to(tl.int16)),
    )
    return finish(tl.interleave(even, odd), KIND, CARRIER, MANTISSA, BIAS, P1, NATIVE)


@triton.jit
def _pair(low, high, PLACE: tl.constexpr, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return one of the first four codes and the one four further on in the halves of a uint32."""
    nearer = _code(low, high, PLACE, BITS).to(tl.uint32, bitcast=True)
    return nearer | (_code(low, high, PLACE + 4, BITS).to(tl.uint32, bitcast=True) << 16)


@triton.jit
def code_tile(row, start, BITS: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the codes ``start`` … ``start + COUNT - 1`` of each row, int32 of shape (rows, COUNT); see ``weight_tile``."""
    octet = start // 8 + tl.arange(0, COUNT // 8)[None, :]
    low, high = _octets(row, octet, BITS)
    even = tl.interleave(
        tl.interleave(_code(low, high, 0, BITS), _code(low, high, 4, BITS)),
        tl.interleave(_code(low, high, 2, BITS), _code(low, high, 6, BITS)),
    )
    odd = tl.interleave(
        tl.interleave(_code(low, high, 1, BITS), _code(low, high, 5, BITS)),
        tl.interleave(_code(low, high, 3, BITS), _code(low, high, 7, BITS)),
    )
    return tl.interleave(even, odd)


@triton.jit
def _octets(row, octet, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the first and second 32 bits of eight codes each, uint32; the second is the first at 4 bits or fewer."""
    byte = octet * BITS
    place = row + byte // 4
    first = tl.load(place).to(tl.uint32, bitcast=True)
    if BITS == 4:
        low, high = first, first
    elif BITS == 2:
        low = first >> ((byte % 4) * 8).to(tl.uint32)
        high = low
    elif BITS == 8:
        low, high = first, tl.load(place + 1).to(tl.uint32, bitcast=True)
    else:
        shift = ((byte % 4) * 8).to(tl.uint32)
        second = tl.load(place + 1).to(tl.uint32, bitcast=True)
        low = _funnel(first, second, shift)
        high = _funnel(second, tl.load(place + 2).to(tl.uint32, bitcast=True), shift) if BITS == 7 else second >> shift
    return low, high


@triton.jit
def _funnel(low, high, shift):  # type: ignore[no-untyped-def]
    """Return 32 bits of the 64 that begin ``shift`` bits up; in two steps, since a shift by 32 has no meaning."""
    return (low >> shift) | ((high << 1) << (31 - shift))


@triton.jit
def _code(low, high, PLACE: tl.constexpr, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return one of eight codes."""
    start: tl.constexpr = PLACE * BITS
    if start + BITS <= 32:
        held = low >> start
    elif start >= 32:
        held = high >> (start - 32)
    else:
        held = (low >> start) | (high << (32 - start))
    return (held & ((1 << BITS) - 1)).to(tl.int32, bitcast=True)
