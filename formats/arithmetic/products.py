"""Operands of a dot product: their codes, and what each code is worth as a whole number of its format's LSB.

The LSB of a format is the largest power of two that all of its finite values are whole multiples of: the exponent of the last
place of its smallest number. The LSB of a product is the product of its operands' LSBs. Values with a factor of the square
root of two are kept apart: ``even`` parts are rational, ``odd`` parts are to be multiplied by the root.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.arithmetic import accumulate_kernels as kernels
from formats.block import BlockScales
from formats.definition import Definition, Spacing
from formats.errors import InvalidTypeError, InvalidValueError

FINITE, UNUSED, SPECIAL = range(3)
#: the significands that products are formed of stay within these many bits, so that two of them fit an int64
LARGEST_SIGNIFICAND_BITS = 31


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Whole numbers ``significand << shift`` for every code, and whether any of them is not zero."""

    #: odd or zero, int32 of shape (codes,)
    significand: NDArray[np.int32]
    #: at least 0, int16 of shape (codes,); 0 where the significand is
    shift: NDArray[np.int16]
    #: which codes occur; the others are zero
    used: NDArray[np.bool_]

    @cached_property
    def largest(self) -> int:
        """Largest magnitude, 0 where there is none."""
        magnitude = np.abs(self.significand).astype(np.int64)
        length = bit_lengths(magnitude)
        width = np.where(magnitude == 0, 0, length + self.shift)
        widest = int(width.max(initial=0))
        if widest == 0:
            return 0
        # of the widest, the largest once the leading bits are brought in line
        leading = np.where(width == widest, magnitude << (LARGEST_SIGNIFICAND_BITS - length), 0)
        first = int(leading.argmax())
        return int(magnitude[first]) << int(self.shift[first])

    @property
    def empty(self) -> bool:
        """Whether all numbers are zero."""
        return not self.significand.any()

    @property
    def least_shift(self) -> int:
        """Smallest shift of a number that is not zero, 0 where there is none."""
        shifts = self.shift[self.significand != 0]
        return int(shifts.min()) if len(shifts) else 0

    def lowered(self, by: int) -> "Part":
        """Return the numbers divided by 2**by, which must divide them all."""
        if by == 0:
            return self
        shift = np.where(self.significand == 0, 0, self.shift - by)
        return Part(significand=self.significand, shift=shift, used=self.used)

    def doubled(self) -> "Part":
        """Return the numbers times two."""
        return self.lowered(-1)

    def table(self, dtype: type[Any]) -> NDArray[Any]:
        """Return the numbers as an array of ``dtype``, which must hold them all."""
        if np.issubdtype(dtype, np.floating):
            return np.ldexp(self.significand.astype(np.float64), self.shift.astype(np.int32)).astype(dtype)
        return np.left_shift(self.significand.astype(np.int64), self.shift).astype(dtype)

    def integers(self) -> NDArray[np.object_]:
        """Return the numbers as Python integers."""
        made = np.empty(len(self.significand), object)
        made[:] = [int(number) << int(shift) for number, shift in zip(self.significand, self.shift, strict=True)]
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Levels:
    """The values of a format's codes; one entry more than there are codes stands for the zero of padding."""

    name: str
    bits: int
    lsb_exponent: int
    #: odd or zero, and how far to shift it, as in ``Part``
    significand: NDArray[np.int32]
    shift: NDArray[np.int16]
    #: whether there is a factor of the square root of two
    root: NDArray[np.bool_]
    #: FINITE, UNUSED or SPECIAL (NaN and Inf)
    status: NDArray[np.uint8]
    #: value without the factor of the root, with the sign of zero, Inf and NaN; Inf where float64 cannot hold it
    rational: NDArray[np.float64]
    #: whether sums are kept as two: by the format's family, not by the codes at hand
    has_root: bool


class Operand(NamedTuple):
    """One side of a dot product, as far as planning goes: its levels, and which of them occur."""

    side: str
    levels: Levels
    used: NDArray[np.bool_]

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which codes occur and are finite."""
        finite: NDArray[np.bool_] = self.used & (self.levels.status == FINITE)
        return finite

    def part(self, *, root: bool) -> Part:
        """Return the numbers with or without a factor of the root, zero for codes that do not occur."""
        of_part = self.finite & (self.levels.root == root)
        significand, shift = (np.where(of_part, table, 0) for table in (self.levels.significand, self.levels.shift))
        return Part(significand=significand, shift=shift, used=self.used)


def bit_lengths(magnitude: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bit length of numbers from 0 to 2**53."""
    return np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)


