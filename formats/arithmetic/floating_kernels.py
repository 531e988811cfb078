"""The compiled loops of dot products in floating point: every product and every sum is rounded once to the accumulator's type.

Numbers of float16 and bfloat16 are held in float32. Their sums are formed in float32 and rounded again, which changes nothing:
the double rounding of a sum is harmless where the wider type has at least 2p + 2 digits (Figueroa, "When is double rounding
innocuous?", SIGNUM Newsletter 30(3), 1995), and 24 is 2 * 11 + 2. Products come as exact ones, in float32 or float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled

FLOAT32, FLOAT16, BFLOAT16 = range(3)
#: one more than the levels of a tree of as many products as a tile is deep
TREE_LEVELS = 12
#: most k in a tile of the pairwise order
TREE_DEPTH = 1 << (TREE_LEVELS - 2)


@compiled
def to_float16(x: np.float32) -> np.float32:
    """Round a float32 to float16, to nearest even, and hold it in float32."""
    magnitude = np.float32(abs(x))
    word = magnitude.view(np.int32)
    carried = np.int32(word + np.int32(0xFFF) + np.int32((word >> np.int32(13)) & np.int32(1)))
    normal = np.int32(carried & np.int32(~0x1FFF)).view(np.float32)
    tiny = np.float32(np.float32(magnitude + np.float32(0.5)) - np.float32(0.5))  # the last place of 0.5 is 2**-24
    rounded = normal if magnitude >= np.float32(2.0**-14) else tiny
    rounded = np.float32(np.inf) if rounded >= np.float32(65536.0) else rounded
    rounded = rounded if magnitude < np.float32(np.inf) else magnitude
    return np.float32(np.copysign(rounded, x))


@compiled
def to_bfloat16(x: np.float32) -> np.float32:
    """Round a float32 to bfloat16, to nearest even, and hold it in float32; the carry may reach infinity."""
    word = np.float32(x).view(np.int32)
    carried = np.int32(word + np.int32(0x7FFF) + np.int32((word >> np.int32(16)) & np.int32(1)))
    rounded = np.int32(carried & np.int32(~0xFFFF)).view(np.float32)
    return rounded if np.float32(abs(x)) <= np.float32(np.inf) else np.float32(x)


@compiled
def double_to_float16(x: np.float64) -> np.float32:
    """Round a float64 to float16 in one step, and hold it in float32."""
    magnitude = abs(x)
    word = np.float64(magnitude).view(np.int64)
    carried = word + np.int64((1 << 41) - 1) + ((word >> np.int64(42)) & np.int64(1))
    normal = np.int64(carried & np.int64(~((1 << 42) - 1))).view(np.float64)
    tiny = (magnitude + 2.0**28) - 2.0**28  # the last place of 2**28 is 2**-24
    rounded = normal if magnitude >= 2.0**-14 else tiny
    rounded = np.float64(np.inf) if rounded >= 65536.0 else rounded
    rounded = rounded if magnitude < np.inf else magnitude
    return np.float32(np.copysign(rounded, x))


@compiled
def double_to_bfloat16(x: np.float64) -> np.float32:
    """Round a float64 to bfloat16 in one step, and hold it in float32."""
    magnitude = abs(x)
    word = np.float64(magnitude).view(np.int64)
    carried = word + np.int64((1 << 44) - 1) + ((word >> np.int64(45)) & np.int64(1))
    normal = np.int64(carried & np.int64(~((1 << 45) - 1))).view(np.float64)
    tiny = (magnitude + 2.0**-81) - 2.0**-81  # the last place of 2**-81 is 2**-133
    rounded = normal if magnitude >= 2.0**-126 else tiny
    rounded = rounded if magnitude < np.inf else magnitude
    return np.float32(np.copysign(rounded, x))


@compiled
def multiply(kind: int, double: bool, factor: Any, row: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Write products of a number and a row, rounded to the type: of float64, or of float32 that give exact products.

    For the type float32 itself products of float32 need not be exact.
    """
    if kind == FLOAT32:
        for j in range(len(row)):
            out[j] = np.float32(factor * row[j])
    elif kind == FLOAT16 and double:
        for j in range(len(row)):
            out[j] = double_to_float16(np.float64(factor * row[j]))
    elif kind == FLOAT16:
        for j in range(len(row)):
            out[j] = to_float16(np.float32(factor * row[j]))
    elif double:
        for j in range(len(row)):
            out[j] = double_to_bfloat16(np.float64(factor * row[j]))
    else:
        for j in range(len(row)):
            out[j] = to_bfloat16(np.float32(factor * row[j]))


