"""The arithmetics that exact dot products are computed in; ``exact`` proves which of them apply.

Each is made for one term of a sum, and adds the products of codes (M, K) and (K, N) to integers or, for wide sums, to limbs.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import accumulate_kernels as kernels
from formats.arithmetic.products import Part, Term
from formats.arithmetic.tiles import decoded, share_rows, tiling

#: types of floating-point paths, and their digits
FLOATS: dict[str, tuple[type[Any], int]] = {"float32": (np.float32, 24), "float64": (np.float64, 53)}
SMALLEST_BYTE, LARGEST_BYTE = -128, 127
#: bands are made for slices of this many k
_BAND_DEPTH = 1024

#: adds the products of codes (M, K) and (K, N) to sums
Runner = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], None]


@cache
def torch_is_exact() -> bool:
    """Check torch's integer product where arithmetic that saturates inside would show: at the extremes."""
    extremes = np.array([-128, 127, -127, 1], np.int8)
    for size in (16, 64, 1024):
        a = np.repeat(extremes, 8)[:, np.newaxis] * np.ones((1, size), np.int8)
        w = np.ascontiguousarray(np.repeat(extremes, 8)[np.newaxis] * np.ones((size, 1), np.int8))
        out = np.empty((len(a), w.shape[1]), np.int32)
        _torch_product(a, w, out)
        expected = size * np.outer(a[:, 0].astype(np.int64), w[0].astype(np.int64))
        if not np.array_equal(out, expected):
            return False
    return True


def _torch_product(a: NDArray[np.int8], w: NDArray[np.int8], out: NDArray[np.int32]) -> None:
    torch = sys.modules["torch"]
    # numpy leaves the stride of an axis of length 1 open, and torch 2.13 would multiply by it: flat arrays leave no choice
    flat = [torch.from_numpy(each.reshape(-1)).view(each.shape) for each in (a, w, out)]
    torch._int_mm(flat[0], flat[1], out=flat[2])


def _floats(dtype: type[Any], digits: int) -> Callable[[Term, int, int], Runner]:
    def prepare(term: Term, total: int, depth: int) -> Runner:
        tables = _compact(term.a.table(dtype)), _compact(term.w.table(dtype))
        slices = depth if total <= 2**digits else 2**digits // (term.a.largest * term.w.largest)

        def add(out: NDArray[Any], a: NDArray[Any], w: NDArray[Any]) -> None:
            add_tile = kernels.add_small_tile if out.dtype == np.int32 and dtype is np.float32 else kernels.add_tile
            sizes = tiling(a, w, bytes_per_number=dtype().nbytes, depth=slices)
            for columns, k in sizes.spans(w.shape[1], w.shape[0]):
                w_tile = decoded(w[k, columns], tables[1], dtype)
                for rows in sizes.row_spans(0, a.shape[0]):
                    add_tile(decoded(a[rows, k], tables[0], dtype) @ w_tile, out[rows, columns])
                del w_tile  # before the next one is made

        return add

    return prepare


