"""Dot products of block formats, as OCP Microscaling v1.0 words them (sections 6.1 and 6.2).

k is cut wherever a block of either operand ends. Within such a segment the products of the elements are summed exactly, times
the product of the two scales, and rounded once to float32; the segments are added up in float32, in order of k, starting from
+0. The standard leaves the arithmetic between blocks open: float32 in order is the convention here. A scalar format in the
place of one operand counts as one block with the scale 1.

The float32 scales of whole tensors (``nvfp4``) take no part in the sum: ``to_float`` multiplies by their product, which float64
holds exactly, and rounds once. NaN and Inf, in elements or in scales, propagate as in IEEE 754.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.arithmetic import accumulate_kernels as integer_kernels
from formats.arithmetic import exact
from formats.arithmetic import floating_kernels as kernels
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.products import SPECIAL, Operand, Pair, as_codes, levels, operand
from formats.arithmetic.results import FloatResult
from formats.arithmetic.sums import FLOAT32, Sums, round_with_root
from formats.arithmetic.tiles import decoded, share_rows, tiling
from formats.block import BlockFormat, BlockScales
from formats.definition import Definition
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from formats.names import unknown_name

#: codes and scales as a block format's ``encode`` returns them
Coded = tuple[ArrayLike, BlockScales]
#: paths in order of preference: what the products within a segment are summed in
PATHS = ("blocks-float32", "blocks-float64", "blocks-wide")
ACROSS = Accumulator.floating("float32")


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One operand: its codes with k on the second axis for ``a`` and on the first for ``w``, and the scale of every block."""

    operand: Operand
    codes: NDArray[Any]
    block: int
    #: scale of each block without its power of two, int16; shaped like the codes with blocks in the place of k
    significand: NDArray[np.int16]
    #: exponent of that power of two, int16
    exponent: NDArray[np.int16]
    #: where the scale is NaN
    nan: NDArray[np.bool_]
    #: scale of the whole tensor
    tensor: float

    def factor(self, *blocks: int | slice) -> NDArray[np.float64]:
        """Return the scales of some blocks."""
        scale = np.ldexp(self.significand[blocks].astype(np.float64), self.exponent[blocks].astype(np.int32))
        return np.where(self.nan[blocks], np.nan, scale)


class Segment(NamedTuple):
    """A run of k within one block of either operand."""

    k: slice
    a_block: int
    w_block: int


def block_matmul(
    a: ArrayLike | Coded,
    a_format: Format | BlockFormat,
    w: ArrayLike | Coded,
    w_format: Format | BlockFormat,
    accumulator: Accumulator,
    path: str | None,
) -> FloatResult:
    """Multiply operands (M, K) and (K, N) of which at least one has blocks, along k; see the module's docstring.

    Raises ``ValueError`` for an accumulator other than ``exact`` and ``float32``: both stand for the arithmetic above.
    """
    if accumulator.kind != "exact" and accumulator != ACROSS:
        raise InvalidValueError(
            f"accumulator of block formats must be exact or float32 (exact within a block, float32 across), not {accumulator}"
        )
    if path is not None and path not in PATHS:
        raise unknown_name("path", path, PATHS)
    sides = _side("a", a_format, a, "M, K", 1), _side("w", w_format, w, "K, N", 0)
    depth = sides[0].codes.shape[1]
    if depth != sides[1].codes.shape[0]:
        raise InvalidValueError(f"codes of a and w must agree in K, not have {depth} and {sides[1].codes.shape[0]}")
    product = BlockProduct(a=sides[0], w=sides[1])
    chosen = path or next(name for name in PATHS if product.obstacle(name) is None)
    refused = product.obstacle(chosen)
    if refused is not None:
        raise InvalidValueError(f"path {chosen} must be proved exact for these operands, not {refused}")
    return FloatResult(
        accumulator=ACROSS, path=chosen, numbers=product.run(chosen), factor=float(sides[0].tensor) * float(sides[1].tensor)
    )


