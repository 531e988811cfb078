"""How hardware reads codes: the fields reproduce every format's values exactly."""

import re
from fractions import Fraction

import numpy as np
import pytest

from formats import registry
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl.operand import read
from hwmodels.fpga.rtl.truth_table import is_wire

SMALL = [
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in range(2, 9)),
    *("uint1", "int4_narrow", "int8_narrow", "ternary", "binary", "nf4"),
    *(f"e{e}m{m}" for e in range(1, 8) for m in range(8 - e)),
    *(f"ue{e}m{m}" for e in range(1, 8) for m in range(9 - e) if e + m > 1),
    *(f"{kind}{bits}" for kind in ("pot", "post") for bits in range(2, 7)),
    *("ulog2_3", "ulog2_4", "ulogsqrt2_3", "ulogsqrt2_4"),
]


def exact(fmt: Format, code: int) -> Fraction:
    return int(fmt.significand[code]) * Fraction(2) ** int(fmt.exponent[code])


@pytest.mark.parametrize("name", SMALL)
def test_sign_significand_and_shift_are_the_value(name: str) -> None:
    fmt = registry.scalar(name)
    reading = read(fmt)
    lsb = Fraction(2) ** reading.lsb_exponent
    for code in range(2**fmt.bits):
        if not np.isfinite(fmt.values[code]):
            assert reading.integer[code] is None
            continue
        value, integer = exact(fmt, code), reading.integer[code]
        assert integer is not None
        assert integer * lsb == value
        if value:
            fields = reading.sign[code], reading.significand[code], reading.shift[code], reading.root[code]
            sign, significand, shift, root = (field for field in fields if field is not None)
            assert (-1) ** sign * significand * Fraction(2) ** (shift - reading.shift_offset) * lsb == value
            assert root == fmt.root[code]
        else:
            assert reading.significand[code] == 0


@pytest.mark.parametrize("name", SMALL)
def test_widths_are_those_of_the_largest(name: str) -> None:
    reading = read(registry.scalar(name))
    integers = [value for value in reading.integer if value is not None]
    assert reading.range == (min(0, *integers), max(0, *integers))
    assert reading.magnitude_bits == max(map(abs, integers)).bit_length()
    assert reading.signed == any(value < 0 for value in integers)


def test_plain_formats_are_whole_numbers() -> None:
    names = ("int8", "int4_narrow", "uint3", "ternary", "binary", "e2m1", "pot3")
    assert [name for name in names if read(registry.scalar(name)).plain] == ["int8", "int4_narrow", "uint3", "ternary"]


def test_codes_that_no_fixed_point_sum_can_hold_are_refused() -> None:
    message = "format of a generated unit must have finite codes alone, not codes of NaN or Inf as float8_e5m2 has"
    with pytest.raises(InvalidValueError, match=re.escape(message)):
        read(registry.scalar("float8_e5m2"))


def test_what_is_a_wire_costs_nothing() -> None:
    assert is_wire([0, 1, 0, 1], 2)
    assert is_wire([0, 0, 1, None], 2)
    assert is_wire([1, None, 1, 1], 2)
    assert not is_wire([0, 1, 1, 0], 2)
