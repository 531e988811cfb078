"""Cutting a matrix product into tiles, so that decoded operands stay small beside the codes and the result."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import accumulate_kernels as kernels
from formats.threads import in_shares

#: largest tile: rows, columns, depth
LARGEST = (256, 512, 1024)
SMALLEST = 32
#: part of the operands' and the result's memory that tiles may take: tables and sums being added up need some, too
SHARE = 0.65


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Sizes of tiles: rows of ``a``, columns of ``w``, and how many k at a time."""

    rows: int
    columns: int
    depth: int

    def spans(self, columns: int, depth: int) -> Iterator[tuple[slice, slice]]:
        """Yield the tiles of ``w``: columns, and for each of them k in order."""
        for first in range(0, columns, self.columns):
            for k in range(0, depth, self.depth):
                yield slice(first, min(first + self.columns, columns)), slice(k, min(k + self.depth, depth))

    def row_spans(self, start: int, stop: int) -> Iterator[slice]:
        """Yield the tiles of rows from ``start`` to ``stop``."""
        for first in range(start, stop, self.rows):
            yield slice(first, min(first + self.rows, stop))


def tiling(a: NDArray[Any], w: NDArray[Any], *, bytes_per_number: int, depth: int) -> Tiling:
    """Choose tiles that together take no more memory than the operands' codes and an int32 result do, where that is possible.

    ``bytes_per_number`` is what a decoded number takes, ``depth`` the most that the arithmetic allows.
    """
    (m, k), n = a.shape, w.shape[1]
    rows, columns, deep = min(LARGEST[0], m), min(LARGEST[1], n), min(LARGEST[2], k, depth)
    # long and narrow products take more k at a time: a tile costs a call
    while deep < min(k, depth) and 2 * deep * (rows + columns) <= LARGEST[2] * (LARGEST[0] + LARGEST[1]):
        deep = min(2 * deep, k, depth)
    budget = SHARE * (a.nbytes + w.nbytes + 4 * m * n)
    while bytes_per_number * (deep * (rows + columns) + rows * columns) > budget and max(rows, columns, deep) > SMALLEST:
        if deep > SMALLEST and deep >= 2 * max(rows, columns):
            deep = _half(deep)
        elif max(rows, columns) > SMALLEST:
            rows, columns = (rows, _half(columns)) if columns >= rows else (_half(rows), columns)
        else:
            deep = _half(deep)
    return Tiling(rows=max(rows, 1), columns=max(columns, 1), depth=max(deep, 1))


def _half(size: int) -> int:
    return -(-size // 2)


def decoded(
    codes: NDArray[Any], table: NDArray[Any], dtype: type[Any] | None = None, *, rows: int = 0, columns: int = 0
) -> NDArray[Any]:
    """Return ``table[codes]``, of another ``dtype`` if asked for, filled up with zeros to at least so many rows and columns."""
    shape = (max(rows, codes.shape[0]), max(columns, codes.shape[1]))
    out = (np.empty if shape == codes.shape else np.zeros)(shape, dtype or table.dtype)
    kernels.look_up(codes, table, out[: codes.shape[0], : codes.shape[1]])
    return out


def share_rows(work: Callable[[int, int], None], rows: int, each: int) -> None:
    """Call ``work(start, stop)`` over [0, rows), shared among threads; a row takes ``each`` multiply-accumulate steps."""
    weight = max(each, 1)
    in_shares(lambda start, stop: work(start // weight, stop // weight), rows * weight, weight)
