"""Tiles of weights out of packed rows, in registers.

Codes of b bits fill whole words of 32 bits every 32 / gcd(32, b) codes: a *unit*. A sum over the depth may be taken in any order,
so tiles are not in that of the rows but in the order (place, unit, part), where the depth is ``UNIT * unit + UNIT // PARTS * part +
place``: the codes of one place are what one 32-bit register holds for the tensor cores, two halves or four quarters. For 2, 4 and 8
bits these are the same bits of each half or quarter of one word. So what a thread loads is what it multiplies, every shift is known
when the kernel is compiled, and no weight passes through shared memory once it is decoded. ``spread`` brings activations, which are
few, into the same order.
"""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.decode import decode, finish, lanes
from hwmodels.gpu.kernels.lookup import lookup_tile
from hwmodels.gpu.kernels.packing import unit

#: ``packing.unit``, where kernels are compiled
codes_of_unit = triton.constexpr_function(unit)
#: kind of codes that stay what they are
CODES = tl.constexpr("codes")


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
    TABLE: tl.constexpr = 0,
):
    """Return the values of the codes ``start`` … ``start + COUNT - 1`` of each row, of shape (rows, COUNT), in the order of tiles.

    ``row`` points to the first 32-bit word of each row, of shape (rows, 1); ``start`` and ``COUNT`` are whole units. The other
    constants are those of ``decode.paired_arguments``, and whether bfloat16 has arithmetic; ``TABLE`` is that of ``lookup_tile``.
    """
    if KIND == "lookup":
        words = _words(row, start, BITS, COUNT)
        values = finish(lookup_tile(words[0], TABLE, NATIVE), KIND, CARRIER, MANTISSA, BIAS, P1, NATIVE)
    elif PAIRED:
        halves = register_tile(row, start, BITS, COUNT, 2, KIND, MANTISSA, BIAS, P0, SIGNED)
        values = finish(halves, KIND, CARRIER, MANTISSA, BIAS, P1, NATIVE)
    else:
        codes = register_tile(row, start, BITS, COUNT, 2, CODES, 0, 0, 0, False)
        values = decode(codes, table, KIND, BITS, CARRIER, MANTISSA, BIAS, P0, P1, P2, SIGNED)
    return values


