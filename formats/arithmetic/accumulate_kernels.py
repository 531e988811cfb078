"""The compiled loops of dot products in whole numbers. Tiles are two-dimensional; loops run over the last axis innermost.

Wide sums are held as limbs: uint32 arrays whose first axis counts the limbs of a number in two's complement, the lowest first.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled

LIMB = 32
#: saturating loops take this many k at a time, two rows at a time: tiles are padded with zeros to whole multiples
DEPTH = 4
ROWS = 2


@compiled
def mark_used(codes: NDArray[Any], used: NDArray[np.bool_]) -> None:
    """Set ``used[code]`` for every code that occurs."""
    for i in range(len(codes)):
        used[codes[i]] = True


@compiled
def look_up(codes: NDArray[Any], table: NDArray[Any], out: NDArray[Any]) -> None:
    """Write ``table[code]`` for every code of a tile."""
    for i in range(codes.shape[0]):
        row = codes[i]
        target = out[i]
        for j in range(codes.shape[1]):
            target[j] = table[row[j]]


@compiled
def column_sums(codes: NDArray[Any], table: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Add ``table[code]`` over the rows of a tile into ``out``, int64 of shape (columns,)."""
    for i in range(codes.shape[0]):
        row = codes[i]
        for j in range(codes.shape[1]):
            out[j] += table[row[j]]


@compiled
def add_tile(tile: NDArray[Any], out: NDArray[Any]) -> None:
    """Add floats that are whole numbers to integers."""
    for i in range(tile.shape[0]):
        row = tile[i]
        target = out[i]
        for j in range(tile.shape[1]):
            target[j] += np.int64(row[j])


@compiled
def add_small_tile(tile: NDArray[np.float32], out: NDArray[np.int32]) -> None:
    """As ``add_tile``, for sums that int32 holds."""
    for i in range(tile.shape[0]):
        row = tile[i]
        target = out[i]
        for j in range(tile.shape[1]):
            target[j] = np.int32(target[j] + np.int32(row[j]))


@compiled
def add_shifted(tile: NDArray[np.float64], shift: int, out: NDArray[np.int64]) -> None:
    """Add whole numbers times 2**shift to integers that int64 holds."""
    for i in range(tile.shape[0]):
        row = tile[i]
        target = out[i]
        for j in range(tile.shape[1]):
            target[j] += np.int64(row[j]) << shift


@compiled
def add_to_limbs(tile: NDArray[np.float64], shift: int, limbs: NDArray[np.uint32]) -> None:
    """Add whole numbers of at most 53 bits times 2**shift to limbs, modulo what they hold."""
    first = shift // LIMB
    within = shift % LIMB
    mask = np.int64((1 << LIMB) - 1)
    for i in range(tile.shape[0]):
        for j in range(tile.shape[1]):
            number = np.int64(tile[i, j])
            low = (number & mask) << within
            high = (number >> LIMB) << within
            carried = low & mask
            for limb in range(first, limbs.shape[0]):
                if limb == first + 1:
                    carried += (low >> LIMB) + (high & mask)
                elif limb == first + 2:
                    carried += high >> LIMB
                elif limb > first + 2 and carried == 0:
                    break
                carried += np.int64(limbs[limb, i, j])
                limbs[limb, i, j] = np.uint32(carried & mask)
                carried >>= LIMB


@compiled
def scale_limbs(limbs: NDArray[np.uint32], row_factor: NDArray[np.int16], column_factor: NDArray[np.int16]) -> None:
    """Multiply numbers in place by a factor of their row and one of their column, together below 2**30, modulo what limbs hold."""
    mask = np.int64((1 << LIMB) - 1)
    for i in range(limbs.shape[1]):
        for j in range(limbs.shape[2]):
            factor = row_factor[i] * column_factor[j]
            carried = np.int64(0)
            for limb in range(limbs.shape[0]):
                carried += np.int64(limbs[limb, i, j]) * factor
                limbs[limb, i, j] = np.uint32(carried & mask)
                carried >>= LIMB