def _side(side: str, fmt: Format | BlockFormat, given: ArrayLike | Coded, axes: str, axis: int) -> Side:
    if isinstance(fmt, Format):
        codes = as_codes(side, fmt, given, axes)  # type: ignore[arg-type]
        shape = (codes.shape[0], 1) if axis == 1 else (1, codes.shape[1])
        ones = np.ones(shape, np.int16)
        return _with_scales(side, fmt, codes, max(codes.shape[axis], 1), (ones, 0 * ones, ones == 0), 1.0)
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], BlockScales)):
        raise InvalidTypeError(f"operand {side} must be the pair of codes and scales that {fmt.name} encodes to")
    codes = as_codes(side, fmt.element, given[0], axes)
    scales = as_codes(f"scales of {side}", fmt.scale_format, given[1].codes, axes.replace("K", "blocks"))
    wanted = list(codes.shape)
    wanted[axis] = -(-wanted[axis] // fmt.block)
    if list(scales.shape) != wanted:
        raise InvalidValueError(
            f"scales of {side} ({fmt.name}) must have the shape {tuple(wanted)} for these codes, not {scales.shape}"
        )
    tensor = float(given[1].tensor)
    return _with_scales(side, fmt.element, codes, fmt.block, _scale_numbers(fmt, scales), tensor)


def _with_scales(
    side: str,
    fmt: Definition,
    codes: NDArray[Any],
    block: int,
    scale: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.bool_]],
    tensor: float,
) -> Side:
    found = operand(side, fmt, codes, specials=True)
    return Side(operand=found, codes=codes, block=block, significand=scale[0], exponent=scale[1], nan=scale[2], tensor=tensor)


