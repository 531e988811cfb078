import pytest

import formats
from dse.imports.integers import integer_format
from formats import InvalidValueError
from tests.formats.samples import exactly


@pytest.mark.parametrize(
    ("low", "high", "zero", "name"),
    [
        (0, 255, 0, "uint8"),
        (-128, 127, 0, "int8"),
        (-127, 127, 0, "int8_narrow"),
        (0, 1, 0, "uint1"),
        (-1, 1, 0, "ternary"),
        (-2, 1, 0, "int2"),
        (0, 255, 3, "uint8_zero3"),
        (-8, 7, -3, "int4_zero-3"),
        (-8, 7, -8, "uint4"),
        (0, 255, 128, "int8"),
        (0, 1, 1, "uint1_zero1"),
        (-32768, 32767, 32767, "int16_zero32767"),
    ],
)
def test_a_range_and_a_zero_point_make_a_format(low: int, high: int, zero: int, name: str) -> None:
    assert integer_format(low, high, zero, "here") == name
    fmt = formats.get(name)
    assert (fmt.minimum, fmt.maximum) == (low - zero, high - zero)


@pytest.mark.parametrize("ends", [(0, 14), (-12, 12), (-3, 4), (0, 2**17 - 1), (1, 2), (0, 0)])
def test_other_ranges_are_refused(ends: tuple[int, int]) -> None:
    low, high = ends
    limits = "all of 1 to 16 bits, or all but the lowest of signed ones"
    message = f"codes of an integer quantizer must be {limits}, not {low} to {high} (node 'q')"
    with pytest.raises(InvalidValueError, match=exactly(message)):
        integer_format(low, high, 0, "node 'q'")


def test_a_zero_point_must_be_a_code_and_codes_without_the_lowest_have_none() -> None:
    with pytest.raises(InvalidValueError, match=exactly("zero point must be 0 to 15, not 16 (node 'q')")):
        integer_format(0, 15, 16, "node 'q'")
    with pytest.raises(InvalidValueError, match=exactly("zero point of codes without the lowest must be 0, not 1 (node 'q')")):
        integer_format(-7, 7, 1, "node 'q'")