@compiled
def round_limbs(
    limbs: NDArray[np.uint32], exponent: NDArray[np.int64], precision: int, least: int, out: NDArray[np.float64]
) -> None:
    """Round each number times 2**exponent to ``precision`` binary digits, none below 2**least, to nearest even.

    ``limbs`` have the shape (limbs, numbers); ``exponent`` has one entry for each number.
    """
    count = limbs.shape[0]
    digits = np.empty(count, np.uint64)
    for j in range(limbs.shape[1]):
        negative = (limbs[count - 1, j] >> np.uint32(LIMB - 1)) != 0
        top = _magnitude(limbs[:, j], negative, digits)
        if top < 0:
            out[j] = 0.0
            continue
        head, sticky = _head(digits, top)
        length = LIMB * top + _length(digits[top])
        value = _round_head(head, sticky, length + exponent[j], precision, least)
        out[j] = -value if negative else value


@compiled
def _magnitude(limbs: NDArray[np.uint32], negative: bool, digits: NDArray[np.uint64]) -> int:
    """Write the magnitude as digits of 32 bits, and return the index of the highest that is not zero, or -1."""
    top = -1
    borrowed = np.int64(1)
    mask = np.int64((1 << LIMB) - 1)
    for i in range(len(limbs)):
        digit = np.int64(limbs[i])
        if negative:
            digit = (~digit & mask) + borrowed
            borrowed = digit >> LIMB
            digit &= mask
        digits[i] = np.uint64(digit)
        if digit != 0:
            top = i
    return top


@compiled
def _length(digit: np.uint64) -> int:
    """Return the bit length of a digit."""
    return int(math.frexp(np.float64(digit))[1])


@compiled
def _head(digits: NDArray[np.uint64], top: int) -> tuple[np.uint64, bool]:
    """Return the leading 64 bits, the highest of them set, and whether anything follows them."""
    up = np.uint64(LIMB - _length(digits[top]))
    limb = np.uint64(LIMB)
    one = digits[top - 1] if top >= 1 else np.uint64(0)
    two = digits[top - 2] if top >= 2 else np.uint64(0)
    head = (((digits[top] << limb) | one) << up) | ((two << up) >> limb)
    sticky = ((two << up) & np.uint64((1 << LIMB) - 1)) != 0
    for i in range(top - 2):
        sticky = sticky or digits[i] != 0
    return head, sticky


@compiled
def _round_head(head: np.uint64, sticky: bool, length: int, precision: int, least: int) -> float:
    """Round the number that begins with the bits ``head``, the first of them just below 2**length."""
    last_place = max(length - precision, least)
    drop = last_place - (length - 64)
    if drop > 64:
        return 0.0
    half = np.uint64(1) << np.uint64(drop - 1)
    kept = head >> np.uint64(drop) if drop < 64 else np.uint64(0)
    rest = head & ((half << np.uint64(1)) - np.uint64(1)) if drop < 64 else head
    if rest > half or (rest == half and (sticky or (kept & np.uint64(1)) != 0)):
        kept += np.uint64(1)
    return math.ldexp(np.float64(kept), last_place)


