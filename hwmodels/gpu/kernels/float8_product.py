"""Products of float8 numbers on the tensor cores, weights also from narrower codes that become float8, as Triton code."""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.float_sums import store_partial, store_scaled
from hwmodels.gpu.kernels.operands import packed_codes, tile_place

E4M3 = tl.constexpr("float8_e4m3fn")
AS_IT_IS, WHOLE, MINIFLOAT = tl.constexpr("as it is"), tl.constexpr("whole"), tl.constexpr("minifloat")


@triton.jit
def as_float8(codes, KIND: tl.constexpr, BITS: tl.constexpr, PLACES: tl.constexpr, TARGET: tl.constexpr, WIDENED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return float8 numbers for uint8 codes: by moving bits, never by a cast. ``WIDENED`` gives the same numbers as float16."""
    if KIND == WHOLE:
        number = (codes << (8 - BITS)).to(tl.int8, bitcast=True) >> (8 - BITS)
        negative = number >> 7
        codes = ((number ^ negative) - negative).to(tl.uint8, bitcast=True) | (negative.to(tl.uint8, bitcast=True) & 0x80)
    elif KIND == MINIFLOAT:
        codes = ((codes >> (BITS - 1)) << 7) | ((codes & ((1 << (BITS - 1)) - 1)) << PLACES)
    if WIDENED:
        fields = codes.to(tl.int32)
        if TARGET == E4M3:
            return (((fields & 0x80) << 8) | ((fields & 0x7F) << 7)).to(tl.int16).to(tl.float16, bitcast=True) * 256.0
        else:
            return (fields << 8).to(tl.int16).to(tl.float16, bitcast=True)
    else:
        return codes.to(tl.float8e4nv if TARGET == E4M3 else tl.float8e5, bitcast=True)


@triton.jit
def float8_product(  # type: ignore[no-untyped-def]
    x_pointer, w_pointer, out_pointer, row_scales, column_scales, group_scales, biases,
    rows, columns, depth, row_bytes, chunk, groups, steps_per_group,
    X_FORMAT: tl.constexpr, TARGET: tl.constexpr, KIND: tl.constexpr, BITS: tl.constexpr, PLACES: tl.constexpr,
    WIDENED: tl.constexpr, GROUPED: tl.constexpr, PROMOTE: tl.constexpr, HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Multiply float8 codes (rows, depth) with packed codes (columns, depth) that become float8, and scale the sums.

    ``GROUPED``: each ``steps_per_group`` steps of ``BLOCK_K`` have a scale of their own, (columns, groups), that their float32 sums
    are multiplied by. ``PROMOTE`` adds the sums of each step to float32 outside the tensor cores.
    """
    m, n = tile_place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    begin = tl.program_id(1) * chunk
    x_rows = x_pointer + m.to(tl.int64)[:, None] * depth
    scale_rows = group_scales + n.to(tl.int64) * groups
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(begin, tl.minimum(begin + chunk, depth), BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_rows + k[None, :], mask=(m < rows)[:, None] & (k < depth)[None, :], other=0)
        x = as_float8(x, AS_IT_IS, 8, 0, X_FORMAT, WIDENED)
        codes = packed_codes(w_pointer, n, start, columns, row_bytes, BITS, BLOCK_K)
        w = as_float8(codes, KIND, BITS, PLACES, TARGET, WIDENED)
        if GROUPED:
            scale = tl.load(scale_rows + start // BLOCK_K // steps_per_group, mask=n < columns, other=1.0)
            sums += tl.dot(w, tl.trans(x)) * scale[:, None]
        elif PROMOTE:
            sums += tl.dot(w, tl.trans(x))
        else:
            sums = tl.dot(w, tl.trans(x), sums)
    if SPLIT:
        store_partial(sums, out_pointer, rows, columns, m, n)
    else:
        store_scaled(sums, out_pointer, row_scales, column_scales, biases, rows, columns, m, n, True, HAS_BIAS)
