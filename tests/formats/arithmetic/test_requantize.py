"""Requantization, against Python's integers and fractions; no third party computes it bit for bit without TensorFlow."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import formats
from formats.arithmetic.requantize import quantize_multiplier, requantize, requantize_by_shift

MIN, MAX = -(2**31), 2**31 - 1
EDGES = [MIN, MIN + 1, -(2**30), -65536, -257, -3, -2, -1, 0, 1, 2, 3, 255, 65535, 2**30, MAX - 1, MAX]
accumulators = st.one_of(st.sampled_from(EDGES), st.integers(MIN, MAX))
multipliers = st.one_of(st.sampled_from([0, 2**30, 2**30 + 1, 2**31 - 1, 3 * 2**29]), st.integers(2**30, 2**31 - 1))


def truncated(numerator, denominator):
    return abs(numerator) // denominator * (1 if numerator >= 0 else -1)


def high_mul(x, y):
    """SaturatingRoundingDoublingHighMul."""
    if x == y == MIN:
        return MAX
    product = x * y
    return truncated(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)


def divide_by_power(x, exponent):
    """RoundingDivideByPOT: to nearest, ties away from zero."""
    scaled = Fraction(x, 2**exponent)
    floor = math.floor(scaled)
    rest = scaled - floor
    return floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and x > 0))


def clamp(x, low, high):
    return min(max(x, low), high)


def double(x, multiplier, shift):
    raised = clamp(x << max(shift, 0), MIN, MAX)
    return divide_by_power(high_mul(raised, multiplier), max(-shift, 0))


def single(x, multiplier, shift):
    return math.floor(Fraction(x * multiplier, 2 ** (31 - shift)) + Fraction(1, 2))


def value(name, code):
    return int(formats.get(name).values[code])


@given(
    accumulators, multipliers, st.integers(-31, 30), st.sampled_from(["int8", "uint8", "int4_narrow", "int16", "uint1"]), st.data()
)
@example(MIN, 2**31 - 1, 0, "int16", None)
@example(3, 2**30, 0, "int8", None)
@example(-3, 2**30, 0, "int8", None)
@example(1, 2**30, -31, "int8", None)
@example(MAX, 2**31 - 1, 30, "int16", None)
@example(MIN, 2**31 - 1, 30, "int16", None)
@example(-5, 2**30, -1, "int8", None)
def test_both_variants(x, multiplier, shift, name, data):
    fmt = formats.get(name)
    low, high = int(fmt.minimum), int(fmt.maximum)
    zero = 0 if data is None else data.draw(st.integers(low, high))
    for variant, compute in (("double", double), ("single", single)):
        codes = requantize(np.int32([x]), multiplier, shift, name, zero, variant=variant)
        assert codes.dtype == fmt.code_dtype
        assert value(name, codes[0]) == clamp(compute(x, multiplier, shift) + zero, low, high)


def test_a_grid_of_edge_values():
    for shift in (-31, -17, -8, -1, 0, 1, 9, 30):
        for multiplier in (2**30, 1518500250, 2**31 - 1):
            for variant, compute in (("double", double), ("single", single)):
                codes = requantize(np.array(EDGES), multiplier, shift, "int16", 5, variant=variant)
                expected = [clamp(compute(x, multiplier, shift) + 5, -(2**15), 2**15 - 1) for x in EDGES]
                assert formats.get("int16").values[codes].tolist() == expected


def test_the_variants_differ_where_rounding_twice_shows():
    # 2**30 / 2**31 * 3 is 1.5: rounded to 2, then 2 / 4 is a tie; at once it is 0.375
    x, multiplier, shift = np.int32([3]), 2**30, -2
    assert requantize(x, multiplier, shift, "int8").tolist() == [1]
    assert requantize(x, multiplier, shift, "int8", variant="single").tolist() == [0]


def test_channels_have_their_own_multipliers():
    x = np.arange(-6, 6, dtype=np.int64).reshape(2, 3, 2) * 1000
    pairs = [quantize_multiplier(real) for real in (0.003, 0.02, 0.5)]
    multiplier, shift = (np.array(part).reshape(3, 1) for part in zip(*pairs, strict=True))
    codes = requantize(x, multiplier, shift, "int8", np.array([[1], [2], [3]]))
    for i, j, k in np.ndindex(*x.shape):
        assert value("int8", codes[i, j, k]) == clamp(double(int(x[i, j, k]), *pairs[j]) + j + 1, -128, 127)


@given(st.floats(min_value=2.0**-34, max_value=2.0**30, exclude_max=True))
@example(1.0)
@example(0.5)
@example(1 - 2.0**-40)
@example(0.0)
def test_multipliers_are_nearest(real):
    if real >= 2.0**30 * (1 - 2.0**-32):
        return
    multiplier, shift = quantize_multiplier(real)
    if multiplier == 0:
        assert real < 2.0**-32
        return
    assert 2**30 <= multiplier < 2**31
    assert -31 <= shift <= 30
    exponent = math.frexp(real)[1]
    expected = math.floor(Fraction(real) * Fraction(2) ** (31 - exponent) + Fraction(1, 2))
    assert multiplier * Fraction(2) ** (shift - 31) == expected * Fraction(2) ** (exponent - 31)


def rounded(x, shift, rounding):
    scaled = Fraction(x) / Fraction(2) ** shift
    floor, tie = math.floor(scaled), scaled - math.floor(scaled) == Fraction(1, 2)
    if rounding == "floor":
        return floor
    if rounding == "toward_zero":
        return math.trunc(scaled)
    if tie:
        return floor + floor % 2 if rounding == "nearest_even" else floor + (x > 0)
    return math.floor(scaled + Fraction(1, 2))


@given(
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-300, 300)),
    st.integers(-62, 62),
    st.sampled_from(["nearest_even", "nearest_away", "toward_zero", "floor"]),
    st.sampled_from(["int8", "uint8", "int16"]),
)
@example(-(2**63), -62, "floor", "int8")
@example(2**63 - 1, -62, "nearest_even", "int8")
@example(-(2**63), 62, "nearest_even", "int8")
@example(2**63 - 1, 62, "nearest_away", "int8")
def test_shifts(x, shift, rounding, name):
    fmt = formats.get(name)
    codes = requantize_by_shift(np.array([x]), shift, name, 3, rounding=rounding)
    assert value(name, codes[0]) == clamp(rounded(x, shift, rounding) + 3, int(fmt.minimum), int(fmt.maximum))


def test_ties_of_shifts():
    x = np.array([-6, -5, -3, -2, -1, 1, 2, 3, 5, 6])

    def found(rounding):
        return formats.get("int8").values[requantize_by_shift(x, 1, "int8", rounding=rounding)].tolist()

    assert found("nearest_even") == [-3, -2, -2, -1, 0, 0, 1, 2, 2, 3]
    assert found("nearest_away") == [-3, -3, -2, -1, -1, 1, 1, 2, 3, 3]
    assert found("toward_zero") == [-3, -2, -1, -1, 0, 0, 1, 1, 2, 3]
    assert found("floor") == [-3, -3, -2, -1, -1, 0, 1, 1, 2, 3]


ONE = np.int32([1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: requantize(np.array([2**31]), 2**30, 0, "int8"),
            ValueError,
            "accumulators must be -2147483648 to 2147483647, not 2147483648",
        ),
        (lambda: requantize(ONE * 1.0, 2**30, 0, "int8"), TypeError, "accumulators must be integers, not float64"),
        (lambda: requantize(ONE, -1, 0, "int8"), ValueError, "multiplier must be 0 to 2147483647, not -1"),
        (lambda: requantize(ONE, 2**30, 31, "int8"), ValueError, "shift must be -31 to 30, not 31"),
        (lambda: requantize(ONE, 2**30, 0, "int8", 128), ValueError, "zero point must be -128 to 127, not 128"),
        (
            lambda: requantize(ONE, 2**30, 0, "e2m1"),
            ValueError,
            "output format must be an integer in two's complement or unsigned, not e2m1",
        ),
        (
            lambda: requantize(ONE, 2**30, 0, "mxfp4"),
            ValueError,
            "output format must be an integer in two's complement or unsigned, not mxfp4",
        ),
        (
            lambda: requantize(ONE, 2**30, 0, "int8", variant="once"),
            KeyError,
            "variant must be a known name, not 'once'; valid: double, single",
        ),
        (lambda: requantize_by_shift(ONE, 63, "int8"), ValueError, "shift must be -62 to 62, not 63"),
        (
            lambda: requantize_by_shift(ONE, 1, "int8", rounding="nearest"),
            KeyError,
            "rounding must be a known name, not 'nearest'; nearest: nearest_even, nearest_away",
        ),
        (lambda: quantize_multiplier(-0.5), ValueError, "real multiplier must be finite and not negative, not -0.5"),
        (lambda: quantize_multiplier(math.inf), ValueError, "real multiplier must be finite and not negative, not inf"),
        (lambda: quantize_multiplier(2.0**30), ValueError, "real multiplier must be below 2**30, not 1073741824.0"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
