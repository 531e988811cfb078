"""Activations times weights that are decoded in registers, summed in float32: the kernels of ``weight_only``.

Weights are the left operand of the tensor cores, which may come from registers, so results are transposed. Products are exact in
float32; scales multiply sums, never operands, so that nothing is rounded but the sums.
"""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.code_tile import spread, weight_tile
from hwmodels.gpu.kernels.operands import tile_place


# numbers that vary from product to product and make no kernel faster are not compiled for
@triton.jit(do_not_specialize=("rows", "groups"))
def weight_only_tile(  # type: ignore[no-untyped-def]
    x, words, scales, table, out, rows, columns, depth, row_words, groups, part,
    PLANES: tl.constexpr, SCALE_GROUP: tl.constexpr, SHARED: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, TERMS: tl.constexpr, FACTOR: tl.constexpr,
    KIND: tl.constexpr, BITS: tl.constexpr, CARRIER: tl.constexpr, MANTISSA: tl.constexpr, BIAS: tl.constexpr,
    P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr, SIGNED: tl.constexpr, PAIRED: tl.constexpr,
    NATIVE: tl.constexpr, TABLE: tl.constexpr,
):  # fmt: skip
    """Compute one tile of x (rows, depth) times the weights, or with ``SPLIT`` of the sum over ``part`` of the depth.

    ``out`` is (rows, columns) in x's type, or float32 of (parts, rows, columns). ``SCALE_GROUP`` is the depth that shares a scale;
    0 is all of it. Scales change only after every ``SHARED`` of a tile's depth, which has whole such pieces. ``WIDEN`` multiplies
    in float32, to which both operands are widened exactly. A value is ``FACTOR``, a power of two, times the sum of ``TERMS``
    values, each of which is multiplied by itself. ``NATIVE`` says whether bfloat16 has arithmetic. ``TABLE`` holds
    what codes of the kind ``lookup`` stand for, as ``packed_tables`` packs it.
    """
    m, n = tile_place(tl.program_id(0), rows, columns, BLOCK_M, BLOCK_N, GROUP)
    row = tl.minimum(n, columns - 1).to(tl.int64)
    start = tl.program_id(1) * part
    stop = tl.minimum(start + part, depth)
    x_rows = x + tl.minimum(m, rows - 1).to(tl.int64)[:, None] * depth
    total = tl.full((BLOCK_N, BLOCK_M), 0.0, tl.float32)
    for plane in tl.static_range(PLANES):
        plane_row = plane * columns + row
        weights = words + (plane_row * row_words)[:, None]
        plane_scales = scales + plane_row * groups
        sums = tl.full((BLOCK_N, BLOCK_M), 0.0, tl.float32)
        for k in range(start, stop, BLOCK_K):
            across = k + tl.arange(0, BLOCK_K)
            activations = _widened(tl.load(x_rows + across[None, :], mask=(across < depth)[None, :], other=0.0), WIDEN)
            for piece in tl.static_range(BLOCK_K // SHARED):
                own = activations
                if SHARED < BLOCK_K:
                    own = tl.where((tl.arange(0, BLOCK_K) // SHARED == piece)[None, :], activations, 0.0)
                own = tl.trans(spread(own, BITS, 2, KIND))
                if SCALE_GROUP > 0:
                    sums = tl.full((BLOCK_N, BLOCK_M), 0.0, tl.float32)
                for term in tl.static_range(TERMS):
                    # the same for every term unless it is looked up in registers: the compiler has it done once
                    held = weight_tile(
                        weights, k, table, BLOCK_K, KIND, BITS, CARRIER, MANTISSA, BIAS, P0, P1, P2, SIGNED,
                        PAIRED, NATIVE, TABLE >> (256 * term),
                    )  # fmt: skip
                    w = _term(held, term, TERMS, CARRIER, KIND)
                    sums = tl.dot(_widened(w, WIDEN), own, sums, input_precision=PRECISION)
                if SCALE_GROUP > 0:
                    # the last tile may go on where there is no group any more
                    number = tl.minimum((k + piece * SHARED) // SCALE_GROUP, groups - 1)
                    total += sums * _scale(plane_scales + number, FACTOR)
        if SCALE_GROUP == 0:
            total += sums * _scale(plane_scales, FACTOR)
    place = out + m.to(tl.int64)[None, :] * columns + n[:, None]
    inside = (m < rows)[None, :] & (n < columns)[:, None]
    if SPLIT:
        tl.store(place + tl.program_id(1).to(tl.int64) * rows * columns, total, mask=inside)
    else:
        tl.store(place, narrowed(total, out.dtype.element_ty), mask=inside)


@triton.jit
def _term(held, TERM: tl.constexpr, TERMS: tl.constexpr, CARRIER: tl.constexpr, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return one of the terms of what is held, as ``OperandType`` has them: cut off float32, or side by side in an integer."""
    if TERMS == 1 or KIND == "lookup":
        term = held
    elif CARRIER == "float32":
        left = held
        for _ in tl.static_range(TERM):
            left = left - _cut(left)
        term = _cut(left)
    else:
        half = (held >> (16 * TERM)).to(tl.int16)
        term = half.to(tl.float16 if CARRIER == "float16" else tl.bfloat16, bitcast=True)
    return term


@triton.jit
def _cut(x):  # type: ignore[no-untyped-def]
    """Return float32 without the mantissa bits that tf32 lacks."""
    return (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def _widened(x, WIDEN: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a tensor as it is, or as float32."""
    return wide(x) if WIDEN else x


@triton.jit
def wide(x):  # type: ignore[no-untyped-def]
    """Return floats of 16 or 32 bits as float32: bfloat16 by its bits, since the interpreter's cast garbles subnormal numbers."""
    if x.dtype == tl.bfloat16:
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def _scale(place, FACTOR: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the scale of each column, float32 of shape (columns, 1), times a power of two."""
    return (tl.load(place).to(tl.float32) * FACTOR)[:, None]


@triton.jit
def add_parts(parts, out, count, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add up the partial sums of each result, the first part first, and round to the type of ``out``."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    held = parts + place
    total = tl.load(held, mask=inside, other=0.0)
    for _ in range(1, count):
        held += size
        total += tl.load(held, mask=inside, other=0.0)
    tl.store(out + place, narrowed(total, out.dtype.element_ty), mask=inside)


@triton.jit
def narrowed(x, TYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Round float32 to nearest even in a 16-bit type: bfloat16 by its bits, which the interpreter's own cast would cut off."""
    if tl.bfloat16 == TYPE:
        bits = x.to(tl.int32, bitcast=True)
        upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        # a NaN with all bits set would become -0
        result = tl.where(x != x, 0x7FC0, upper).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        result = x.to(TYPE)
    return result