def _compact(table: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as float32 where that holds them all: tables of 16-bit formats are large beside small operands."""
    return table.astype(np.float32) if np.abs(table).max() <= 2**24 else table


class Band(NamedTuple):
    """Some of the bits of every number, as floats: whole numbers to be multiplied by 2**shift."""

    shift: int
    table: NDArray[Any]


def bands(part: Part, width: int) -> list[Band]:
    """Cut numbers into bands of ``width`` bits from the lowest, those without any bit set left out."""
    magnitude = np.abs(part.significand).astype(np.uint64)
    made = []
    for shift in range(0, part.largest.bit_length(), width):
        up = part.shift - shift
        raised = np.where(up < width, magnitude << np.clip(up, 0, 63).astype(np.uint64), np.uint64(0))
        lowered = magnitude >> np.clip(-up, 0, 63).astype(np.uint64)
        bits = np.where(up >= 0, raised, lowered) & np.uint64((1 << width) - 1)
        if bits.any():
            made.append(Band(shift, _compact(np.sign(part.significand) * bits.astype(np.float64))))
    return made


def band_widths(a: int, w: int, room: int) -> tuple[int, int]:
    """Return the widths of bands, together at most ``room`` bits, that leave the fewest products of bands.

    ``a`` and ``w`` are the operands' widths in bits.
    """
    best = (a * w + 1, 1, 1)
    for width in range(1, room):
        each = min(width, a), min(room - width, w)
        products = -(-a // each[0]) * -(-w // each[1])
        best = min(best, (products, *each))
    return best[1], best[2]


def _banded(term: Term, total: int, depth: int) -> Runner:
    slices = min(depth, _BAND_DEPTH)
    room = 53 - (slices - 1).bit_length()
    widths = band_widths(term.a.largest.bit_length(), term.w.largest.bit_length(), room)
    a_bands, w_bands = bands(term.a, widths[0]), bands(term.w, widths[1])

    def add(out: NDArray[Any], a: NDArray[Any], w: NDArray[Any]) -> None:
        sizes = tiling(a, w, bytes_per_number=8, depth=slices)
        for columns, k in sizes.spans(w.shape[1], w.shape[0]):
            for w_band in w_bands:
                w_tile = decoded(w[k, columns], w_band.table, np.float64)
                for rows in sizes.row_spans(0, a.shape[0]):
                    for a_band in a_bands:
                        tile = decoded(a[rows, k], a_band.table, np.float64) @ w_tile
                        add_tile = kernels.add_to_limbs if out.ndim == 3 else kernels.add_shifted
                        add_tile(tile, a_band.shift + w_band.shift, out[..., rows, columns])
                        del tile
                del w_tile  # before the next one is made

    return add


def _integers(term: Term, total: int, depth: int) -> Runner:
    tables = term.a.table(np.int64), term.w.table(np.int64)

    def add(out: NDArray[Any], a: NDArray[Any], w: NDArray[Any]) -> None:
        sizes = tiling(a, w, bytes_per_number=8, depth=depth)
        for columns, k in sizes.spans(w.shape[1], w.shape[0]):
            w_tile = decoded(w[k, columns], tables[1])

            def work(start: int, stop: int, columns: slice = columns, k: slice = k, w_tile: NDArray[Any] = w_tile) -> None:
                for rows in sizes.row_spans(start, stop):
                    kernels.add_products(decoded(a[rows, k], tables[0]), w_tile, out[rows, columns])

            share_rows(work, a.shape[0], w_tile.size)
            del work, w_tile  # before the next one is made

    return add


def _bytes(term: Term, total: int, depth: int) -> Runner:
    """Multiply as int8 by torch; a side that reaches beyond 127 goes in less 128, which is made up for by the other's sums."""
    (a_table, a_offset), (w_table, w_offset) = (_as_int8(part) for part in term)
    slices = (2**31 - 1) // 2**14

    def add(out: NDArray[Any], a: NDArray[Any], w: NDArray[Any]) -> None:
        product = np.empty(out.shape, np.int32)
        for k in range(0, depth, slices):
            a_part = _decoded_int8(a[:, k : k + slices], a_table, term.a)
            w_part = _decoded_int8(w[k : k + slices], w_table, term.w)
            _torch_product(a_part, w_part, product)
            out += product
            if a_offset:
                out += (a_offset * w_part.sum(axis=0, dtype=np.int64)).astype(out.dtype)
            if w_offset:
                out += (w_offset * a_part.sum(axis=1, dtype=np.int64)[:, np.newaxis]).astype(out.dtype)
            out += out.dtype.type(a_offset * w_offset * w_part.shape[0])

    return add


def _as_int8(part: Part) -> tuple[NDArray[np.int8], int]:
    numbers = part.table(np.int64)
    offset = 0 if numbers.max() <= LARGEST_BYTE else 128
    return (numbers - offset).astype(np.int8), offset


def _decoded_int8(codes: NDArray[Any], table: NDArray[np.int8], part: Part) -> NDArray[np.int8]:
    if codes.dtype == np.uint8 and not (part.used & (table != np.arange(len(table)).astype(np.int8))).any():
        return np.ascontiguousarray(codes).view(np.int8)  # the codes are the numbers as they are
    return decoded(codes, table)


#: makes what adds a term, given a bound on the sums and how many k there are
RUNNERS: dict[str, Callable[[Term, int, int], Runner]] = {
    "int8": _bytes,
    "float32": _floats(*FLOATS["float32"]),
    "float64": _floats(*FLOATS["float64"]),
    "bands": _banded,
    "integer": _integers,
}