@triton.jit
def spread(x, BITS: tl.constexpr, PARTS: tl.constexpr, KIND: tl.constexpr = CODES):  # type: ignore[no-untyped-def]
    """Return a tile of activations, (rows, depth), with its depth in the order of tiles of codes of ``BITS`` bits.

    Of the kind ``lookup``, codes of one place follow each other.
    """
    rows: tl.constexpr = x.shape[0]
    depth: tl.constexpr = x.shape[1]
    size: tl.constexpr = codes_of_unit(BITS)
    if size == PARTS:
        found = x
    elif KIND == "lookup":
        units = tl.reshape(x, (rows, depth // size, size // PARTS, PARTS))
        found = tl.reshape(tl.permute(units, (0, 2, 1, 3)), (rows, depth))
    else:
        units = tl.reshape(x, (rows, depth // size, PARTS, size // PARTS))
        found = tl.reshape(tl.permute(units, (0, 3, 1, 2)), (rows, depth))
    return found


@triton.jit
def register_tile(  # type: ignore[no-untyped-def]
    row, start, BITS: tl.constexpr, COUNT: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr, P0: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    """Return what ``lanes`` makes of the codes of a tile, int16 in two parts or uint8 in four; for the kind ``codes`` int32 codes.

    The tile has the shape (rows, COUNT) and is in the order of tiles.
    """
    words = _words(row, start, BITS, COUNT)
    rows: tl.constexpr = words[0].shape[0]
    places_each: tl.constexpr = codes_of_unit(BITS) // PARTS
    if places_each == 1:
        places = _one(words, 0, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED)
    elif places_each == 2:
        places = tl.permute(_two(words, 0, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED), (0, 3, 1, 2))
    elif places_each == 4:
        places = tl.permute(_four(words, 0, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED), (0, 4, 3, 1, 2))
    elif places_each == 8:
        places = tl.permute(_eight(words, 0, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED), (0, 5, 4, 3, 1, 2))
    else:
        first = _eight(words, 0, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED)
        second = _eight(words, 8, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED)
        places = tl.permute(tl.join(first, second), (0, 6, 5, 4, 3, 1, 2))
    return tl.reshape(places, (rows, COUNT))


@triton.jit
def _words(row, start, BITS: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the words of each unit, a tuple of uint32 of shape (rows, units)."""
    size: tl.constexpr = codes_of_unit(BITS)
    each: tl.constexpr = size * BITS // 32
    place = row + (start // size + tl.arange(0, COUNT // size)[None, :]) * each
    words = (_word(place),)
    if each >= 3:
        words = (words[0], _word(place + 1), _word(place + 2))  # type: ignore[assignment]
    if each >= 5:
        words = (words[0], words[1], words[2], _word(place + 3), _word(place + 4))  # type: ignore[assignment,misc]
    if each == 7:
        last = _word(place + 5), _word(place + 6)
        words = (words[0], words[1], words[2], words[3], words[4], last[0], last[1])  # type: ignore[assignment,misc]
    return words


@triton.jit
def _word(place):  # type: ignore[no-untyped-def]
    return tl.load(place).to(tl.uint32, bitcast=True)


@triton.jit
def _eight(  # type: ignore[no-untyped-def]
    words, PLACE: tl.constexpr, BITS: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr, P0: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    first = _four(words, PLACE, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED)
    return tl.join(first, _four(words, PLACE + 4, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED))


@triton.jit
def _four(  # type: ignore[no-untyped-def]
    words, PLACE: tl.constexpr, BITS: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr, P0: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    first = _two(words, PLACE, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED)
    return tl.join(first, _two(words, PLACE + 2, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED))


@triton.jit
def _two(  # type: ignore[no-untyped-def]
    words, PLACE: tl.constexpr, BITS: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr, P0: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    first = _one(words, PLACE, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED)
    return tl.join(first, _one(words, PLACE + 1, BITS, PARTS, KIND, MANTISSA, BIAS, P0, SIGNED))


@triton.jit
def _one(  # type: ignore[no-untyped-def]
    words, PLACE: tl.constexpr, BITS: tl.constexpr, PARTS: tl.constexpr,
    KIND: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr, P0: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    """Return the parts of one place of each unit, of shape (rows, units, PARTS)."""
    step: tl.constexpr = codes_of_unit(BITS) // PARTS
    if BITS == 8 or BITS == 4 or BITS == 2:
        every: tl.constexpr = 0x10001 if PARTS == 2 else 0x1010101
        codes = (words[0] >> (PLACE * BITS)) & (((1 << BITS) - 1) * every)
    elif PARTS == 2:
        codes = _code(words, PLACE, BITS) | (_code(words, PLACE + step, BITS) << 16)
    else:
        lower = _code(words, PLACE, BITS) | (_code(words, PLACE + step, BITS) << 8)
        codes = lower | (_code(words, PLACE + 2 * step, BITS) << 16) | (_code(words, PLACE + 3 * step, BITS) << 24)
    if KIND == CODES:
        parts = tl.join((codes & 0xFFFF).to(tl.int32, bitcast=True), (codes >> 16).to(tl.int32, bitcast=True))
    else:
        bits = lanes(codes, KIND, BITS, MANTISSA, BIAS, P0, SIGNED)
        if PARTS == 2:
            parts = tl.join(bits.to(tl.int16), (bits >> 16).to(tl.int16))
        else:
            even = tl.join(bits.to(tl.uint8), (bits >> 16).to(tl.uint8))
            odd = tl.join((bits >> 8).to(tl.uint8), (bits >> 24).to(tl.uint8))
            parts = tl.reshape(tl.join(even, odd), (bits.shape[0], bits.shape[1], 4))
    return parts


@triton.jit
def _code(words, PLACE: tl.constexpr, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return one code of each unit, uint32."""
    word: tl.constexpr = PLACE * BITS // 32
    shift: tl.constexpr = PLACE * BITS % 32
    held = words[word] >> shift
    if shift + BITS > 32:
        held = held | (words[word + 1] << (32 - shift))
    return held & ((1 << BITS) - 1)
