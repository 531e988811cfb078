"""What kernels of matrix products share: where a tile lies.

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
def word_rows(pointer, n, columns, row_bytes):  # type: ignore[no-untyped-def]
    """Return pointers to the first word of rows ``n`` of packed codes, of shape (n, 1); rows past the last are the last."""
    row = pointer + tl.minimum(n, columns - 1).to(tl.int64)[:, None] * row_bytes
    return row.to(tl.pointer_type(tl.int32), bitcast=True)
