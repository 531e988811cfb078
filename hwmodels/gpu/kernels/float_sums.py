"""What becomes of float32 sums: the scales of rows and columns, the bias, and the result's type, as Triton code."""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.weight_product import narrowed


@triton.jit
def store_scaled(  # type: ignore[no-untyped-def]
    sums, out_pointer, row_scales, column_scales, biases, rows, columns, m, n,
    HAS_ROW_SCALES: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Store ``((sums * row_scale) * column_scale) + bias``, of shape (n, m), in an array of shape (rows, columns)."""
    in_m, in_n = m < rows, n < columns
    result = sums
    if HAS_ROW_SCALES:
        result = result * tl.load(row_scales + m, mask=in_m, other=1.0)[None, :]
    result = result * tl.load(column_scales + n, mask=in_n, other=0.0)[:, None]
    if HAS_BIAS:
        result += tl.load(biases + n, mask=in_n, other=0.0)[:, None]
    places = m.to(tl.int64)[None, :] * columns + n[:, None]
    tl.store(out_pointer + places, narrowed(result, out_pointer.dtype.element_ty), mask=in_n[:, None] & in_m[None, :])


@triton.jit
def store_partial(sums, partial, rows, columns, m, n):  # type: ignore[no-untyped-def]
    """Store the sums of this program's share of the depth in float32 (splits, rows, columns)."""
    places = (tl.program_id(1) * rows + m).to(tl.int64)[None, :] * columns + n[:, None]
    tl.store(partial + places, sums, mask=(n < columns)[:, None] & (m < rows)[None, :])


@triton.jit
def finish_float_sums(  # type: ignore[no-untyped-def]
    partial, out_pointer, row_scales, column_scales, biases, rows, columns, splits,
    HAS_ROW_SCALES: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add the sums of all splits, in order, and scale them."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (n < columns)[:, None] & (m < rows)[None, :]
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for split in range(splits):
        places = (split * rows + m).to(tl.int64)[None, :] * columns + n[:, None]
        sums += tl.load(partial + places, mask=inside, other=0.0)
    store_scaled(sums, out_pointer, row_scales, column_scales, biases, rows, columns, m, n, HAS_ROW_SCALES, HAS_BIAS)