@lru_cache(maxsize=64)
def levels(fmt: Definition) -> Levels:
    """Return the values of a format's codes as whole numbers of its LSB."""
    status = np.zeros(2**fmt.bits, np.uint8)
    status[list(fmt.unused)] = UNUSED
    status[[*fmt.nan, *(fmt.infinities or ())]] = SPECIAL
    significand: NDArray[np.int64] = np.where(status == FINITE, fmt.significand, 0)
    if np.abs(significand).max() >= 2**LARGEST_SIGNIFICAND_BITS:
        limit = f"below 2**{LARGEST_SIGNIFICAND_BITS}"
        raise InvalidValueError(f"significands of {fmt.name} must be {limit}, not {int(np.abs(significand).max())}")
    zeros = np.where(significand == 0, 0, bit_lengths(np.bitwise_and(significand, -significand)) - 1)
    exponent = fmt.exponent + zeros
    occurring = exponent[significand != 0]
    lsb = int(occurring.min()) if len(occurring) else 0
    rational = np.where(status == FINITE, _ldexp(significand, fmt.exponent), fmt.values)
    if fmt.negative_zero is not None:
        rational[fmt.negative_zero] = -0.0
    return Levels(
        name=fmt.name,
        bits=fmt.bits,
        lsb_exponent=lsb,
        significand=np.append(significand >> zeros, 0).astype(np.int32),
        shift=np.append(np.where(significand == 0, 0, exponent - lsb), 0).astype(np.int16),
        root=np.append((fmt.root == 1) & (significand != 0), False),
        status=np.append(status, np.uint8(FINITE)),
        rational=np.append(rational, 0.0),
        has_root=fmt.spacing == Spacing.POWERS_OF_ROOT_TWO or bool(fmt.root.any()),
    )


def lsb_exponent(fmt: Definition) -> int:
    """Return the exponent of the largest power of two that all finite values of a format are whole multiples of."""
    return levels(fmt).lsb_exponent


def _ldexp(significand: NDArray[np.int64], exponent: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(significand.astype(np.float64), exponent.astype(np.int32))


def as_codes(side: str, fmt: Definition, codes: ArrayLike, axes: str) -> NDArray[Any]:
    """Return codes as a C-contiguous array of the format's code dtype, with as many axes as ``axes`` names.

    Raises ``TypeError`` for other than integers, ``ValueError`` for other shapes and for codes out of range.
    """
    if isinstance(codes, tuple) and any(isinstance(part, BlockScales) for part in codes):
        raise InvalidTypeError(f"operand {side} must be codes alone for {fmt.name}, not codes and scales")
    array = np.asarray(codes)
    wanted = len(axes.split(","))
    if array.ndim != wanted:
        raise InvalidValueError(f"codes of {side} must have {wanted} axes ({axes}), not the shape {array.shape}")
    if array.dtype.kind not in "ui":
        raise InvalidTypeError(f"codes of {side} ({fmt.name}) must be integers, not {array.dtype}")
    highest = 2**fmt.bits - 1
    if array.size and (np.iinfo(array.dtype).max > highest or array.dtype.kind == "i"):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > highest:
            raise InvalidValueError(f"codes of {side} ({fmt.name}) must be 0 to {highest}, not {low if low < 0 else high}")
    return np.ascontiguousarray(array, fmt.code_dtype)


def operand(side: str, fmt: Definition, codes: NDArray[Any], *, specials: bool) -> Operand:
    """Look which codes occur; refuse unused ones, and NaN and Inf unless ``specials``."""
    known = levels(fmt)
    used = np.zeros(len(known.status), np.bool_)
    flat = codes.reshape(-1)
    kernels.mark_used(flat, used)
    for status, wanted, found in ((UNUSED, "used ones", "unused ones"), (SPECIAL, "finite numbers", "NaN or Inf")):
        if (status == UNUSED or not specials) and (used & (known.status == status)).any():
            count = int(np.isin(flat, np.flatnonzero(known.status == status)).sum())
            raise InvalidValueError(f"codes of {side} ({fmt.name}) must be {wanted}, not {found} in {count} elements")
    return Operand(side, known, used)


class Term(NamedTuple):
    """A product that is summed: a part of one side times a part of the other."""

    a: Part
    w: Part


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two operands, and the sums that their products go to."""

    a: Operand
    w: Operand

    @property
    def lsb_exponent(self) -> int:
        """Exponent of the product's LSB."""
        return self.a.levels.lsb_exponent + self.w.levels.lsb_exponent

    @property
    def has_root(self) -> bool:
        """Whether there are two sums, of even and odd powers of the root."""
        return self.a.levels.has_root or self.w.levels.has_root

    @cached_property
    def shift(self) -> tuple[int, int]:
        """How far each side's numbers are all shifted."""
        found = [_common_shift(side) for side in (self.a, self.w)]
        return found[0], found[1]

    @cached_property
    def sums(self) -> tuple[tuple[Term, ...], ...]:
        """Return the terms of the even sum and, where there is a root, of the odd sum; in units of the product's LSB."""
        if not self.has_root:
            return (_present((Term(self.a.part(root=False), self.w.part(root=False)),)),)
        a, w = ((side.part(root=False), side.part(root=True)) for side in (self.a, self.w))
        even = (Term(a[0], w[0]), Term(a[1].doubled(), w[1]))  # odd times odd has the factor two
        odd = (Term(a[0], w[1]), Term(a[1], w[0]))
        return _present(even), _present(odd)

    @cached_property
    def lowered_sums(self) -> tuple[tuple[Term, ...], ...]:
        """As ``sums``, divided by 2 to the power of both sides' ``shift``."""
        down_a, down_w = self.shift
        return tuple(tuple(Term(term.a.lowered(down_a), term.w.lowered(down_w)) for term in terms) for terms in self.sums)


def _common_shift(side: Operand) -> int:
    numbers = side.finite & (side.levels.significand != 0)
    return int(side.levels.shift[numbers].min()) if numbers.any() else 0


def _present(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(term for term in terms if not (term.a.empty or term.w.empty))
