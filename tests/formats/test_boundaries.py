import dataclasses

import numpy as np
import pytest

import formats
from formats.boundaries import DETERMINISTIC_ROUNDINGS, boundaries, level_codes
from tests.formats.oracle import oracle
from tests.formats.samples import REPRESENTATIVE

UP_TO_11_BITS = [name for name in REPRESENTATIVE if formats.get(name).bits <= 11]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_level_codes_ascend_by_value(name):
    assert list(level_codes(formats.get(name))) == [level.code for level in oracle(name).ladder]


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("e2m1", {0b1000}),  # minus zero
        ("pot3", {0b100}),
        ("int4_narrow", {0b1000}),  # unused
        ("ternary", {0b10}),
        ("ue8m1", {0b11111_1110, 0b11111_1111}),  # 2**128 and 1.5 * 2**128 are beyond float32
        ("ulog2_8", set(range(150, 255))),  # 2**-150 and less would be zero in float32
        ("int4", set()),
    ],
)
def test_level_codes_leave_out_what_no_float32_rounds_to(name, left_out):
    fmt = formats.get(name)
    assert set(range(2**fmt.bits)) - set(level_codes(fmt).tolist()) == left_out


@pytest.mark.parametrize("name", UP_TO_11_BITS)
def test_a_boundary_is_the_smallest_float32_that_rounds_to_the_upper_level(name):
    expected = oracle(name)
    rank = {level.code: i for i, level in enumerate(expected.ladder)}
    if expected.minus_zero:
        rank[expected.minus_zero.code] = rank[expected.zero.code]
    for rounding in DETERMINISTIC_ROUNDINGS:
        found = boundaries(formats.get(name), rounding)
        assert found.dtype == np.float32
        before = np.nextafter(found, np.float32(-np.inf))
        for upper, (start, previous) in enumerate(zip(found, before, strict=True), start=1):
            assert rank[expected.encode(float(previous), rounding)] < upper <= rank[expected.encode(float(start), rounding)]


@pytest.mark.parametrize(
    ("name", "rounding", "expected"),
    [
        ("int2", "nearest_even", ["-0x1.7ffffep+0", "-0x1p-1", "0x1.000002p-1"]),
        ("int2", "nearest_away", ["-0x1.7ffffep+0", "-0x1.fffffep-2", "0x1p-1"]),
        ("int2", "toward_zero", ["-0x1.fffffep+0", "-0x1.fffffep-1", "0x1p+0"]),
        ("ue2m0", "nearest_even", ["0x1.000002p-1", "0x1.8p+0", "0x1.8p+1"]),
        ("binary", "nearest_even", ["0x0p+0"]),
        ("pot2", "nearest_even", ["-0x1.6a09e6p-1", "0x1.6a09e8p-1"]),  # 2**-0.5 is 0x1.6a09e667…p-1
        ("post2", "nearest_even", ["-0x1.ae89f8p-1", "0x1.ae89fap-1"]),  # 2**-0.25 is 0x1.ae89f995…p-1
        ("ulogsqrt2_2", "nearest_even", ["0x1.ae89fap-2", "0x1.306fe2p-1", "0x1.ae89fap-1"]),
    ],
)
def test_boundaries_of_the_smallest_formats(name, rounding, expected):
    assert [float(x) for x in boundaries(formats.get(name), rounding)] == [float.fromhex(x) for x in expected]


@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_away"])
def test_log_domain_boundaries_know_no_ties(rounding):
    for name in ("pot4", "post4", "ulog2_3", "ulogsqrt2_3"):
        np.testing.assert_array_equal(boundaries(formats.get(name), rounding), boundaries(formats.get(name), "nearest_even"))


def test_a_tie_between_uneven_neighbours_goes_to_the_even_code():
    """Levels -4, -1, -1/4, 0, 1/4, 1, 4 by ascending code 1 to 7, code 0 unused: no gap is a measure of both its ends."""
    grid = dataclasses.replace(
        formats.get("int3"),
        significand=np.array([0, -4, -1, -1, 0, 1, 1, 4]),
        exponent=np.array([0, 0, 0, -2, 0, -2, 0, 0]),
        unused=frozenset({0}),
        closed_form=None,
    )
    ties = np.float32([-2.5, -0.625, -0.125, 0.125, 0.625, 2.5])
    assert grid.encode(ties).tolist() == [2, 2, 4, 4, 6, 6]