@compiled
def add_products(a: NDArray[np.int64], w: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Add the product of two tiles in plain 64-bit integers."""
    for i in range(a.shape[0]):
        target = out[i]
        for k in range(a.shape[1]):
            factor = a[i, k]
            row = w[k]
            for j in range(w.shape[1]):
                target[j] += factor * row[j]


@compiled
def saturate_float32(a: NDArray[np.float32], w: NDArray[np.float32], out: NDArray[np.int32], low: int, high: int) -> None:
    """Add products to int32 registers in order of k, clipped to [low, high] after each, by float32 that stays below 2**24.

    ``a`` and ``w`` are padded with zeros to a multiple of ``ROWS`` rows and of ``DEPTH`` k: adding zero changes nothing.
    """
    columns = w.shape[1]
    lo, hi = np.float32(low), np.float32(high)
    first, second = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for i in range(0, out.shape[0], ROWS):
        paired = i + 1 < out.shape[0]
        for j in range(columns):
            first[j] = np.float32(out[i, j])
            second[j] = np.float32(out[i + 1, j]) if paired else np.float32(0)
        for k in range(0, a.shape[1], DEPTH):
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            b0, b1, b2, b3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
            w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
            for j in range(columns):
                x, y = first[j], second[j]
                x = min(max(x + a0 * w0[j], lo), hi)
                y = min(max(y + b0 * w0[j], lo), hi)
                x = min(max(x + a1 * w1[j], lo), hi)
                y = min(max(y + b1 * w1[j], lo), hi)
                x = min(max(x + a2 * w2[j], lo), hi)
                y = min(max(y + b2 * w2[j], lo), hi)
                first[j] = min(max(x + a3 * w3[j], lo), hi)
                second[j] = min(max(y + b3 * w3[j], lo), hi)
        for j in range(columns):
            out[i, j] = np.int32(first[j])
            if paired:
                out[i + 1, j] = np.int32(second[j])


@compiled
def saturate_int32(a: NDArray[np.int32], w: NDArray[np.int32], out: NDArray[np.int32], low: int, high: int) -> None:
    """As ``saturate_float32``, in int32, which must hold any register plus any product."""
    columns = w.shape[1]
    lo, hi = np.int32(low), np.int32(high)
    register = np.empty(columns, np.int32)
    for i in range(out.shape[0]):
        register[:] = out[i]
        for k in range(0, a.shape[1], DEPTH):
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
            for j in range(columns):
                x = register[j]
                x = min(max(np.int32(x + np.int32(a0 * w0[j])), lo), hi)
                x = min(max(np.int32(x + np.int32(a1 * w1[j])), lo), hi)
                x = min(max(np.int32(x + np.int32(a2 * w2[j])), lo), hi)
                register[j] = min(max(np.int32(x + np.int32(a3 * w3[j])), lo), hi)
        out[i] = register


@compiled
def saturate_int64(a: NDArray[np.int64], w: NDArray[np.int64], out: NDArray[np.int64], low: int, high: int) -> None:
    """As ``saturate_int32``, in int64."""
    columns = w.shape[1]
    register = np.empty(columns, np.int64)
    for i in range(out.shape[0]):
        register[:] = out[i]
        for k in range(0, a.shape[1], DEPTH):
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
            for j in range(columns):
                x = register[j]
                x = min(max(x + a0 * w0[j], low), high)
                x = min(max(x + a1 * w1[j], low), high)
                x = min(max(x + a2 * w2[j], low), high)
                register[j] = min(max(x + a3 * w3[j], low), high)
        out[i] = register


@compiled
def saturate_wide(
    a: NDArray[np.int64],
    a_shift: NDArray[np.int64],
    w: NDArray[np.int64],
    w_shift: NDArray[np.int64],
    out: NDArray[np.int64],
    low: int,
    high: int,
) -> None:
    """As ``saturate_int64``, for products ``a * w << (a_shift + w_shift)`` of any width and registers of at most 62 bits.

    A product beyond the distance of the limits counts as that distance: it takes any register to the same limit.
    """
    distance = high - low + 1
    for i in range(out.shape[0]):
        for k in range(a.shape[1]):
            if a[i, k] == 0:
                continue
            for j in range(w.shape[1]):
                product = a[i, k] * w[k, j]
                shift = min(a_shift[i, k] + w_shift[k, j], 63)
                if abs(product) > (distance >> shift):
                    product = distance if product > 0 else -distance
                else:
                    product <<= shift
                out[i, j] = min(max(out[i, j] + product, low), high)
