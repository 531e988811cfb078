"""Exact dot products by whatever arithmetic is proved to be exact for the operands at hand, the fastest first.

Every bound is on the sum of the magnitudes of the products, so that it holds for every partial sum in whatever order. Floats
are exact as long as that stays within their significand: 2**24 for float32, 2**53 for float64. Longer sums are cut into slices
of k that are added up as integers, wider numbers into bands of bits that are multiplied apart.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import accumulate_kernels as kernels
from formats.arithmetic.exact_paths import FLOATS, LARGEST_BYTE, RUNNERS, SMALLEST_BYTE, Runner, torch_is_exact
from formats.arithmetic.products import Pair, Part, Term
from formats.arithmetic.sums import Sums
from formats.errors import InvalidValueError

#: paths in order of preference
PATHS = ("int8", "float32", "float64", "bands", "integer")
#: shorter slices of k spend more time adding up than multiplying
_WORTHWHILE = {"float32": 128, "float64": 32}
#: fewer multiply-accumulates than this are not worth a call of torch
_LEAST_FOR_TORCH = 1 << 15


class Bounds(NamedTuple):
    """What is known about the sums: the largest product, and the largest sum of products' magnitudes."""

    product: int
    total: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactPlan:
    """How the sums of a pair of operands are computed; numbers are divided by 2**shift of either side."""

    pair: Pair
    depth: int
    path: str
    total: int

    @cached_property
    def shift(self) -> int:
        """Exponent that the sums are to be multiplied by, in units of the product's LSB."""
        return sum(self.pair.shift)

    @property
    def limbs(self) -> int:
        """Number of 32-bit limbs of a sum, or 0 where int64 holds it."""
        return 0 if self.total < 2**63 else (self.total.bit_length() + kernels.LIMB) // kernels.LIMB

    def blank(self, rows: int, columns: int) -> list[NDArray[Any]]:
        """Return zeros to add the even and, where there is a root, the odd sums to."""
        if self.limbs:
            return [np.zeros((self.limbs, rows, columns), np.uint32) for _ in self.pair.sums]
        dtype = np.int32 if self.total < 2**31 and self.path not in ("bands", "integer") else np.int64
        return [np.zeros((rows, columns), dtype) for _ in self.pair.sums]

    def run(self, a: NDArray[Any], w: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the sums of codes (M, K) times codes (K, N)."""
        made = self.blank(a.shape[0], w.shape[1])
        for out, runners in zip(made, self._runners, strict=True):
            for add in runners if out.size and self.depth else ():
                add(out, a, w)
        return made

    @cached_property
    def _runners(self) -> list[list[Runner]]:
        """Return what adds the terms of each sum, its tables made."""
        return [[RUNNERS[self.path](term, self.total, self.depth) for term in terms] for terms in self.pair.lowered_sums]

    def sums(self, numbers: list[NDArray[Any]]) -> list[Sums]:
        """Return what ``run`` made as sums."""
        return [Sums(numbers=each, shift=self.shift, limbs=bool(self.limbs)) for each in numbers]


def bounds(pair: Pair, depth: int) -> list[Bounds]:
    """Return the bounds of the even and the odd sum by the largest numbers that occur, in lowered units."""
    return [_bounds(terms, depth) for terms in pair.lowered_sums]


def _bounds(terms: tuple[Term, ...], depth: int) -> Bounds:
    product = max((term.a.largest * term.w.largest for term in terms), default=0)
    return Bounds(product, product * depth)  # each k has a product in one of the terms only


def closer_bounds(pair: Pair, w: NDArray[Any], found: list[Bounds]) -> list[Bounds]:
    """Return bounds by the columns of ``w`` (K, N): their sums of magnitudes, times the largest number of the other side."""
    return [
        Bounds(each.product, min(each.total, sum(term.a.largest * _largest_column(term.w, w) for term in terms)))
        for each, terms in zip(found, pair.lowered_sums, strict=True)
    ]


def _largest_column(part: Part, codes: NDArray[Any]) -> int:
    if part.largest * len(codes) >= 2**63:
        return part.largest * len(codes)
    sums = np.zeros(codes.shape[1], np.int64)
    kernels.column_sums(codes, np.abs(part.table(np.int64)), sums)
    return int(sums.max(initial=0))


def plan(pair: Pair, w: NDArray[Any], depth: int, path: str | None, work: int) -> ExactPlan:
    """Choose the fastest path that is proved exact, or check the one asked for; ``work`` counts multiply-accumulates."""
    found = bounds(pair, depth)
    if max(each.total for each in found) > 2**24:
        found = closer_bounds(pair, w, found)
    total = max(each.total for each in found)
    if path is None:
        path = next(name for name in PATHS if obstacle(name, pair, depth, found) is None and _worthwhile(name, found, depth, work))
    else:
        refused = obstacle(path, pair, depth, found)
        if refused is not None:
            raise InvalidValueError(f"path {path} must be proved exact for these operands, not {refused}")
    return ExactPlan(pair=pair, depth=depth, path=path, total=total)


def obstacle(path: str, pair: Pair, depth: int, found: list[Bounds]) -> str | None:
    """Return why a path is not proved exact, or None where it is."""
    total, product = max(each.total for each in found), max(each.product for each in found)
    if path == "bands":
        return None
    if total >= 2**63:
        return f"taken for sums of {total.bit_length() + 1} bits: its sums are int64"
    if path in FLOATS:
        digits = FLOATS[path][1]
        widest = max((max(term.a.largest, term.w.largest, 1) for terms in pair.lowered_sums for term in terms), default=1)
        needed = max(product, widest)
        return None if needed <= 2**digits else f"taken for products of {needed.bit_length()} bits: it holds {digits}"
    if path == "int8":
        return _int8_obstacle(pair)
    return None


def _int8_obstacle(pair: Pair) -> str | None:
    for terms in pair.lowered_sums:
        for term in terms:
            for part in term:
                table_low, table_high = _range(part)
                fits = table_low >= SMALLEST_BYTE and table_high <= LARGEST_BYTE
                if not fits and not (table_low >= 0 and table_high <= 255):
                    return f"taken for numbers from {table_low} to {table_high}: it multiplies 8-bit integers"
    if "torch" not in sys.modules:
        return "taken without torch: it must have been imported by the caller"
    return None if torch_is_exact() else "taken on this processor: torch._int_mm fails the check of its extreme values"


def _range(part: Part) -> tuple[int, int]:
    if part.largest >= 2**15:
        return -part.largest, part.largest
    numbers = part.table(np.int64)
    return int(numbers.min()), int(numbers.max())


def _worthwhile(path: str, found: list[Bounds], depth: int, work: int) -> bool:
    if path == "int8":
        return work >= _LEAST_FOR_TORCH
    if path not in FLOATS:
        return True
    product = max(each.product for each in found)
    limit: int = 2 ** FLOATS[path][1]
    total = max(each.total for each in found)
    return total <= limit or limit // max(product, 1) >= min(depth, _WORTHWHILE[path])