@compiled
def add(kind: int, addend: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Add a row to sums, rounded to the type."""
    if kind == FLOAT32:
        for j in range(len(out)):
            out[j] = np.float32(out[j] + addend[j])
    elif kind == FLOAT16:
        for j in range(len(out)):
            out[j] = to_float16(np.float32(out[j] + addend[j]))
    else:
        for j in range(len(out)):
            out[j] = to_bfloat16(np.float32(out[j] + addend[j]))


@compiled
def sequential_float32(a: NDArray[np.float32], w: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Add products to float32 sums in order of k; ``a`` and ``w`` are padded with zeros to whole fours of k and pairs of rows."""
    columns = w.shape[1]
    first, second = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    for i in range(0, out.shape[0], 2):
        paired = i + 1 < out.shape[0]
        first[:] = out[i]
        if paired:
            second[:] = out[i + 1]
        for k in range(0, a.shape[1], 4):
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            b0, b1, b2, b3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
            w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
            for j in range(columns):
                x, y = first[j], second[j]
                x = x + a0 * w0[j]
                y = y + b0 * w0[j]
                x = x + a1 * w1[j]
                y = y + b1 * w1[j]
                x = x + a2 * w2[j]
                y = y + b2 * w2[j]
                first[j] = x + a3 * w3[j]
                second[j] = y + b3 * w3[j]
        out[i] = first
        if paired:
            out[i + 1] = second


@compiled
def sequential(
    kind: int, double: bool, a: NDArray[Any], variant: NDArray[np.uint8], w: NDArray[Any], out: NDArray[np.float32]
) -> None:
    """Add products to sums in order of k. ``w[v]`` holds the numbers to be multiplied by a number of the variant ``v``."""
    product = np.empty(out.shape[1], np.float32)
    total = np.empty(out.shape[1], np.float32)
    for i in range(out.shape[0]):
        total[:] = out[i]
        for k in range(a.shape[1]):
            multiply(kind, double, a[i, k], w[variant[i, k], k], product)
            add(kind, product, total)
        out[i] = total


@compiled
def pairwise(
    kind: int, double: bool, a: NDArray[Any], variant: NDArray[np.uint8], w: NDArray[Any], out: NDArray[np.float32]
) -> None:
    """Write the sums of products, at least one and at most ``TREE_DEPTH``, by a tree of adders.

    Sums wait in a stack until their neighbour of the same size is there: as many as k has trailing ones are merged after
    product k. What remains at the end has no partner of its size, and passes up to be merged, the smallest first.
    """
    stack = np.empty((TREE_LEVELS, out.shape[1]), np.float32)
    for i in range(out.shape[0]):
        height = 0
        for k in range(a.shape[1]):
            multiply(kind, double, a[i, k], w[variant[i, k], k], stack[height])
            height += 1
            merged = k
            while merged & 1:
                add(kind, stack[height - 1], stack[height - 2])
                height -= 1
                merged >>= 1
        while height > 1:
            add(kind, stack[height - 1], stack[height - 2])
            height -= 1
        out[i] = stack[0]


@compiled
def add_rows(kind: int, addend: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Add two-dimensional sums to others, rounded to the type."""
    for i in range(out.shape[0]):
        add(kind, addend[i], out[i])


@compiled
def add_scaled(
    tile: NDArray[Any], row_factor: NDArray[np.float64], column_factor: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """Add tile * row factor * column factor, exact in float64 and rounded once to float32, to float32 sums."""
    for i in range(tile.shape[0]):
        factor = row_factor[i]
        row = tile[i]
        target = out[i]
        for j in range(tile.shape[1]):
            target[j] = np.float32(target[j] + np.float32(np.float64(row[j]) * (factor * column_factor[j])))
