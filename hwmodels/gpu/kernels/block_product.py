"""Products with weights in block formats, which are decoded and scaled in registers, as Triton code."""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.code_tile import codes_of_unit, spread, weight_tile
from hwmodels.gpu.kernels.encoding import as_float
from hwmodels.gpu.kernels.float_sums import store_partial, store_scaled
from hwmodels.gpu.kernels.operands import tile_place, word_rows
from hwmodels.gpu.kernels.weight_product import wide


@triton.jit
def _block_factors(scales, tops, POWERS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return what the elements of blocks are multiplied by, float32, for scale codes (n, blocks): ``tops`` is code 0's exponent."""
    codes = scales.to(tl.int32)
    if POWERS:
        return as_float(tl.maximum(codes + tops[:, None] + 127, 0) << 23)
    else:  # the fields of E4M3 where float32 has them, times the power of two by which their biases differ
        return as_float(codes << 20) * 2.0**120


# numbers that vary from product to product and make no kernel faster are not compiled for
@triton.jit(do_not_specialize=("rows",))
def block_product(  # type: ignore[no-untyped-def]
    x_pointer, w_pointer, scales_pointer, tops_pointer, out_pointer, column_scales, biases,
    rows, columns, depth, row_bytes, scale_bytes, chunk,
    BLOCK: tl.constexpr, POWERS: tl.constexpr, HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr,
    KIND: tl.constexpr, BITS: tl.constexpr, CARRIER: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr,
    P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr, SIGNED: tl.constexpr, PAIRED: tl.constexpr, NATIVE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Multiply x (rows, depth) with packed elements (columns, depth) times their scales (columns, blocks), and scale the sums."""
    m, n = tile_place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    row = tl.minimum(n, columns - 1).to(tl.int64)
    x_rows = x_pointer + m.to(tl.int64)[:, None] * depth
    w_rows = word_rows(w_pointer, n, columns, row_bytes)
    scale_rows = scales_pointer + row[:, None] * scale_bytes
    tops = tl.load(tops_pointer + row)
    begin = tl.program_id(1) * chunk
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(begin, tl.minimum(begin + chunk, depth), BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_rows + k[None, :], mask=(m < rows)[:, None] & (k < depth)[None, :], other=0.0)
        w = weight_tile(w_rows, start, x_pointer, BLOCK_K, KIND, BITS, CARRIER, MANTISSA, BIAS, P0, P1, P2, SIGNED, PAIRED, NATIVE)
        scales = tl.load(scale_rows + (start // BLOCK + tl.arange(0, BLOCK_K // BLOCK))[None, :])
        factors = _block_factors(scales, tops, POWERS)
        if w.dtype == tl.bfloat16:  # which has them exactly: the upper half of float32
            factors = (factors.to(tl.int32, bitcast=True) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
        # blocks are whole units, and units follow each other within each place
        places: tl.constexpr = codes_of_unit(BITS) // 2
        blocks = tl.reshape(w, (BLOCK_N, places, BLOCK_K // BLOCK, BLOCK // places))
        w = tl.reshape(blocks * factors[:, None, :, None], (BLOCK_N, BLOCK_K))
        x = spread(x, BITS, 2)
        if not NATIVE and x.dtype == tl.bfloat16:
            x = wide(x)
        if w.dtype != x.dtype:
            w = w.to(x.dtype)
        sums = tl.dot(w, tl.trans(x), sums)
    if SPLIT:
        store_partial(sums, out_pointer, rows, columns, m, n)
    else:
        store_scaled(sums, out_pointer, column_scales, column_scales, biases, rows, columns, m, n, False, HAS_BIAS)
