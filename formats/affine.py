"""Integers with a zero point: the code minus a whole number, as ONNX's QuantizeLinear and DequantizeLinear have it.

``uint{b}_zero{z}`` and ``int{b}_zero{z}`` stand for q - z, q being the code read as an unsigned or a two's complement integer. The
zero point z is one of the codes, so that zero, which padding adds, is always a level.
"""

import numpy as np
from numpy.typing import NDArray

from formats.definition import ClosedForm
from formats.format import Format
from formats.integer import twos_complement

Ranges = tuple[tuple[int, int], ...]


def unsigned(bits: int, zero: int) -> Format:
    """Unsigned codes of ``bits`` bits minus ``zero``: ``uint{b}_zero{z}``."""
    return _build(f"uint{bits}_zero{zero}", bits, np.arange(2**bits, dtype=np.int64), zero, "unsigned integer")


def signed(bits: int, zero: int) -> Format:
    """Two's complement of ``bits`` bits minus ``zero``: ``int{b}_zero{z}``."""
    return _build(f"int{bits}_zero{zero}", bits, twos_complement(bits), zero, "two's complement")


def unsigned_ranges(bits: int) -> Ranges:
    """Return the smallest and largest width, and those of the zero point for this width."""
    return (1, 16), (0, 2**bits - 1)


def signed_ranges(bits: int) -> Ranges:
    """Return the same for two's complement."""
    return (2, 16), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _build(name: str, bits: int, integers: NDArray[np.int64], zero: int, kind: str) -> Format:
    nothing = np.zeros_like(integers)
    values = integers - zero
    return Format(
        name=name,
        bits=bits,
        significand=values,
        exponent=nothing,
        root=nothing,
        closed_form=ClosedForm(kind="uniform", signed=bool(values.min() < 0)),
        unsigned_counterpart=f"uint{bits}",
        summary=f"{kind}, {bits} bits, minus the zero point {zero}",
    )
