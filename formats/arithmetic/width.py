"""How wide a register must be for a dot product never to overflow: two's complement, in units of the product's LSB.

Worst case over all inputs, each element free to take any finite value of its format, and over all prefixes in order of k. For
formats in powers of the square root of two the even and the odd register are bounded apart. A register has at least 2 bits.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.arithmetic.accumulator import SMALLEST_WIDTH
from formats.arithmetic.matmul import as_format
from formats.arithmetic.products import FINITE, Levels, Operand, as_codes, levels, operand
from formats.errors import InvalidValueError
from formats.format import Format


class Reach(NamedTuple):
    """Smallest and largest contribution, Python integers or arrays of them."""

    low: Any
    high: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Width:
    """Widths in bits that are just enough."""

    #: for the registers of each column, int64 of shape (N,)
    even: NDArray[np.int64]
    #: the same for odd powers of the square root of two, where the formats have them
    odd: NDArray[np.int64] | None

    @property
    def per_column(self) -> NDArray[np.int64]:
        """Width that each column needs, of both its registers where there are two; int64 of shape (N,)."""
        return self.even if self.odd is None else np.maximum(self.even, self.odd)

    @property
    def overall(self) -> int:
        """Width that all columns need."""
        return int(self.per_column.max(initial=SMALLEST_WIDTH))


def required_bits(w_codes: ArrayLike, w_format: str | Format, a_format: str | Format) -> Width:
    """Return the smallest widths in which no input of ``a_format`` overflows for the weights ``w_codes`` (K, N).

    Raises ``ValueError`` for weights that are NaN, Inf or unused codes.
    """
    w, a = _scalar(w_format), _scalar(a_format)
    codes = as_codes("w", w, w_codes, "K, N")
    side = operand("w", w, codes, specials=False)
    even, odd = _reaches_by_code(side, levels(a))
    return Width(even=_columns(codes, even), odd=None if odd is None else _columns(codes, odd))


def bound_bits(a_format: str | Format, w_format: str | Format, length: int) -> int:
    """Return the smallest width in which no dot product of ``length`` elements overflows, whatever the operands.

    Closed forms in the literature are upper bounds: for minifloats 2**e_a + m_a + 2**e_w + m_w + ceil(log2 length) - 1
    ("Shedding the Bits", arXiv 2311.12359), for integers see ``a2q_bits``.
    """
    if length < 0:
        raise InvalidValueError(f"length of a dot product must be at least 0, not {length}")
    a, w = levels(_scalar(a_format)), levels(_scalar(w_format))
    every = Operand("w", w, np.append(w.status[:-1] == FINITE, False))
    bits = SMALLEST_WIDTH
    for reaches in _reaches_by_code(every, a):
        if reaches is not None:
            low = min(number for code, number in enumerate(reaches.low) if every.used[code])
            high = max(number for code, number in enumerate(reaches.high) if every.used[code])
            bits = max(bits, _bits(min(length * low, 0), max(length * high, 0)))
    return bits


def a2q_bits(a_bits: int, w_bits: int, length: int, *, signed: bool) -> int:
    """Return the data-type bound of A2Q on integer dot products (arXiv 2301.13376, section 3.1).

    ceil(alpha + log2(1 + 2**-alpha) + 1) with alpha = log2(length) + a_bits + w_bits - 1 - signed, which is one more than the
    bit length of 2**alpha; ``signed`` tells whether the activations are. The length must be at least 1.
    """
    if min(a_bits, w_bits, length) < 1:
        raise InvalidValueError(f"widths and length must be at least 1, not {min(a_bits, w_bits, length)}")
    return (length << (a_bits + w_bits - 1 - signed)).bit_length() + 1


def a2q_weight_bits(l1_norm: int, a_bits: int, *, signed: bool) -> int:
    """Return A2Q's bound for known integer weights, whose magnitudes sum up to ``l1_norm`` (arXiv 2301.13376, section 3.2).

    ceil(beta + log2(1 + 2**-beta) + 1) with beta = log2(l1_norm) + a_bits - signed.
    """
    if a_bits < 1 or l1_norm < 0:
        raise InvalidValueError(f"l1 norm and width must be at least 0 and 1, not {l1_norm} and {a_bits}")
    return max((l1_norm << (a_bits - signed)).bit_length() + 1, SMALLEST_WIDTH)


def _reaches_by_code(w: Operand, a: Levels) -> tuple[Reach, Reach | None]:
    """Return for each code of ``w`` that occurs the least and the most that its products add to the even and the odd register."""
    finite = Operand("a", a, np.append(a.status[:-1] == FINITE, False))
    even, odd = (_extremes(finite, root=root) for root in (False, True))
    straight, crossed = w.part(root=False).integers(), w.part(root=True).integers()
    if not (a.has_root or w.levels.has_root):
        return _times(straight, even), None
    # a code of w has or has not the factor of the root; the register it adds nothing to stays where it is
    of_root = w.finite & w.levels.root
    to_even = _merged(of_root, _times(2 * crossed, odd), _times(straight, even))
    to_odd = _merged(of_root, _times(crossed, even), _times(straight, odd))
    return to_even, to_odd


def _extremes(side: Operand, *, root: bool) -> Reach:
    """Return the least and the largest number of a side with or without the root; others count as zero."""
    numbers = side.part(root=root).integers()[side.used]
    return Reach(min(numbers, default=0), max(numbers, default=0))


def _times(numbers: NDArray[np.object_], reach: Reach) -> Reach:
    ends = numbers * reach.low, numbers * reach.high
    return Reach(np.minimum(*ends), np.maximum(*ends))


def _merged(condition: NDArray[np.bool_], one: Reach, other: Reach) -> Reach:
    return Reach(np.where(condition, one.low, other.low), np.where(condition, one.high, other.high))


def _columns(codes: NDArray[Any], reaches: Reach) -> NDArray[np.int64]:
    """Return the width that each column's prefixes need."""
    depth, columns = codes.shape
    widest = max((abs(number) for side in reaches for number in side), default=0)
    dtype = np.int64 if widest * max(depth, 1) < 2**63 else object
    low_table, high_table = reaches.low.astype(dtype), reaches.high.astype(dtype)
    low, high, lowest, highest = (np.zeros(columns, dtype) for _ in range(4))
    for row in codes:
        low, high = low + low_table[row], high + high_table[row]
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return np.array([_bits(int(least), int(most)) for least, most in zip(lowest, highest, strict=True)], np.int64)


def _bits(low: int, high: int) -> int:
    """Return the width of two's complement that holds both, at least that of a register."""
    return max(high.bit_length() + 1, (~low).bit_length() + 1 if low < 0 else 1, SMALLEST_WIDTH)


def _scalar(fmt: str | Format) -> Format:
    found = as_format(fmt)
    if not isinstance(found, Format):
        raise InvalidValueError(f"format must be one whose codes stand alone here, not the block format {found.name}")
    return found
