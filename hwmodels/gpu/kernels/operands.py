"""What kernels of matrix products share: where a tile lies, how packed codes are read, and how results are rounded.

Weights lie as (columns, depth): a row of codes for each output, packed along the depth as ``formats.pack`` packs them. They are
the left operand of the tensor cores, which may come from registers, so that codes are decoded there and the result is transposed.
"""

import triton
import triton.language as tl


@triton.jit
def tile_place(number, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return which rows and columns the tile of this number has: ``GROUP`` column tiles at a time, so that operands stay in L2."""
    tiles_m, tiles_n = tl.cdiv(rows, BLOCK_M), tl.cdiv(columns, BLOCK_N)
    group = number // (GROUP * tiles_m)
    first = group * GROUP
    size = tl.minimum(tiles_n - first, GROUP)
    within = number % (GROUP * tiles_m)
    m = (within // size) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (first + within % size) * BLOCK_N + tl.arange(0, BLOCK_N)
    return m, n


@triton.jit
def packed_codes(pointer, n, start, columns, row_bytes, BITS: tl.constexpr, BLOCK_K: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the codes ``start`` … ``start + BLOCK_K - 1`` of rows ``n``, uint8 of shape (n, BLOCK_K); ``start`` begins a byte.

    Codes of 8, 4 and 2 bits are taken apart in registers; of other widths each is cut out of the two bytes that it may lie in.
    What lies beyond a row's end is 0.
    """
    row = pointer + n.to(tl.int64)[:, None] * row_bytes
    inside = (n < columns)[:, None]
    if BITS == 8 or BITS == 4 or BITS == 2:
        place = start // (8 // BITS) + tl.arange(0, BLOCK_K * BITS // 8)
        held = tl.load(row + place[None, :], mask=inside & (place < row_bytes)[None, :], other=0)
        if BITS == 8:
            codes = held
        elif BITS == 4:
            codes = tl.interleave(held & 15, held >> 4)
        else:
            even = tl.interleave(held & 3, (held >> 4) & 3)
            odd = tl.interleave((held >> 2) & 3, held >> 6)
            codes = tl.interleave(even, odd)
    else:
        bit = (start + tl.arange(0, BLOCK_K)) * BITS
        place = bit // 8
        low = tl.load(row + place[None, :], mask=inside & (place < row_bytes)[None, :], other=0).to(tl.int32)
        high = tl.load(row + place[None, :] + 1, mask=inside & (place + 1 < row_bytes)[None, :], other=0).to(tl.int32)
        codes = (((low | (high << 8)) >> (bit % 8)[None, :]) & ((1 << BITS) - 1)).to(tl.uint8)
    return codes


@triton.jit
def as_type(x, TYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Round finite or infinite float32 to nearest even in ``TYPE``: bfloat16 by its bits, which the interpreter's cast would cut off."""
    if TYPE == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        result = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        result = x.to(TYPE)
    return result
