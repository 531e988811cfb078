"""Fixed-point types hold ranges exactly and no wider than need be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.flows.fixed_point import FixedPoint, Range, range_of, whole_numbers
from formats import BitatlasError

WHOLE = st.integers(-(2**40), 2**40)


@given(st.lists(WHOLE, min_size=1, max_size=5), st.integers(-20, 20))
def test_the_type_of_a_range_is_the_narrowest_that_holds_it(numbers: list[int], exponent: int) -> None:
    low, high = min(numbers), max(numbers)
    kind = Range(low=low, high=high, exponent=exponent).type
    held = kind.range
    assert held.low <= low <= high <= held.high
    assert kind.signed == (low < 0)
    narrower = FixedPoint(bits=kind.bits - 1, exponent=exponent, signed=kind.signed)
    assert kind.bits == 1 or not narrower.range.low <= low <= high <= narrower.range.high


@given(st.tuples(WHOLE, WHOLE, st.integers(-9, 9)), st.tuples(WHOLE, WHOLE, st.integers(-9, 9)))
def test_sums_of_ends_are_ends_of_sums(one: tuple[int, int, int], two: tuple[int, int, int]) -> None:
    ranges = [Range(low=min(a, b), high=max(a, b), exponent=e) for a, b, e in (one, two)]
    total = ranges[0] + ranges[1]
    assert total.low * 2.0**total.exponent == sum(each.low * 2.0**each.exponent for each in ranges)
    assert total.high * 2.0**total.exponent == sum(each.high * 2.0**each.exponent for each in ranges)
    both = ranges[0] | ranges[1]
    assert both.low * 2.0**both.exponent == min(each.low * 2.0**each.exponent for each in ranges)


@given(st.lists(st.integers(-(2**20), 2**20), min_size=1), st.integers(-30, 30))
def test_float_numbers_become_whole_numbers_times_their_largest_common_power_of_two(numbers: list[int], exponent: int) -> None:
    values = np.ldexp(np.array(numbers, np.float64), exponent).astype(np.float32)
    whole, unit = whole_numbers(values)
    np.testing.assert_array_equal(np.ldexp(whole.astype(np.float64), unit), values)
    assert not whole.any() or (whole % 2).any()


TEXTS = (
    ([0.5, -0.75], "fixed<3,1>"),
    ([3.0, 1.0], "ufixed<2,2>"),
    ([0.0], "ufixed<1,1>"),
    ([48.0, -16.0], "fixed<3,7>"),
    ([-1.0], "fixed<1,1>"),
)


@pytest.mark.parametrize(("values", "text"), TEXTS)
def test_types_are_written_as_hls4ml_reads_them(values: list[float], text: str) -> None:
    assert str(range_of(np.array(values, np.float32)).type) == text


def test_numbers_that_span_too_many_bits_are_refused() -> None:
    with pytest.raises(BitatlasError, match=r"^stored numbers must span at most 62 bits as fixed-point numbers, not 71$"):
        whole_numbers(np.array([1.0, 2.0**-70], np.float32))
