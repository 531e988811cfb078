import math

import numpy as np
import pytest

import formats
from formats import Spacing
from tests.formats.samples import assert_same_bits, by_table

ROOT_HALF = math.sqrt(0.5)


def test_values_of_pot_and_post():
    assert formats.get("pot3").values.tolist() == [0, 0.25, 0.5, 1, 0, -0.25, -0.5, -1]
    assert formats.get("post3").values.tolist() == [0, 0.5, ROOT_HALF, 1, 0, -0.5, -ROOT_HALF, -1]
    assert formats.get("pot2").values.tolist() == [0, 1, 0, -1]
    assert np.signbit(formats.get("post3").values).tolist() == [False] * 4 + [True] * 4


def test_values_of_the_unsigned_formats():
    assert formats.get("ulog2_2").values.tolist() == [1, 0.5, 0.25, 0]
    assert formats.get("ulogsqrt2_2").values.tolist() == [1, ROOT_HALF, 0.5, 0]
    assert formats.get("ulog2_1").values.tolist() == formats.get("ulogsqrt2_1").values.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("pot4", 2.0**-6, 1),
        ("pot8", 2.0**-126, 1),
        ("post4", 2.0**-3, 1),
        ("post9", 2.0**-127, 1),
        ("ulog2_4", 2.0**-14, 1),
        ("ulogsqrt2_4", 2.0**-7, 1),
    ],
)
def test_reach(name, smallest, largest):
    values = formats.get(name).values
    assert values[values > 0].min() == smallest
    assert values.max() == largest


def test_a_value_is_significand_times_a_power_of_two_and_perhaps_the_root_of_two():
    for name in ("pot5", "post5", "ulog2_5", "ulogsqrt2_5"):
        fmt = formats.get(name)
        np.testing.assert_array_equal(fmt.significand * 2.0**fmt.exponent * np.where(fmt.root, math.sqrt(2), 1), fmt.values)
    assert formats.get("pot5").spacing == formats.get("ulog2_3").spacing == Spacing.POWERS_OF_TWO
    assert formats.get("post5").spacing == formats.get("ulogsqrt2_3").spacing == Spacing.POWERS_OF_ROOT_TWO


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        # powers of two meet at 2**-0.5 = 0.70710678118…, neighbouring float32 0.70710677 and 0.70710683; 0.75 is nearer in log to 1
        *[("pot4", 0.70710677, 0.5), ("pot4", 0.70710683, 1), ("pot4", 0.75, 1), ("pot4", -0.70710677, -0.5)],
        *[("pot4", -0.70710683, -1), ("ulog2_3", 0.70710677, 0.5), ("ulog2_3", 0.70710683, 1)],
        # powers of its root meet at 2**-0.25 = 0.84089641525… and at 2**-0.75 = 0.59460355750…
        *[("post4", 0.84089637, ROOT_HALF), ("post4", 0.84089645, 1), ("ulogsqrt2_3", 0.5946035, 0.5)],
        *[("ulogsqrt2_3", 0.5946036, ROOT_HALF), ("post4", -0.84089645, -1), ("post4", -0.5946035, -0.5)],
        # zero takes what would round to a level below the smallest: pot4 2**-6.5, post4 2**-3.25, ulog2_2 2**-2.5
        *[("pot4", 0.011048543, 0), ("pot4", 0.011048544, 2**-6), ("pot4", -0.011048543, -0.0), ("pot4", 1e-9, 0)],
        *[("post4", 0.10511204, 0), ("post4", 0.10511206, 0.125), ("ulog2_2", 0.17677669, 0), ("ulog2_2", 0.17677671, 0.25)],
        *[("pot4", 100, 1), ("pot4", -100, -1), ("pot4", np.inf, 1), ("pot4", -np.inf, -1), ("ulog2_4", np.inf, 1)],
        *[("pot4", 0.0, 0.0), ("pot4", -0.0, -0.0), ("ulog2_4", 0.0, 0), ("ulog2_4", -0.0, 0), ("ulog2_4", -0.5, 0)],
        *[("ulog2_4", -np.inf, 0), ("ulogsqrt2_4", -100, 0), ("pot4", 1e-40, 0), ("pot4", -1e-40, -0.0), ("ulog2_4", 1e-40, 0)],
        *[("ulog2_8", 2.0**-149, 2.0**-149), ("ulog2_8", 3 * 2.0**-149, 2.0**-147), ("ulog2_8", 1e-40, 2.0**-133)],
        *[("pot8", 2.0**-126, 2.0**-126), ("pot8", 8.31e-39, 0), ("pot8", 8.32e-39, 2.0**-126), ("pot8", -8.31e-39, -0.0)],
        *[("post9", 2.0**-127, 2.0**-127), ("post9", -(2.0**-127), -(2.0**-127)), ("post9", 2.0**-128, 0)],
    ],
)
def test_rounding_in_the_log_domain(name, x, expected):
    for fmt in (formats.get(name), by_table(name)):
        for rounding in ("nearest_even", "nearest_away"):
            assert_same_bits(fmt.quantize(np.float32(x), rounding=rounding), np.float32(expected))
            assert_same_bits(fmt.decode(fmt.encode(np.float32(x), rounding=rounding)), np.float32(expected))


def test_toward_zero_takes_the_level_below():
    x = np.float32([0.99999994, 0.7, 0.5, 0.49999997, 0.25, 0.24, -0.99999994, -0.24])
    expected = np.float32([0.5, 0.5, 0.5, 0.25, 0.25, 0, -0.5, -0.0])
    assert_same_bits(formats.get("pot3").quantize(x, rounding="toward_zero"), expected)
    assert_same_bits(formats.get("ulog2_2").quantize(x, rounding="toward_zero"), np.maximum(expected, np.float32(0)))


def test_a_level_of_the_root_of_two_decodes_to_the_nearest_float32_and_stays_there():
    """0.70710677 is less than the root of one half; rounding toward zero leaves it where it is all the same."""
    for name in ("post4", "ulogsqrt2_4"):
        fmt = formats.get(name)
        for rounding in ("nearest_even", "nearest_away", "toward_zero", "stochastic"):
            assert fmt.quantize(np.float32(ROOT_HALF), rounding=rounding) == np.float32(0.70710677)


def test_decoding_multiplies_the_float32_value_by_the_scale():
    scale = np.float32(1.7)
    for name in ("post4", "ulogsqrt2_4"):
        fmt = formats.get(name)
        codes = np.arange(2**fmt.bits)
        assert_same_bits(fmt.decode(codes, scale), fmt.values.astype(np.float32) * scale)
