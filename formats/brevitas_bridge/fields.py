"""What Brevitas wants to know of integers and minifloats, read off a format."""

import re
from typing import Any

from formats.boundaries import level_codes
from formats.format import Format
from formats.standard import STANDARDS, Standard


def integer_fields(fmt: Format) -> dict[str, Any] | None:
    """Return Brevitas' fields of an integer, or nothing where some level is none or does not fit the width.

    The levels -1 and +1 in one bit are Brevitas' binary integer.
    """
    levels = fmt.values[level_codes(fmt)]
    low, high = levels.min(), levels.max()
    if (levels % 1 != 0).any() or fmt.negative_zero is not None:
        return None
    if fmt.bits == 1 and (low, high) == (-1, 1):
        return {"narrow_range": True}
    least, most = (-(2 ** (fmt.bits - 1)), 2 ** (fmt.bits - 1) - 1) if fmt.signed else (0, 2**fmt.bits - 1)
    return {"narrow_range": bool(fmt.signed and low == -high)} if least <= low and high <= most else None


def float_fields(fmt: Format) -> dict[str, Any] | None:
    """Return Brevitas' fields of a minifloat, or nothing where the format's name is not one of theirs."""
    named = {standard.name: standard for standard in STANDARDS}.get(fmt.name)
    if named is not None:
        return _fields(named.exponent_bits, named.mantissa_bits, named.bias, *_specials(named))
    match = re.fullmatch(r"u?e(\d+)m(\d+)", fmt.name)
    if match is None:
        return None
    exponent, mantissa = int(match[1]), int(match[2])
    return _fields(exponent, mantissa, 2 ** (exponent - 1) - 1, None, None)


def _fields(
    exponent: int, mantissa: int, bias: int, infinities: tuple[str, ...] | None, nan: tuple[str, ...] | None
) -> dict[str, Any]:
    return {
        "exponent_bit_width": exponent,
        "mantissa_bit_width": mantissa,
        "exponent_bias": bias,
        "inf_values": infinities,
        "nan_values": nan,
    }


def _specials(standard: Standard) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return the mantissas, under the largest exponent, of Inf and of NaN; a NaN elsewhere has no place in Brevitas' fields."""
    if standard.specials == "fn":
        return None, ("1" * standard.mantissa_bits,)
    if standard.specials != "ieee":
        return None, None
    # in Gray code's order, 01 11 10 for two bits: the one by which Brevitas recognizes the OCP type
    nan = [number ^ number >> 1 for number in range(1, 2**standard.mantissa_bits)]
    return ("0" * standard.mantissa_bits,), tuple(f"{number:0{standard.mantissa_bits}b}" for number in nan)
