"""Floating-point formats that others have named: exactly the types of those names in ``ml_dtypes`` and numpy.

OCP FP8 (e4m3fn, e5m2), its FNUZ variants (arXiv 2206.02915), IEEE-like FP8, OCP Microscaling's element types and scale
(e2m3fn, e3m2fn, e2m1fn, e8m0fnu), bfloat16 and IEEE half precision.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from formats.format import Format
from formats.minifloat import Layout


@dataclass(frozen=True, kw_only=True)
class Standard:
    """A named format: its fields, and which codes stand for no finite number.

    ``ieee``: the largest exponent field is infinity and NaN. ``fn``: only all ones is NaN, no infinity. ``fnuz``: the code of
    minus zero is the only NaN, no infinity. ``finite``: every code is a number.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Literal["ieee", "fn", "fnuz", "finite"]


STANDARDS = (
    Standard(name="float8_e4m3fn", exponent_bits=4, mantissa_bits=3, bias=7, specials="fn"),
    Standard(name="float8_e5m2", exponent_bits=5, mantissa_bits=2, bias=15, specials="ieee"),
    Standard(name="float8_e4m3fnuz", exponent_bits=4, mantissa_bits=3, bias=8, specials="fnuz"),
    Standard(name="float8_e5m2fnuz", exponent_bits=5, mantissa_bits=2, bias=16, specials="fnuz"),
    Standard(name="float8_e4m3", exponent_bits=4, mantissa_bits=3, bias=7, specials="ieee"),
    Standard(name="float8_e3m4", exponent_bits=3, mantissa_bits=4, bias=3, specials="ieee"),
    Standard(name="float8_e4m3b11fnuz", exponent_bits=4, mantissa_bits=3, bias=11, specials="fnuz"),
    Standard(name="float6_e2m3fn", exponent_bits=2, mantissa_bits=3, bias=1, specials="finite"),
    Standard(name="float6_e3m2fn", exponent_bits=3, mantissa_bits=2, bias=3, specials="finite"),
    Standard(name="float4_e2m1fn", exponent_bits=2, mantissa_bits=1, bias=1, specials="finite"),
    Standard(name="bfloat16", exponent_bits=8, mantissa_bits=7, bias=127, specials="ieee"),
    Standard(name="float16", exponent_bits=5, mantissa_bits=10, bias=15, specials="ieee"),
)


def build(standard: Standard) -> Format:
    """Build one of the named formats."""
    layout = Layout(exponent_bits=standard.exponent_bits, mantissa_bits=standard.mantissa_bits, bias=standard.bias)
    nan, infinities = _specials(standard, layout)
    return Format(
        name=standard.name,
        bits=layout.bits,
        significand=layout.significand,
        exponent=layout.exponent,
        root=np.zeros_like(layout.exponent),
        nan=nan,
        infinities=infinities,
        negative_zero=None if standard.specials == "fnuz" else layout.sign_bit,
        closed_form=layout.closed_form,
        summary=f"as in ml_dtypes and numpy: {layout.bits} bits, exponent {layout.exponent_bits}, mantissa {layout.mantissa_bits}",
    )


def _specials(standard: Standard, layout: Layout) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """Return the codes of NaN, the quiet one and its negative first, and of the infinities."""
    sign = layout.sign_bit
    if standard.specials == "fnuz":
        return (sign,), None
    if standard.specials == "fn":
        return (sign - 1, 2 * sign - 1), None
    if standard.specials == "finite":
        return (), None
    infinity = sign - 2**layout.mantissa_bits
    quiet = infinity + 2 ** (layout.mantissa_bits - 1)
    others = [code for code in range(infinity + 1, sign) if code != quiet]
    return (quiet, quiet + sign, *others, *(code + sign for code in others)), (infinity + sign, infinity)


def exponent_only() -> Format:
    """``float8_e8m0fnu``: 2**(code - 127), the scale of OCP Microscaling; no zero, no sign, the last code is NaN.

    Codes and values are those of ml_dtypes. Conversion follows the rules of all formats here: to the nearest level, so zero and
    negative numbers give the smallest, where ml_dtypes gives NaN and rounds some numbers below 1.5 * 2**-127 up.
    """
    codes = np.arange(256, dtype=np.int64)
    return Format(
        name="float8_e8m0fnu",
        bits=8,
        significand=np.ones_like(codes),
        exponent=codes - 127,
        root=np.zeros_like(codes),
        nan=(255,),
        unsigned_counterpart="float8_e8m0fnu",
        summary="powers of two from 2**-127 to 2**127, the scale of OCP Microscaling",
    )
