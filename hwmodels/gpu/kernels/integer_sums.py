"""Products of whole numbers on integer tensor cores, and what becomes of their exact int32 sums, as Triton code.

An operand of b bits enters the tensor cores as int8 times 2**(8 - b): its code, with the sign bit flipped where codes are not two's
complement, shifted to the top of the byte. Sums are then 2**(16 - bits of both) times too large, exactly, and one shift puts that
right. What is left is a constant, which unsigned numbers and zero points have: its products with the other operand are added as
the sums of that operand's values.
"""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.code_tile import register_tile, spread
from hwmodels.gpu.kernels.operands import tile_place, word_rows
from hwmodels.gpu.kernels.requantizing import clamped_codes, multiplied, shifted
from hwmodels.gpu.kernels.weight_product import narrowed

#: kind of codes that are int8 at the top of each byte
TOP = tl.constexpr("top")
#: what becomes of sums
SUMS = tl.constexpr("sums")
FLOAT = tl.constexpr("float")
MULTIPLIED = tl.constexpr("multiplied")
SHIFTED = tl.constexpr("shifted")


@triton.jit
def _finish(  # type: ignore[no-untyped-def]
    sums, out_pointer, row_scales, factors, shifts, biases, rows, columns, m, n, zero_point, low, high,
    FINISH: tl.constexpr, ROUNDING: tl.constexpr, MASK: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Store what becomes of sums of shape (n, m) in an array of shape (rows, columns)."""
    in_n = n < columns
    if FINISH == SUMS:
        result = sums
    elif FINISH == FLOAT:
        scale = tl.load(factors + n, mask=in_n, other=1.0)
        result = sums.to(tl.float32) * tl.load(row_scales + m, mask=m < rows, other=1.0)[None, :] * scale[:, None]
        if HAS_BIAS:
            result += tl.load(biases + n, mask=in_n, other=0.0)[:, None]
        result = narrowed(result, out_pointer.dtype.element_ty)
    else:
        shift = tl.load(shifts + n, mask=in_n, other=0)[:, None]
        if FINISH == MULTIPLIED:
            numbers = multiplied(sums, tl.load(factors + n, mask=in_n, other=0)[:, None], shift)
        else:
            numbers = shifted(sums, shift, ROUNDING)
        result = clamped_codes(numbers, zero_point, low, high, MASK)
    places = m.to(tl.int64)[None, :] * columns + n[:, None]
    tl.store(out_pointer + places, result, mask=in_n[:, None] & (m < rows)[None, :])


# numbers that vary from product to product and make no kernel faster are not compiled for
@triton.jit(do_not_specialize=("rows", "x_offset", "w_offset", "zero_point", "low", "high"))
def integer_product(  # type: ignore[no-untyped-def]
    x_pointer, w_pointer, out_pointer, column_sums, row_scales, factors, shifts, biases,
    rows, columns, depth, row_bytes, chunk, x_offset, w_offset, zero_point, low, high,
    X_BITS: tl.constexpr, X_FLIP: tl.constexpr, W_BITS: tl.constexpr, W_FLIP: tl.constexpr, W_HAS_OFFSET: tl.constexpr,
    FINISH: tl.constexpr, ROUNDING: tl.constexpr, MASK: tl.constexpr, HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr,
    WHOLE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Multiply codes (rows, depth), a byte each, with packed codes (columns, depth), and finish the sums of the tile.

    ``WHOLE`` says that the depth is a multiple of ``BLOCK_K``. With ``SPLIT`` the second axis of the grid takes ``chunk`` of the
    depth each and leaves its own sums in int32 (splits, rows, columns), for ``finish_integer_sums``.
    """
    m, n = tile_place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    begin = tl.program_id(1) * chunk
    x_rows = x_pointer + tl.minimum(m, rows - 1).to(tl.int64)[:, None] * depth
    w_rows = word_rows(w_pointer, n, columns, row_bytes)
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
    x_sums = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(begin, tl.minimum(begin + chunk, depth), BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_rows + k[None, :]) if WHOLE else tl.load(x_rows + k[None, :], mask=(k < depth)[None, :], other=X_FLIP)
        x = ((x ^ X_FLIP) << (8 - X_BITS)).to(tl.int8, bitcast=True)
        if W_BITS == 8 and W_FLIP == 0:  # as the tensor cores take them, from shared memory
            w = tl.load(w_rows.to(tl.pointer_type(tl.int8), bitcast=True) + k[None, :])
        else:
            w = register_tile(w_rows, start, W_BITS, BLOCK_K, 4, TOP, 0, 0, W_FLIP, False).to(tl.int8, bitcast=True)
        sums = tl.dot(w, tl.trans(spread(x, W_BITS, 4)), sums, out_dtype=tl.int32)
        if W_HAS_OFFSET:
            x_sums += tl.sum(x.to(tl.int32), axis=1)
    sums = sums >> (16 - X_BITS - W_BITS)
    if W_HAS_OFFSET:
        sums += (w_offset * (x_sums >> (8 - X_BITS)))[None, :]
    if SPLIT:
        places = (tl.program_id(1) * rows + m).to(tl.int64)[None, :] * columns + n[:, None]
        tl.store(out_pointer + places, sums, mask=(n < columns)[:, None] & (m < rows)[None, :])
    else:
        sums += x_offset * tl.load(column_sums + n, mask=n < columns, other=0)[:, None]
        _finish(
            sums, out_pointer, row_scales, factors, shifts, biases, rows, columns, m, n, zero_point, low, high,
            FINISH, ROUNDING, MASK, HAS_BIAS,
        )  # fmt: skip


@triton.jit
def finish_integer_sums(  # type: ignore[no-untyped-def]
    partial, out_pointer, column_sums, row_scales, factors, shifts, biases, rows, columns, splits, x_offset, zero_point, low, high,
    FINISH: tl.constexpr, ROUNDING: tl.constexpr, MASK: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add the sums of all splits, in order, and finish them."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (n < columns)[:, None] & (m < rows)[None, :]
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.int32)
    for split in range(splits):
        places = (split * rows + m).to(tl.int64)[None, :] * columns + n[:, None]
        sums += tl.load(partial + places, mask=inside, other=0)
    sums += x_offset * tl.load(column_sums + n, mask=n < columns, other=0)[:, None]
    _finish(
        sums, out_pointer, row_scales, factors, shifts, biases, rows, columns, m, n, zero_point, low, high,
        FINISH, ROUNDING, MASK, HAS_BIAS,
    )  # fmt: skip
