"""Products of float8 numbers on the tensor cores, weights also from narrower codes that become float8, as Triton code."""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.code_tile import register_tile, spread
from hwmodels.gpu.kernels.float_sums import store_partial, store_scaled
from hwmodels.gpu.kernels.operands import tile_place, word_rows

E4M3 = tl.constexpr("float8_e4m3fn")


@triton.jit
def as_float8(codes, TYPE: tl.constexpr, WIDENED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the float8 numbers that uint8 are, without a cast. ``WIDENED`` gives the same numbers as float16."""
    if WIDENED:
        fields = codes.to(tl.int32)
        if TYPE == E4M3:
            moved = (((fields & 0x80) << 8) | ((fields & 0x7F) << 7)).to(tl.int16).to(tl.float16, bitcast=True) * 256.0
            return tl.where((fields & 0x7F) == 0x7F, float("nan"), moved)
        else:
            return (fields << 8).to(tl.int16).to(tl.float16, bitcast=True)
    else:
        return codes.to(tl.float8e4nv if TYPE == E4M3 else tl.float8e5, bitcast=True)


# numbers that vary from product to product and make no kernel faster are not compiled for
@triton.jit(do_not_specialize=("rows", "groups", "steps_per_group"))
def float8_product(  # type: ignore[no-untyped-def]
    x_pointer, w_pointer, out_pointer, row_scales, column_scales, group_scales, biases,
    rows, columns, depth, row_bytes, chunk, groups, steps_per_group,
    X_FORMAT: tl.constexpr, TARGET: tl.constexpr, KIND: tl.constexpr, BITS: tl.constexpr, PLACES: tl.constexpr,
    WIDENED: tl.constexpr, GROUPED: tl.constexpr, PROMOTE: tl.constexpr, HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr,
    WHOLE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Multiply float8 codes (rows, depth) with packed codes (columns, depth) that become float8, and scale the sums.

    ``WHOLE`` says that the depth is a multiple of ``BLOCK_K``. ``GROUPED``: each ``steps_per_group`` steps of ``BLOCK_K`` have a
    scale of their own, (columns, groups), that their float32 sums are multiplied by. ``PROMOTE`` adds the sums of each step to
    float32 outside the tensor cores.
    """
    m, n = tile_place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    begin = tl.program_id(1) * chunk
    x_rows = x_pointer + tl.minimum(m, rows - 1).to(tl.int64)[:, None] * depth
    w_rows = word_rows(w_pointer, n, columns, row_bytes)
    scale_rows = group_scales + n.to(tl.int64) * groups
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(begin, tl.minimum(begin + chunk, depth), BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        # tensor cores take float8 from shared memory: loaded as what it is, it need not pass through registers
        if WHOLE and BITS == 8 and not WIDENED:
            x = tl.load(x_rows.to(tl.pointer_type(tl.float8e4nv if X_FORMAT == E4M3 else tl.float8e5), bitcast=True) + k[None, :])
        else:
            x = spread(tl.load(x_rows + k[None, :], mask=(k < depth)[None, :], other=0), BITS, 4)
            x = as_float8(x, X_FORMAT, WIDENED)
        x = tl.trans(x)
        if BITS == 8 and not WIDENED:
            w = tl.load(w_rows.to(tl.pointer_type(tl.float8e4nv if TARGET == E4M3 else tl.float8e5), bitcast=True) + k[None, :])
        else:
            w = as_float8(register_tile(w_rows, start, BITS, BLOCK_K, 4, KIND, 0, 0, PLACES, False), TARGET, WIDENED)
        if GROUPED:
            scale = tl.load(scale_rows + start // BLOCK_K // steps_per_group, mask=n < columns, other=1.0)
            sums += tl.dot(w, x) * scale[:, None]
        elif PROMOTE:
            sums += tl.dot(w, x)
        else:
            sums = tl.dot(w, x, sums)
    if SPLIT:
        store_partial(sums, out_pointer, rows, columns, m, n)
    else:
        store_scaled(sums, out_pointer, row_scales, column_scales, biases, rows, columns, m, n, True, HAS_BIAS)
