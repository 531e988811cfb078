"""Integers: two's complement, its symmetric subset, unsigned, and the two smallest with names of their own."""

import numpy as np
from numpy.typing import NDArray

from formats.definition import ClosedForm
from formats.format import Format


def _build(
    name: str, bits: int, values: NDArray[np.int64], *, unsigned: str, summary: str, unused: frozenset[int] = frozenset()
) -> Format:
    nothing = np.zeros_like(values)
    return Format(
        name=name,
        bits=bits,
        significand=values,
        exponent=nothing,
        root=nothing,
        unused=unused,
        closed_form=ClosedForm(kind="uniform", signed=bool(values.min() < 0)),
        unsigned_counterpart=unsigned,
        summary=summary,
    )


def twos_complement(bits: int) -> NDArray[np.int64]:
    """Return what each code of ``bits`` bits is in two's complement, int64 of shape (2**bits,)."""
    codes = np.arange(2**bits, dtype=np.int64)
    return np.where(codes < 2 ** (bits - 1), codes, codes - 2**bits)


def signed(bits: int) -> Format:
    """Two's complement of ``bits`` bits: ``int{b}``."""
    return _build(f"int{bits}", bits, twos_complement(bits), unsigned=f"uint{bits}", summary=f"two's complement, {bits} bits")


def narrow(bits: int) -> Format:
    """Two's complement without the most negative code, so that the range is symmetric: ``int{b}_narrow``."""
    return _build(
        f"int{bits}_narrow",
        bits,
        twos_complement(bits),
        unsigned=f"uint{bits}",
        summary=f"two's complement, {bits} bits, without the most negative code",
        unused=frozenset({2 ** (bits - 1)}),
    )


def unsigned(bits: int) -> Format:
    """0 … 2**bits - 1: ``uint{b}``."""
    values = np.arange(2**bits, dtype=np.int64)
    return _build(f"uint{bits}", bits, values, unsigned=f"uint{bits}", summary=f"unsigned integer, {bits} bits")


def ternary() -> Format:
    """-1, 0 and +1 as two's complement of two bits, of which the code 0b10 is unused."""
    return _build(
        "ternary",
        2,
        twos_complement(2),
        unsigned="uint2",
        summary="-1, 0, +1 as 2-bit two's complement",
        unused=frozenset({0b10}),
    )


def binary() -> Format:
    """-1 as 0 and +1 as 1; zero counts as positive, as in the sign function of binary networks (arXiv 1602.02830, eq. 1)."""
    values = np.array([-1, 1], dtype=np.int64)
    nothing = np.zeros_like(values)
    return Format(
        name="binary",
        bits=1,
        significand=values,
        exponent=nothing,
        root=nothing,
        unsigned_counterpart="uint1",
        summary="-1, +1",
    )