def _scale_numbers(fmt: BlockFormat, codes: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.bool_]]:
    """Return significand, exponent and whether it is NaN, for each scale; an element's unit is taken in."""
    known = levels(fmt.scale_format)
    exponent = (known.shift + known.lsb_exponent + fmt.unit_exponent).astype(np.int16)
    return known.significand.astype(np.int16)[codes], exponent[codes], (known.status == SPECIAL)[codes]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockProduct:
    """The product of two operands with blocks."""

    a: Side
    w: Side

    @cached_property
    def pair(self) -> Pair:
        """The elements."""
        return Pair(a=self.a.operand, w=self.w.operand)

    @cached_property
    def segments(self) -> list[Segment]:
        """Runs of k between the ends of either operand's blocks, in order."""
        depth = self.w.codes.shape[0]
        cuts = sorted({*range(0, depth, self.a.block), *range(0, depth, self.w.block), depth})
        return [Segment(slice(start, stop), start // self.a.block, start // self.w.block) for start, stop in pairwise(cuts)]

    @cached_property
    def total(self) -> int:
        """Bound on a segment's sum of magnitudes, before scaling."""
        longest = max((segment.k.stop - segment.k.start for segment in self.segments), default=0)
        return max(each.total for each in exact.bounds(self.pair, longest))

    @property
    def largest_scale(self) -> int:
        """Bound on the product of the scales' significands."""
        largest = (int(np.abs(side.significand).max(initial=0)) for side in (self.a, self.w))
        return next(largest) * next(largest)

    @property
    def least_exponent(self) -> int:
        """Exponent that a segment's whole number, of the pair's lowered sums, has before scaling."""
        return self.pair.lsb_exponent + sum(self.pair.shift)

    def obstacle(self, path: str) -> str | None:
        """Return why a path is not proved exact within segments, or None where it is."""
        if path == "blocks-wide":
            return None
        if len(self.pair.sums) > 1:
            return "taken for a factor of the square root of two: it holds rational numbers"
        digits, needed = (24, self.total) if path == "blocks-float32" else (53, self.total * max(self.largest_scale, 1))
        numbers = max((max(term.a.largest, term.w.largest) for term in self.pair.lowered_sums[0]), default=0)
        if max(needed, numbers) > 2**digits:
            return f"taken for sums of {max(needed, numbers).bit_length()} bits within a block: it holds {digits}"
        least = self.least_exponent + sum(int(side.exponent.min(initial=0)) for side in (self.a, self.w))
        return None if least >= -1022 else f"taken for multiples of 2**{least}, which float64 does not scale exactly"

    def run(self, path: str) -> NDArray[np.float32]:
        """Return the float32 sums, of shape (M, N)."""
        out = np.zeros((self.a.codes.shape[0], self.w.codes.shape[1]), np.float32)
        if out.size and self.segments:
            if path == "blocks-wide":
                self._run_wide(out)
            else:
                self._run_floats(out, np.float32 if path == "blocks-float32" else np.float64)
        return out

    def _groups(self, depth: int) -> Iterator[list[Segment]]:
        """Yield neighbouring segments that together are about as long as a tile is deep."""
        group: list[Segment] = []
        for segment in self.segments:
            if group and segment.k.stop - group[0].k.start > depth:
                yield group
                group = []
            group.append(segment)
        yield group

    def _run_floats(self, out: NDArray[np.float32], dtype: type[Any]) -> None:
        a_table, w_table = (_with_specials(side, dtype) for side in (self.pair.a, self.pair.w))
        unit = 2.0**self.least_exponent
        sizes = tiling(self.a.codes, self.w.codes, bytes_per_number=dtype().nbytes, depth=self.w.codes.shape[0])
        for columns, _ in sizes.spans(out.shape[1], 1):
            for group in self._groups(sizes.depth):
                k = slice(group[0].k.start, group[-1].k.stop)
                w_tile = decoded(self.w.codes[k, columns], w_table)
                factors = [self.w.factor(segment.w_block, columns) * unit for segment in group]

                def work(
                    start: int,
                    stop: int,
                    columns: slice = columns,
                    group: list[Segment] = group,
                    w_tile: NDArray[Any] = w_tile,
                    factors: list[NDArray[np.float64]] = factors,
                ) -> None:
                    first = group[0].k.start
                    for rows in sizes.row_spans(start, stop):
                        a_tile = decoded(self.a.codes[rows, first : group[-1].k.stop], a_table)
                        tile = np.empty((a_tile.shape[0], w_tile.shape[1]), dtype)
                        for segment, factor in zip(group, factors, strict=True):
                            within = slice(segment.k.start - first, segment.k.stop - first)
                            with np.errstate(invalid="ignore"):
                                np.matmul(a_tile[:, within], w_tile[within], out=tile)
                            kernels.add_scaled(tile, self.a.factor(rows, segment.a_block), factor, out[rows, columns])

                share_rows(work, out.shape[0], w_tile.size)
                del work, w_tile, factors  # before the next tile is made

    @cached_property
    def _plan(self) -> exact.ExactPlan:
        """How a segment is summed where it is wide: with room for its scale, and held as limbs however wide it is."""
        total = max(self.total * max(self.largest_scale, 1), 2**63)
        longest = max(segment.k.stop - segment.k.start for segment in self.segments)
        return exact.ExactPlan(pair=self.pair, depth=longest, path="bands", total=total)

    def _run_wide(self, out: NDArray[np.float32]) -> None:
        sizes = tiling(self.a.codes, self.w.codes, bytes_per_number=4 * self._plan.limbs, depth=self.w.codes.shape[0])
        for columns, _ in sizes.spans(out.shape[1], 1):
            for rows in sizes.row_spans(0, out.shape[0]):
                for segment in self.segments:
                    with np.errstate(over="ignore"):
                        addend = self._rounded(segment, rows, columns).astype(np.float32)
                    if self._has_specials:
                        self._overlay(segment, rows, columns, addend)
                    kernels.add_rows(kernels.FLOAT32, addend, out[rows, columns])

    def _rounded(self, segment: Segment, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Return a segment's scaled sums, rounded once to float32; any number where there are NaN and Inf."""
        at_a, at_w = (rows, segment.a_block), (segment.w_block, columns)
        exponent = np.add.outer(self.a.exponent[at_a].astype(np.int64), self.w.exponent[at_w]) + self.least_exponent
        numbers = self._plan.run(self.a.codes[rows, segment.k], self.w.codes[segment.k, columns])
        for each in numbers:
            integer_kernels.scale_limbs(each, self.a.significand[at_a], self.w.significand[at_w])
        sums = [Sums(numbers=each, limbs=True) for each in numbers]
        if len(sums) == 1:
            return sums[0].rounded(exponent, *FLOAT32)
        even, odd = (each.to_integers() for each in sums)
        triples = zip(even.flat, odd.flat, exponent.flat, strict=True)
        rounded = [round_with_root(int(e), int(o), int(power), *FLOAT32) for e, o, power in triples]
        return np.array(rounded, np.float64).reshape(exponent.shape)

    @property
    def _has_specials(self) -> bool:
        sides = (self.a, self.w)
        return any((s.operand.used & (s.operand.levels.status == SPECIAL)).any() or s.nan.any() for s in sides)

    def _overlay(self, segment: Segment, rows: slice, columns: slice, addend: NDArray[np.float32]) -> None:
        """Put NaN and Inf where the sum of IEEE products has them: signs and zeros stand for the finite numbers."""
        a_signs, w_signs = (_signs(side) for side in (self.pair.a, self.pair.w))
        a_tile = a_signs[self.a.codes[rows, segment.k]] * _sign(self.a.factor(rows, segment.a_block))[:, np.newaxis]
        w_tile = w_signs[self.w.codes[segment.k, columns]] * _sign(self.w.factor(segment.w_block, columns))
        with np.errstate(invalid="ignore"):
            signs = a_tile @ w_tile
        np.copyto(addend, signs, where=~np.isfinite(signs), casting="same_kind")


def _with_specials(side: Operand, dtype: type[Any]) -> NDArray[Any]:
    """Return the lowered whole numbers of a side, NaN and Inf among them."""
    finite = side.part(root=False)
    table = finite.lowered(finite.least_shift).table(dtype)
    special = side.used & (side.levels.status == SPECIAL)
    table[special] = side.levels.rational[special]
    return table


def _sign(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(numbers), np.nan, np.sign(numbers))


def _signs(side: Operand) -> NDArray[np.float64]:
    special = side.levels.status == SPECIAL
    return np.where(special, side.levels.rational, np.sign(side.levels.significand))
