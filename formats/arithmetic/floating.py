"""Dot products in float32, float16 or bfloat16: each product and each sum is rounded once, to nearest even.

A product of two float32 numbers rounds once in hardware, so operands that float32 holds exactly are multiplied there. Other
products are exact in float64, or lie beyond its range and so beyond that of every type here. A product with a factor of the
square root of two is taken in float64 with a relative error below 2**-51.6; that cannot move it across a boundary of 24 digits,
since s * sqrt(2) stays away from any number m of 25 digits by more than 2**-51 of it: |2 * s**2 - m**2| is at least 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import floating_kernels as kernels
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.products import Operand, Pair
from formats.arithmetic.tiles import Tiling, decoded, share_rows, tiling
from formats.errors import InvalidValueError

#: paths in order of preference: what products are formed in
PATHS = ("products-float32", "products-float64")
_KINDS = {"float32": kernels.FLOAT32, "float16": kernels.FLOAT16, "bfloat16": kernels.BFLOAT16}
#: products of significands with a root must stay within these many bits, for the bound above to hold
_ROOT_BITS = 24


class _Tables(NamedTuple):
    """Numbers of each code: of ``a``, which variant of ``w`` they are multiplied with, and the variants of ``w``."""

    a: NDArray[Any]
    variant: NDArray[np.uint8]
    w: list[NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatingPlan:
    """How the sums of a pair of operands are rounded; see ``exact.ExactPlan``."""

    pair: Pair
    accumulator: Accumulator
    path: str

    @property
    def kind(self) -> int:
        """What the compiled loops call the type."""
        return _KINDS[str(self.accumulator.type)]

    @cached_property
    def tables(self) -> _Tables:
        """Decoded numbers."""
        dtype = np.float32 if self.path == "products-float32" else np.float64
        a, w = self.pair.a.levels, self.pair.w.levels
        root = np.sqrt(2.0)
        if not a.root.any():
            return _Tables(a.rational.astype(dtype), np.zeros(len(a.root), np.uint8), [_times(w.rational, w.root, 1, root, dtype)])
        variants = [_times(w.rational, w.root, 1, root, dtype), _times(w.rational, w.root, root, 2, dtype)]
        return _Tables(a.rational.astype(dtype), a.root.astype(np.uint8), variants)

    def blank(self, rows: int, columns: int) -> list[NDArray[Any]]:
        """Return sums of +0."""
        return [np.zeros((rows, columns), np.float32)]

    def run(self, a: NDArray[Any], w: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the sums of codes (M, K) times codes (K, N), held in float32."""
        made = self.blank(a.shape[0], w.shape[1])
        if made[0].size and w.shape[0]:
            sizes = tiling(a, w, bytes_per_number=8, depth=256 if self.accumulator.order == "sequential" else kernels.TREE_DEPTH)
            (self._sequential if self.accumulator.order == "sequential" else self._pairwise)(made[0], a, w, sizes)
        return made

    def _sequential(self, out: NDArray[Any], a: NDArray[Any], w: NDArray[Any], sizes: Tiling) -> None:
        plain = self.kind == kernels.FLOAT32 and self.path == "products-float32"
        for columns, k in sizes.spans(w.shape[1], w.shape[0]):
            add = self._plain_step(w[k, columns]) if plain else self._step(w[k, columns], kernels.sequential)
            self._share(add, out[:, columns], a[:, k], sizes)
            del add  # before the next tile is made

    def _pairwise(self, out: NDArray[Any], a: NDArray[Any], w: NDArray[Any], sizes: Tiling) -> None:
        """Sum tiles of a power of two of k as trees, and their sums as a tree of the same kind."""
        depth = 1 << (sizes.depth.bit_length() - 1)
        for columns, _ in sizes.spans(w.shape[1], 1):
            stack: list[NDArray[Any]] = []
            for number, first in enumerate(range(0, w.shape[0], depth)):
                k = slice(first, first + depth)
                stack.append(np.empty((a.shape[0], columns.stop - columns.start), np.float32))
                self._share(self._step(w[k, columns], kernels.pairwise), stack[-1], a[:, k], sizes)
                for _ in range((~number & (number + 1)).bit_length() - 1):
                    self._merge(stack)
            while len(stack) > 1:
                self._merge(stack)
            out[:, columns] = stack[0]

    def _merge(self, stack: list[NDArray[Any]]) -> None:
        kernels.add_rows(self.kind, stack.pop(), stack[-1])

    def _share(self, add: "_Add", out: NDArray[Any], a: NDArray[Any], sizes: Tiling) -> None:
        def work(start: int, stop: int) -> None:
            for rows in sizes.row_spans(start, stop):
                add(a[rows], out[rows])

        share_rows(work, out.shape[0], out.shape[1] * a.shape[1])

    def _plain_step(self, w: NDArray[Any]) -> "_Add":
        depth = -(-w.shape[0] // 4) * 4
        w_tile = decoded(w, self.tables.w[0], rows=depth)

        def add(a: NDArray[Any], out: NDArray[Any]) -> None:
            kernels.sequential_float32(decoded(a, self.tables.a, rows=a.shape[0] + a.shape[0] % 2, columns=depth), w_tile, out)

        return add

    def _step(self, w: NDArray[Any], kernel: Callable[..., None]) -> "_Add":
        double = self.path == "products-float64"
        w_tiles = np.stack([decoded(w, table) for table in self.tables.w])

        def add(a: NDArray[Any], out: NDArray[Any]) -> None:
            kernel(self.kind, double, decoded(a, self.tables.a), decoded(a, self.tables.variant), w_tiles, out)

        return add


#: adds a tile of codes of ``a`` to sums
_Add = Callable[[NDArray[Any], NDArray[Any]], None]


def _times(rational: NDArray[np.float64], root: NDArray[np.bool_], plain: float, rooted: float, dtype: type[Any]) -> NDArray[Any]:
    """Return numbers times one factor or, where they have a factor of the root, another."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (rational * np.where(root, rooted, plain)).astype(dtype)


def plan(pair: Pair, accumulator: Accumulator, path: str | None) -> FloatingPlan:
    """Choose what products are formed in, or check what is asked for."""
    refused = {name: obstacle(name, pair, accumulator) for name in PATHS}
    chosen = path or next((name for name in PATHS if refused[name] is None), PATHS[-1])
    if refused[chosen] is not None:
        raise InvalidValueError(f"path {chosen} must be proved exact for these operands, not {refused[chosen]}")
    return FloatingPlan(pair=pair, accumulator=accumulator, path=chosen)


def obstacle(path: str, pair: Pair, accumulator: Accumulator) -> str | None:
    """Return why products are not rounded once on this path, or None where they are."""
    digits = (_largest_significand(pair.a) * _largest_significand(pair.w)).bit_length()
    roots = any(side.levels.root[side.used].any() for side in (pair.a, pair.w))
    if path == "products-float64":
        if _least(pair.a) + _least(pair.w) < -1074:
            return "taken for products that float64 does not hold"
        limit = _ROOT_BITS if roots else 53
        return None if digits <= limit else f"taken for products of {digits} digits: it holds {limit}"
    if roots:
        return "taken for a factor of the square root of two: it holds rational numbers"
    if not (_in_float32(pair.a) and _in_float32(pair.w)):
        return "taken for operands that float32 does not hold"
    if accumulator.type == "float32":
        return None
    exact = digits <= 24 and _least(pair.a) + _least(pair.w) >= -149 and _most(pair.a) + _most(pair.w) <= 128
    return None if exact else "taken for products that float32 does not hold, and that would be rounded twice"


def _numbers(side: Operand) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return significands, odd, and exponents of the numbers that occur and are not zero."""
    wanted = side.finite & (side.levels.significand != 0)
    return np.abs(side.levels.significand[wanted]), side.levels.shift[wanted] + side.levels.lsb_exponent


def _largest_significand(side: Operand) -> int:
    return int(_numbers(side)[0].max(initial=1))


def _least(side: Operand) -> int:
    return int(_numbers(side)[1].min(initial=0))


def _most(side: Operand) -> int:
    """Return the exponent of a power of two that all numbers are below."""
    significand, exponent = _numbers(side)
    return int((exponent + np.frexp(significand.astype(np.float64))[1]).max(initial=0))


def _in_float32(side: Operand) -> bool:
    return _largest_significand(side) < 2**24 and _least(side) >= -149 and _most(side) <= 128
