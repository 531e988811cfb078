import ml_dtypes
import numpy as np
import pytest

import formats
from tests.formats.samples import assert_same_bits, by_table, minifloats, normal, random_bits

ALL_FLOAT16 = np.arange(2**16, dtype=np.uint16).view(np.float16)
TO_16_BITS = range(2, 17)


def inputs(limit):
    """Every float16 and many float32 whose magnitude is below ``limit``."""
    widest = normal(50_000, spread=min(limit, 1e30))
    x = np.concatenate([ALL_FLOAT16.astype(np.float32), random_bits(100_000), normal(50_000), widest])
    return x[np.abs(x) < limit]


@pytest.mark.parametrize("signed", [True, False])
def test_the_largest_value_and_the_smallest_follow_the_formula(signed):
    for name in minifloats(TO_16_BITS, signed=signed):
        e, m = (int(part) for part in name.removeprefix("u").removeprefix("e").split("m"))
        bias, fmt = 2 ** (e - 1) - 1, formats.get(name)
        assert fmt.bits == e + m + signed
        assert fmt.maximum == (2 - 2.0**-m) * 2.0 ** (2**e - 1 - bias), name
        assert fmt.values[1] == (2.0 ** (1 - bias - m) if m or e > 1 else 2.0), name
        assert fmt.minimum == (-fmt.maximum if signed else 0)
        assert np.isfinite(fmt.values).all()


def test_levels():
    assert formats.get("e2m1").values[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert formats.get("e2m0").values.tolist() == [0, 1, 2, 4, 0, -1, -2, -4]
    assert formats.get("e1m2").values[:8].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert formats.get("e1m0").values.tolist() == [0, 2, 0, -2]
    assert formats.get("ue2m1").values.tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert formats.get("e4m3").maximum == 480
    assert formats.get("e5m2").maximum == 114688


def test_codes_of_the_upper_half_are_negative():
    for name in ("e2m1", "e3m0", "e4m3"):
        values = formats.get(name).values
        half = len(values) // 2
        assert (values[half:] == -values[:half]).all()
        assert np.signbit(values[half:]).all()


@pytest.mark.parametrize(
    ("name", "theirs"), [("e2m1", ml_dtypes.float4_e2m1fn), ("e2m3", ml_dtypes.float6_e2m3fn), ("e3m2", ml_dtypes.float6_e3m2fn)]
)
def test_formats_without_specials_are_those_of_ml_dtypes(name, theirs):
    fmt, x = formats.get(name), inputs(np.inf)
    expected = x.astype(theirs)
    np.testing.assert_array_equal(fmt.encode(x), expected.view(np.uint8))
    assert_same_bits(fmt.quantize(x), expected.astype(np.float32))
    half = ALL_FLOAT16[np.isfinite(ALL_FLOAT16)]
    np.testing.assert_array_equal(fmt.encode(half), half.astype(theirs).view(np.uint8))


@pytest.mark.parametrize(
    ("name", "theirs", "limit"),
    [
        ("e4m3", ml_dtypes.float8_e4m3fn, 464),
        ("e5m2", ml_dtypes.float8_e5m2, 61440),
        ("e3m4", ml_dtypes.float8_e3m4, 15.75),
        ("e5m10", np.float16, 65520),
        ("e8m7", ml_dtypes.bfloat16, 3.3961775e38),
    ],
)
def test_formats_with_specials_agree_below_them(name, theirs, limit):
    fmt, x = formats.get(name), inputs(limit)
    expected = x.astype(theirs)
    np.testing.assert_array_equal(fmt.encode(x), expected.view(np.uint8 if fmt.bits == 8 else np.uint16))
    assert_same_bits(fmt.quantize(x), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        *[("e2m1", 2.5, 2), ("e2m1", 0.25, 0), ("e2m1", 5.0, 4), ("e2m1", 0.75, 1), ("e2m1", 3.5, 4)],  # ties to even
        *[("e2m1", 0.24999999, 0), ("e3m2", 0.031249998, 0), ("e4m3", 0.00097656244, 0)],  # just below half the smallest
        *[("e2m1", 1.9, 2), ("e2m1", 3.6, 4), ("e4m3", 15.9, 16), ("e4m3", 1.96, 2)],  # the carry into the next binade
        *[("e2m1", 2.5 + 2**-15, 3), ("e4m3", 1.0625 + 2**-12, 1.125)],  # wrong by way of bfloat16
        *[("e4m3", 464, 448), ("e4m3", 464.00003, 480), ("e4m3", 465, 480), ("e4m3", 957, 480), ("e4m3", np.inf, 480)],
        *[("e2m1", np.inf, 6), ("e2m1", -np.inf, -6), ("e2m1", 1e30, 6), ("e5m2", np.inf, 114688)],
        *[("e2m1", -0.0, -0.0), ("e2m1", -0.1, -0.0), ("e2m1", 0.0, 0.0), ("ue2m1", -0.0, 0.0), ("ue2m1", -3.0, 0.0)],
        *[("e2m1", 1e-40, 0), ("e2m1", -1e-40, -0.0), ("e8m2", 1e-40, 0), ("e8m2", 3e-39, 2.0**-128), ("e8m2", -0.0, -0.0)],
        *[("e8m2", 2.0**-129, 0), ("e8m2", float.fromhex("0x1.00002p-129"), 2.0**-128), ("e8m2", 3e38, 1.75 * 2.0**127)],
    ],
)
def test_inputs_that_emulators_get_wrong(name, x, expected):
    for fmt in (formats.get(name), by_table(name)):
        assert_same_bits(fmt.quantize(np.float32(x)), np.float32(expected))
        assert_same_bits(fmt.decode(fmt.encode(np.float32(x))), np.float32(expected))


@pytest.mark.parametrize(
    ("name", "rounding", "x", "expected"),
    [
        ("e4m3", "toward_zero", 15.999999, 15),
        ("e4m3", "toward_zero", -15.999999, -15),
        ("e2m1", "toward_zero", 0.49999997, 0),
        ("e2m1", "toward_zero", -0.49999997, -0.0),
        ("e2m1", "nearest_away", 2.5, 3),
        ("e2m1", "nearest_away", -0.25, -0.5),
        ("e2m1", "nearest_away", 5.0, 6),
        ("e2m1", "nearest_away", 0.24999999, 0),
    ],
)
def test_directed_rounding_and_ties_away(name, rounding, x, expected):
    assert_same_bits(formats.get(name).quantize(np.float32(x), rounding=rounding), np.float32(expected))


@pytest.mark.parametrize("name", ["e3m0", "e2m0", "e5m0", "ue3m0", "ue4m0"])
def test_without_mantissa_bits_a_tie_goes_to_the_larger_magnitude_and_to_zero(name):
    for fmt in (formats.get(name), by_table(name)):
        levels = np.unique(np.abs(fmt.values)).astype(np.float32)
        ties = (levels[1:] + levels[:-1]) / 2
        assert_same_bits(fmt.quantize(ties[1:]), levels[2:])
        assert fmt.quantize(ties[0]) == 0


def test_with_one_exponent_bit_the_levels_are_an_integer_grid():
    x = normal(5000, spread=3)
    codes = formats.get("e1m3").encode(x)
    np.testing.assert_array_equal(codes & 15, np.clip(np.rint(np.abs(x) * 4), 0, 15))
    np.testing.assert_array_equal(codes >> 4, np.signbit(x))
