"""What a multiplier reads from a code: tables by code, found from the format's exact values alone.

Every format can be read as sign, significand and shift: value = (-1)**sign * significand * 2**shift * sqrt(2)**root, in units of
its LSB. Formats that are two's complement or unsigned integers are read as they are, too.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from formats.arithmetic.products import FINITE, SPECIAL, levels
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl.truth_table import Entry, is_wire


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A format's codes as fields; None where a code is unused or, for shift and root, the value zero."""

    bits: int
    sign: tuple[Entry, ...]
    significand: tuple[Entry, ...]
    #: how far the significand is shifted, plus ``shift_offset``
    shift: tuple[Entry, ...]
    #: places to drop after shifting: an offset can save the logic that would subtract it from a code's field
    shift_offset: int
    root: tuple[Entry, ...]
    #: the values themselves, in LSBs, without the factor of the root
    integer: tuple[Entry, ...]
    lsb_exponent: int
    #: whether codes are the values, as two's complement or unsigned numbers
    plain: bool
    has_root: bool

    @property
    def signed(self) -> bool:
        """Whether a value is negative."""
        return any(self.sign)

    @property
    def significand_bits(self) -> int:
        """Width of the significand."""
        return max(entry or 0 for entry in self.significand).bit_length()

    @property
    def shift_bits(self) -> int:
        """Width of the shift, 0 where all values have the same."""
        return 0 if self.largest_shift == self.shift_offset else self.largest_shift.bit_length()

    @property
    def largest_shift(self) -> int:
        """Largest entry of ``shift``."""
        return max(entry or 0 for entry in self.shift)

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value, in LSBs; 0 lies within."""
        found = [entry for entry in self.integer if entry is not None]
        return min(0, *found), max(0, *found)

    @property
    def magnitude_bits(self) -> int:
        """Width of the largest magnitude in LSBs."""
        low, high = self.range
        return max(-low, high).bit_length()


@lru_cache(maxsize=256)
def read(fmt: Format) -> Reading:
    """Return how hardware reads a format's codes.

    Raises ``ValueError`` for formats with codes of NaN or Inf, which no fixed-point sum can hold.
    """
    known = levels(fmt)
    if (known.status == SPECIAL).any():
        raise InvalidValueError(
            f"format of a generated unit must have finite codes alone, not codes of NaN or Inf as {fmt.name} has "
            f"(all finite: e4m3, e5m2 and every other e{{E}}m{{M}})"
        )
    used = known.status[:-1] == FINITE
    integer = [(int(s) << int(k)) if u else None for s, k, u in zip(known.significand, known.shift, used, strict=False)]
    # the definition's own significands keep the hidden bit in its place; those of ``levels`` are reduced to odd numbers
    exponent = np.where(fmt.significand == 0, 0, fmt.exponent - known.lsb_exponent)
    lowered = [_lowered(int(s), int(k)) for s, k in zip(fmt.significand, exponent, strict=True)]
    significand = [abs(s) if u else None for (s, _), u in zip(lowered, used, strict=True)]
    shift, offset = _cheapest_shift(fmt.bits, [k if u and s else None for (s, k), u in zip(lowered, used, strict=True)])
    return Reading(
        bits=fmt.bits,
        sign=_sign(fmt.bits, integer),
        significand=tuple(significand),
        shift=shift,
        shift_offset=offset,
        root=tuple(int(r) if u and s else None for r, s, u in zip(fmt.root, fmt.significand, used, strict=True)),
        integer=tuple(integer),
        lsb_exponent=known.lsb_exponent,
        plain=not known.has_root and _plain(fmt.bits, integer),
        has_root=known.has_root,
    )


def _lowered(significand: int, exponent: int) -> tuple[int, int]:
    """Take the places below the LSB, which are zero, off a significand."""
    return (significand >> -exponent, 0) if exponent < 0 else (significand, exponent)


def _sign(bits: int, integer: list[Entry]) -> tuple[Entry, ...]:
    """Return the sign of every code; a zero's is the top bit where that is the sign of all others, else anything."""
    sign = [None if not value else int(value < 0) for value in integer]
    top = [code >> (bits - 1) for code in range(2**bits)]
    if any(sign) and all(s is None or s == t for s, t in zip(sign, top, strict=True)):
        return tuple(top)
    return tuple(sign) if any(sign) else (0,) * len(sign)


def _cheapest_shift(bits: int, shift: list[Entry]) -> tuple[tuple[Entry, ...], int]:
    """Return the shifts with the offset, 0 or 1, that leaves the least logic: ``max(field, 1) - 1`` against ``max(field, 1)``."""
    least = min((entry for entry in shift if entry is not None), default=0)
    options = []
    for offset in (0, 1):
        moved = tuple(None if entry is None else entry - least + offset for entry in shift)
        width = max((entry for entry in moved if entry is not None), default=0).bit_length()
        logic = sum(not is_wire([None if e is None else e >> bit & 1 for e in moved], bits) for bit in range(width))
        options.append((logic, offset, moved))
    _, offset, moved = min(options, key=lambda option: option[:2])
    if least:  # no format has it; the offset would have to be negative
        raise InvalidValueError(f"least shift of a format must be 0, not {least}")
    return moved, offset


def _plain(bits: int, integer: list[Entry]) -> bool:
    unsigned = all(value is None or value == code for code, value in enumerate(integer))
    half = 2 ** (bits - 1)
    return unsigned or all(value is None or value == code - 2 * half * (code >= half) for code, value in enumerate(integer))
