import numpy as np
import pytest

import formats
from tests.formats.samples import assert_same_bits, by_table, normal, random_bits


def wide_range(limit):
    ties = np.arange(-2.5 * limit, 2.5 * limit, max(limit // 500, 1) / 2, dtype=np.float32)
    return np.concatenate([random_bits(20_000), normal(20_000, spread=limit), ties])


@pytest.mark.parametrize("bits", range(2, 17))
def test_signed_integers_are_rint_and_clip(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    x = wide_range(high)
    for name, lowest in ((f"int{bits}", low), (f"int{bits}_narrow", low + 1)):
        fmt = formats.get(name)
        expected = np.clip(np.rint(x), lowest, high).astype(np.float32) + np.float32(0)
        assert (fmt.bits, fmt.minimum, fmt.maximum) == (bits, lowest, high)
        assert_same_bits(fmt.quantize(x), expected)
        np.testing.assert_array_equal(fmt.encode(x), expected.astype(np.int64) % 2**bits)


@pytest.mark.parametrize("bits", range(1, 17))
def test_unsigned_integers_are_rint_and_clip(bits):
    fmt, x = formats.get(f"uint{bits}"), wide_range(2**bits)
    expected = np.clip(np.rint(x), 0, 2**bits - 1).astype(np.float32) + np.float32(0)
    assert (fmt.bits, fmt.minimum, fmt.maximum) == (bits, 0, 2**bits - 1)
    assert_same_bits(fmt.quantize(x), expected)
    np.testing.assert_array_equal(fmt.encode(x), expected)


def test_codes_are_twos_complement():
    assert formats.get("int3").values.tolist() == [0, 1, 2, 3, -4, -3, -2, -1]
    assert formats.get("uint3").values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert formats.get("int8").encode(np.float32([-1, -128, 127])).tolist() == [255, 128, 127]


def test_a_narrow_integer_leaves_the_most_negative_code_unused():
    fmt = formats.get("int3_narrow")
    np.testing.assert_array_equal(fmt.values, [0, 1, 2, 3, np.nan, -3, -2, -1])
    assert fmt.quantize(np.float32(-100)) == -3
    assert fmt.unused == {0b100}


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("nearest_even", [0, 2, 2, 0, -2, -2, 0, 0]),
        ("nearest_away", [1, 2, 3, -1, -2, -3, 0, 0]),
        ("toward_zero", [0, 1, 2, 0, -1, -2, 0, 0]),
    ],
)
def test_ties(rounding, expected):
    x = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, -0.49999997])
    for fmt in (formats.get("int4"), by_table("int4")):
        assert_same_bits(fmt.quantize(x, rounding=rounding), np.float32(expected))


def test_overflow_saturates_and_does_not_wrap():
    assert formats.get("int8").quantize(np.float32([200, 127.5, -128.5, -200])).tolist() == [127, 127, -128, -128]
    assert formats.get("int4").quantize(np.float32([7.9, 8, -9, np.inf, -np.inf])).tolist() == [7, 7, -8, 7, -8]
    assert formats.get("uint4").quantize(np.float32([-3, 15.5, 16, np.inf, -np.inf])).tolist() == [0, 15, 15, 15, 0]


def test_negative_zero_becomes_zero():
    for name in ("int4", "int8_narrow", "uint4", "uint1", "ternary"):
        assert_same_bits(formats.get(name).quantize(np.float32([-0.0, -0.3, -1e-40])), np.zeros(3, np.float32))


def test_ternary():
    fmt = formats.get("ternary")
    np.testing.assert_array_equal(fmt.values, [0, 1, np.nan, -1])
    x = np.float32([-9, -0.50000006, -0.5, 0, 0.5, 0.50000006, 9])
    assert fmt.encode(x).tolist() == [3, 3, 0, 0, 0, 1, 1]
    assert fmt.encode(x, rounding="nearest_away").tolist() == [3, 3, 3, 0, 1, 1, 1]
    assert fmt.encode(x, rounding="toward_zero").tolist() == [3, 0, 0, 0, 0, 0, 1]


def test_binary_is_the_sign_and_zero_is_positive():
    fmt = formats.get("binary")
    assert fmt.values.tolist() == [-1, 1]
    assert fmt.bits == 1
    x = np.float32([-9, -1, -1e-45, -0.0, 0.0, 1e-45, 1, np.inf, -np.inf])
    for rounding in ("nearest_even", "nearest_away", "toward_zero"):
        assert fmt.encode(x, rounding=rounding).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0]
    assert_same_bits(fmt.quantize(np.float32([-3, 3]), 0.25), np.float32([-0.25, 0.25]))
