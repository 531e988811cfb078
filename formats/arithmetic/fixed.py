"""Dot products in a register of fixed width that saturates after each addition, in order of k.

Where no prefix of the sum can reach the limits, the exact sum is the answer. Otherwise registers are kept in order by the
narrowest arithmetic that holds any register plus any product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import accumulate_kernels as kernels
from formats.arithmetic.products import Pair, Part, Term
from formats.arithmetic.sums import Sums
from formats.arithmetic.tiles import share_rows, tiling
from formats.errors import InvalidValueError

#: paths in order of preference
PATHS = ("ordered-float32", "ordered-int32", "ordered-int64", "ordered-wide", "ordered-python")
#: widest register of each path
_WIDEST = {"ordered-float32": 24, "ordered-int32": 31, "ordered-int64": 63, "ordered-wide": 62}
#: largest magnitude that a register plus a product may have
_HOLDS = {"ordered-float32": 2**24, "ordered-int32": 2**31 - 1, "ordered-int64": 2**63 - 1}
_NUMBERS = {"ordered-float32": np.float32, "ordered-int32": np.int32, "ordered-int64": np.int64}


def obstacle(path: str, pair: Pair, bits: int) -> str | None:
    """Return why a path cannot keep such registers, or None where it can."""
    if bits > _WIDEST.get(path, bits):
        return f"taken for registers of {bits} bits: it holds {_WIDEST[path]}"
    if path not in _HOLDS:
        return None
    reach = max((max(t.a.largest * t.w.largest, t.a.largest, t.w.largest) for terms in pair.sums for t in terms), default=0)
    reach += 2 ** (bits - 1)
    if reach > _HOLDS[path]:
        return f"taken for a register plus a product of {reach.bit_length() + 1} bits: it holds less"
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class SaturatingPlan:
    """How the registers of a pair of operands are kept; see ``exact.ExactPlan``."""

    pair: Pair
    bits: int
    path: str

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest content of a register."""
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    def blank(self, rows: int, columns: int) -> list[NDArray[Any]]:
        """Return registers of zero: the even and, where there is a root, the odd ones."""
        if self.path == "ordered-python":
            return [np.full((rows, columns), 0, object) for _ in self.pair.sums]
        dtype = np.int32 if self.path in ("ordered-float32", "ordered-int32") else np.int64
        return [np.zeros((rows, columns), dtype) for _ in self.pair.sums]

    def run(self, a: NDArray[Any], w: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the registers after codes (M, K) times codes (K, N)."""
        made = self.blank(a.shape[0], w.shape[1])
        for out, terms in zip(made, self.pair.sums, strict=True):
            if terms and out.size:
                self._fill(out, a, w, terms)
        return made

    def sums(self, numbers: list[NDArray[Any]]) -> list[Sums]:
        """Return what ``run`` made as sums."""
        return [Sums(numbers=each) for each in numbers]

    def _fill(self, out: NDArray[Any], a: NDArray[Any], w: NDArray[Any], terms: tuple[Term, ...]) -> None:
        if self.path == "ordered-python":
            _saturate_python(out, a, w, terms, *self.limits)
            return
        step = _wide_step if self.path == "ordered-wide" else _plain_step(self.path)
        sizes = tiling(a, w, bytes_per_number=8, depth=256)
        for columns, k in sizes.spans(w.shape[1], w.shape[0]):
            add = step(w[k, columns], terms, self.limits)

            def work(start: int, stop: int, columns: slice = columns, k: slice = k, add: _Add = add) -> None:
                for rows in sizes.row_spans(start, stop):
                    add(a[rows, k], out[rows, columns])

            share_rows(work, a.shape[0], (k.stop - k.start) * (columns.stop - columns.start))
            del work, add  # before the next tile is made


#: adds a tile of codes of ``a`` to registers
_Add = Callable[[NDArray[Any], NDArray[Any]], None]
_KERNELS: dict[str, Callable[..., None]] = {
    "ordered-float32": kernels.saturate_float32,
    "ordered-int32": kernels.saturate_int32,
    "ordered-int64": kernels.saturate_int64,
}


def _interleaved(codes: NDArray[Any], tables: list[NDArray[Any]], axis: int) -> NDArray[Any]:
    """Return the terms' numbers by turns along the axis of k, filled up with zeros for the loops.

    Of the terms only one has a product for any k, so the others add zero, which changes no register.
    """
    count = len(tables)
    shape = [codes.shape[0], codes.shape[1]]
    shape[axis] = -(-shape[axis] * count // kernels.DEPTH) * kernels.DEPTH
    shape[0] = -(-shape[0] // kernels.ROWS) * kernels.ROWS
    out = np.zeros(shape, tables[0].dtype)
    for number, table in enumerate(tables):
        if axis == 1:
            kernels.look_up(codes, table, out[: codes.shape[0], number : codes.shape[1] * count : count])
        else:
            kernels.look_up(codes, table, out[number : codes.shape[0] * count : count])
    return out


def _plain_step(path: str) -> Callable[[NDArray[Any], tuple[Term, ...], tuple[int, int]], _Add]:
    def step(w: NDArray[Any], terms: tuple[Term, ...], limits: tuple[int, int]) -> _Add:
        a_tables = [term.a.table(_NUMBERS[path]) for term in terms]
        w_tile = _interleaved(w, [term.w.table(_NUMBERS[path]) for term in terms], 0)

        def add(a: NDArray[Any], out: NDArray[Any]) -> None:
            _KERNELS[path](_interleaved(a, a_tables, 1), w_tile, out, *limits)

        return add

    return step


def _wide_step(w: NDArray[Any], terms: tuple[Term, ...], limits: tuple[int, int]) -> _Add:
    def tiles(codes: NDArray[Any], parts: list[Part], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
        return (
            _interleaved(codes, [part.significand.astype(np.int64) for part in parts], axis),
            _interleaved(codes, [part.shift.astype(np.int64) for part in parts], axis),
        )

    w_tiles = tiles(w, [term.w for term in terms], 0)

    def add(a: NDArray[Any], out: NDArray[Any]) -> None:
        kernels.saturate_wide(*tiles(a, [term.a for term in terms], 1), *w_tiles, out, *limits)

    return add


def _saturate_python(out: NDArray[Any], a: NDArray[Any], w: NDArray[Any], terms: tuple[Term, ...], low: int, high: int) -> None:
    tables = [(term.a.integers(), term.w.integers()) for term in terms]
    for k in range(w.shape[0]):
        for a_table, w_table in tables:
            out[...] = np.minimum(np.maximum(out + np.outer(a_table[a[:, k]], w_table[w[k]]), low), high)


def plan(pair: Pair, bits: int, path: str | None) -> SaturatingPlan:
    """Choose the narrowest arithmetic, or check the one asked for."""
    if path is None:
        path = next(name for name in PATHS if obstacle(name, pair, bits) is None)
    refused = obstacle(path, pair, bits)
    if refused is not None:
        raise InvalidValueError(f"path {path} must be proved exact for these operands, not {refused}")
    return SaturatingPlan(pair=pair, bits=bits, path=path)
