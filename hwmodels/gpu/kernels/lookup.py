"""Tables of sixteen 16-bit numbers, looked up in registers: eight codes of a word at a time, by choosing bytes.

Each half of a word holds four codes, and a code is what an instruction that permutes bytes takes to choose one of eight. So the
lower and the upper bytes of the first and of the last eight entries are chosen for four codes at once; the codes' highest bits say
which of the two are meant.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice


@triton.jit
def lookup_tile(words, TABLE: tl.constexpr, NATIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the entries for the codes in uint32 of shape (rows, units), int16 of shape (rows, 8 * units).

    ``TABLE`` is what ``packed_table`` gives. Codes that follow each other are neighbours: the tile is in the order (place, unit,
    half), the depth being ``8 * unit + 2 * place + half``.
    """
    codes = words.to(tl.int32, bitcast=True)
    first, second = _four(codes, TABLE, NATIVE)
    third, fourth = _four(codes >> 16, TABLE, NATIVE)
    places = tl.join(tl.join(_halves(first), _halves(third)), tl.join(_halves(second), _halves(fourth)))
    return tl.reshape(tl.permute(places, (0, 3, 4, 1, 2)), (words.shape[0], words.shape[1] * 8))


@triton.jit
def _halves(pairs):  # type: ignore[no-untyped-def]
    """Return the lower and the upper half of int32, int16 of shape (rows, units, 2)."""
    return tl.join(pairs.to(tl.int16), (pairs >> 16).to(tl.int16))


@triton.jit
def _four(codes, TABLE: tl.constexpr, NATIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the entries of the first and second, and of the third and fourth code in the lower 16 bits, in the halves of int32."""
    # all ones in each byte whose code is one of the last eight
    last = byte_perm(_constant(codes, 0), _constant(codes, -1), (codes >> 1) & 0x4444, NATIVE)
    lower = _bytes(codes, last, TABLE, NATIVE)
    upper = _bytes(codes, last, TABLE >> 128, NATIVE)
    pairs = byte_perm(lower, upper, _constant(codes, 0x5140), NATIVE)
    return pairs, byte_perm(lower, upper, _constant(codes, 0x7362), NATIVE)


@triton.jit
def _bytes(codes, last, BYTES: tl.constexpr, NATIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return one of sixteen bytes for each of four codes."""
    first = byte_perm(_constant(codes, BYTES), _constant(codes, BYTES >> 32), codes, NATIVE)
    second = byte_perm(_constant(codes, BYTES >> 64), _constant(codes, BYTES >> 96), codes, NATIVE)
    return (first & ~last) | (second & last)


@triton.jit
def _constant(like, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the int32 that the lowest 32 bits are, in the shape of a tensor."""
    return tl.full(like.shape, ((BITS & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000, tl.int32)


@triton.jit
def byte_perm(x, y, selectors, NATIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return int32 whose bytes are those of x (0 to 3) and y (4 to 7) that the low three bits of four nibbles choose.

    Without ``NATIVE``, as in the interpreter, shifts do what is one instruction.
    """
    if NATIVE:
        return libdevice.byte_perm(x, y, selectors)
    else:
        chosen = tl.zeros(x.shape, tl.int32)
        for place in tl.static_range(4):
            selector = (selectors >> (4 * place)) & 7
            held = tl.where(selector < 4, x, y) >> (8 * (selector & 3))
            chosen = chosen | ((held & 0xFF) << (8 * place))
        return chosen
