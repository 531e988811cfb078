"""Additive powers of two: every magnitude is a sum of a few powers of two, so that a product is a few shifts and additions.

Levels of APoT (Li, Dong and Wang, ICLR 2020, arXiv 1909.13144, eq. 5) with terms of two bits each. With n terms, term i is 0 or
one of 2**-i, 2**-(i + n), 2**-(i + 2 n); no two terms share a power, so all sums differ. The paper counts the bits of magnitudes:
weights (``apot{b}``) spend one bit of b on the sign, activations (``uapot{b}``) none.

An odd number of magnitude bits leaves one bit over. The paper's formula does not cover it; the authors' code does for 3 and 5 bits
(github.com/yhhhli/APoT_Quantization, ``build_power_value``), and that rule is carried on here: a further term of one bit is 0 or
the power that follows the second of every term's, and the terms' third powers come after it.

The authors divide all levels by the largest so that they end at 1, which makes them thirds and the like. Here they stay sums of
powers of two, 1 being the largest power, and the scale takes up the rest. The layout of the code is this project's: sign, then the
terms' fields from the first one down, then the odd bit; a field's 0 is zero and 1 to 3 are its powers in falling order.
"""

import numpy as np
from numpy.typing import NDArray

from formats.format import Format


def signed(bits: int) -> Format:
    """``apot{b}``: a sign bit and b - 1 bits of magnitude."""
    return _build(f"apot{bits}", bits, bits - 1, counterpart=f"uapot{bits}")


def unsigned(bits: int) -> Format:
    """``uapot{b}``: b bits of magnitude."""
    return _build(f"uapot{bits}", bits, bits, counterpart=f"uapot{bits}")


def term_exponents(magnitude_bits: int) -> tuple[tuple[int, ...], ...]:
    """Return how far below 1 the powers of each term lie, the first term first: three powers for two bits, one for the odd bit."""
    terms, odd = divmod(magnitude_bits, 2)
    fields = [(i, i + terms, i + 2 * terms + odd) for i in range(terms)]
    return (*fields, (2 * terms,)) if odd else tuple(fields)


def _build(name: str, bits: int, magnitude_bits: int, *, counterpart: str) -> Format:
    fields = term_exponents(magnitude_bits)
    lowest = max(max(field) for field in fields)
    codes = np.arange(2**bits, dtype=np.int64)
    magnitude, place = np.zeros_like(codes), 0
    for field in fields[::-1]:
        width = len(field).bit_length()
        powers: NDArray[np.int64] = np.array([0, *(2 ** (lowest - exponent) for exponent in field)], np.int64)
        magnitude += powers[(codes >> place) & (2**width - 1)]
        place += width
    negative = (codes >> magnitude_bits) == 1
    return Format(
        name=name,
        bits=bits,
        significand=np.where(negative, -magnitude, magnitude),
        exponent=np.full_like(codes, -lowest),
        root=np.zeros_like(codes),
        negative_zero=2**magnitude_bits if bits > magnitude_bits else None,
        unsigned_counterpart=counterpart,
        summary=f"{'sign and ' if bits > magnitude_bits else ''}sum of {len(fields)} powers of two, {bits} bits",
    )
