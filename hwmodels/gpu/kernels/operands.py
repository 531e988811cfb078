"""What kernels of matrix products share: where a tile lies, and how packed codes are read.

Weights lie as (columns, depth): a row of codes for each output, packed along the depth as ``formats.pack`` packs them. They are
the left operand of the tensor cores, which may come from registers, so that codes are decoded there and the result is transposed.
"""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.code_tile import code_tile


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
    """Return the codes ``start`` … ``start + BLOCK_K - 1`` of rows ``n`` as ``packing.packed_rows`` packs them, uint8 (n, BLOCK_K).

    Codes of 8, 4 and 2 bits are taken apart byte by byte, and stay bytes; others come out of words. Rows are filled up, so that
    nothing is masked: ``BLOCK_K`` divides ``packing.FILLED``, ``start`` is a multiple of it.
    """
    row = pointer + tl.minimum(n, columns - 1).to(tl.int64)[:, None] * row_bytes
    if BITS == 8 or BITS == 4 or BITS == 2:
        held = tl.load(row + (start // (8 // BITS) + tl.arange(0, BLOCK_K * BITS // 8))[None, :])
        if BITS == 8:
            codes = held
        elif BITS == 4:
            codes = tl.interleave(held & 15, held >> 4)
        else:
            even = tl.interleave(held & 3, (held >> 4) & 3)
            odd = tl.interleave((held >> 2) & 3, held >> 6)
            codes = tl.interleave(even, odd)
    else:
        codes = code_tile(row.to(tl.pointer_type(tl.int32), bitcast=True), start, BITS, BLOCK_K).to(tl.uint8)
    return codes
