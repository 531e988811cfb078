import dataclasses
import re
import tracemalloc
from fractions import Fraction

import hypothesis.extra.numpy as arrays
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats import BitatlasError
from formats.boundaries import DETERMINISTIC_ROUNDINGS, ROUNDINGS, level_codes
from formats.testing import check_format
from tests.formats.oracle import oracle
from tests.formats.samples import (
    NAMES,
    REPRESENTATIVE,
    SMALL,
    assert_same_bits,
    by_table,
    exactly,
    normal,
    random_bits,
)

INT8, INT4, E2M1 = (formats.get(name) for name in ("int8", "int4", "e2m1"))
INF, NAN = np.float32(np.inf), np.float32(np.nan)


# ---------------------------------------------------------------- codes and values


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_every_code_has_the_value_of_the_definition(name):
    fmt, expected = formats.get(name), oracle(name)
    used = {level.code: level for level in expected.levels}
    assert fmt.name == name
    assert fmt.values.dtype == np.float64
    assert fmt.values.shape == (2**fmt.bits,)
    for code, value in enumerate(fmt.values.tolist()):
        assert np.isnan(value) if code not in used else value == used[code].as_float64
    zeros = np.flatnonzero(fmt.values == 0)
    minus_zero = [] if expected.minus_zero is None else [expected.minus_zero.code]
    assert zeros[np.signbit(fmt.values[zeros])].tolist() == minus_zero


@pytest.mark.parametrize("name", [name for name in REPRESENTATIVE if name not in ("e8m0", "e8m2", "ue8m1")])
def test_decode_gives_the_value_rounded_to_float32(name):
    expected = oracle(name).levels
    found = formats.get(name).decode(np.array([level.code for level in expected]))
    assert found.tolist() == [level.as_float32 for level in expected]


def test_values_beyond_float32_decode_to_infinity():
    fmt = formats.get("e8m2")
    assert fmt.values.max() == 1.75 * 2.0**128
    codes = fmt.encode(np.float32([INF, -INF]))
    assert fmt.decode(codes).tolist() == [1.75 * 2.0**127, -1.75 * 2.0**127]
    assert fmt.decode(codes + 1).tolist() == [INF, -INF]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_every_reachable_code_round_trips(name):
    fmt, expected = formats.get(name), oracle(name)
    reachable = np.array([level.code for level in expected.ladder])
    values = fmt.float32_values[reachable]
    for rounding in DETERMINISTIC_ROUNDINGS:
        codes = fmt.encode(values, rounding=rounding)
        assert_same_bits(fmt.decode(codes), values)
        if name == "ulogsqrt2_9":  # the smallest subnormal float32 are coarser than its smallest levels
            codes, reachable = codes[values > 2.0**-147], reachable[values > 2.0**-147]
            values = values[values > 2.0**-147]
        np.testing.assert_array_equal(codes, reachable)
        if expected.minus_zero:
            assert fmt.encode(np.float32(-0.0), rounding=rounding) == expected.minus_zero.code


def test_every_format_knows_its_range_its_dtype_and_a_counterpart_of_its_width():
    for name in NAMES:
        fmt = formats.get(name)
        if fmt.unsigned_counterpart is None:
            continue
        counterpart = formats.get(fmt.unsigned_counterpart)
        assert (counterpart.bits, counterpart.signed) == (fmt.bits, False), name
        assert (fmt.minimum, fmt.maximum) == (np.nanmin(fmt.values), np.nanmax(fmt.values)), name
        assert fmt.signed == (fmt.minimum < 0), name
        assert fmt.code_dtype == (np.uint8 if fmt.bits <= 8 else np.uint16), name
        assert repr(fmt) == f"formats.get({name!r})"


def test_values_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        INT4.values[0] = 1


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_encode_and_quantize_agree_with_exact_arithmetic_around_every_level_and_boundary(name, rounding):
    fmt, expected = formats.get(name), oracle(name)
    codes = fmt.encode(expected.probes, rounding=rounding)
    assert codes.tolist() == [expected.encode(float(x), rounding) for x in expected.probes]
    assert_same_bits(fmt.quantize(expected.probes, rounding=rounding), fmt.decode(codes))


WIDE = ("int16", "int16_narrow", "uint16", "e1m14", "e5m10", "e7m8", "ue1m15", "ue7m9")
FAST = [name for name in NAMES if formats.get(name).closed_form and (formats.get(name).bits <= 12 or name in WIDE)]


@pytest.mark.parametrize("bits", range(1, 17))
def test_closed_forms_give_what_the_table_gives(bits):
    every = np.arange(2**16, dtype=np.uint16)
    narrow = np.concatenate([every.view(dtype).astype(np.float32) for dtype in (np.float16, ml_dtypes.bfloat16)])
    for name in FAST:
        fmt = formats.get(name)
        if fmt.bits != bits:
            continue
        x = np.concatenate(
            [random_bits(6000), normal(3000, spread=float(fmt.largest) / 8), normal(3000), fmt.float32_values[:4096], narrow]
        )
        x = np.where(np.isnan(x), np.float32(-0.0), x)
        np.testing.assert_array_equal(fmt.encode(x), by_table(name).encode(x), name)
        assert_same_bits(fmt.quantize(x), by_table(name).quantize(x), name)


def test_formats_with_levels_below_normal_float32_or_above_all_of_it_go_by_table():
    for name in ("e8m0", "e10m2", "ue9m1", "post9", "ulog2_8", "ulogsqrt2_9", "binary"):
        assert formats.get(name).closed_form is None


@pytest.mark.parametrize("overflow", ["saturate", "ieee"])
@pytest.mark.parametrize("name", SMALL)
def test_what_lies_beyond_the_largest_level_saturates(name, overflow):
    fmt = formats.get(name)
    x = np.float32([INF, 1e30, fmt.maximum * 1.001, -INF, -1e30])
    expected = np.float32([fmt.maximum] * 3 + [fmt.minimum] * 2)
    for rounding in ROUNDINGS:
        np.testing.assert_array_equal(fmt.quantize(x, overflow=overflow, rounding=rounding), expected)


@pytest.mark.parametrize("name", SMALL)
def test_only_a_format_with_minus_zero_keeps_the_sign_of_zero(name):
    fmt = formats.get(name)
    x = np.float32([0.0, -0.0, 1e-40, -1e-40, 2.0**-149, -(2.0**-149)])
    if name == "binary":
        return
    for candidate in (fmt, by_table(name)):
        for rounding in DETERMINISTIC_ROUNDINGS:
            assert_same_bits(candidate.quantize(x, rounding=rounding), x * 0 if fmt.negative_zero else np.zeros(6, np.float32))


# ---------------------------------------------------------------- the scale


def by_hand(fmt, x, scale, rounding="nearest_even"):
    """fl32(decode(encode(fl32(x / scale))) * scale), numpy's float32 division and multiplication being IEEE's."""
    scale = np.asarray(scale, np.float32)
    with np.errstate(over="ignore"):
        scaled = np.divide(x, scale, dtype=np.float32)
        codes = fmt.encode(scaled, rounding=rounding)
        return codes, np.multiply(fmt.decode(codes), scale, dtype=np.float32)


def assert_as_by_hand(fmt, x, scale, rounding="nearest_even"):
    codes, expected = by_hand(fmt, x, scale, rounding)
    found = fmt.encode(x, scale, rounding)
    np.testing.assert_array_equal(found, codes)
    assert_same_bits(fmt.decode(found, scale), expected)
    assert_same_bits(fmt.quantize(x, scale, rounding=rounding), expected)


def test_x_is_divided_by_the_scale_and_not_multiplied_by_its_reciprocal():
    x, scale = np.float32(-37.35000228881836), np.float32(0.3)
    assert np.rint(x * (1 / scale)) == -125
    assert INT8.encode(x, scale) == 256 - 124
    assert INT8.quantize(x, scale) == np.float32(-124) * scale


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
@pytest.mark.parametrize("name", ["int8", "uint4", "e2m1", "e4m3", "e8m2", "pot4", "post5", "ulogsqrt2_4", "binary", "int12"])
def test_any_scale_of_any_magnitude(name, rounding):
    x = np.concatenate([random_bits(3000, seed=1), normal(3000)])
    for scale in (1.0, 0.3, 0.1, 7e-3, 3.0, 1e-38, 1e-45, 1e38, np.float32(1.1), np.float64(0.7), 2, np.array(0.25)):
        assert_as_by_hand(formats.get(name), x, scale, rounding)


SHAPES = [
    ((3, 5), (1,)),
    ((3, 5), (1, 1)),
    ((3, 5), (5,)),
    ((3, 5), (1, 5)),
    ((3, 5), (3, 1)),
    ((3, 5), (3, 5)),
    ((4, 3, 5), (4, 1, 1)),
    ((4, 3, 5), (3, 1)),
    ((4, 3, 5), (1, 3, 1)),
    ((4, 3, 5), (4, 3, 1)),
    ((4, 3, 5), (3, 5)),
    ((4, 3, 5), (4, 1, 5)),
    ((4, 1, 5), (4, 1, 5)),
    ((2, 4, 3, 5), (2, 1, 3, 1)),
    ((2, 4, 3, 5), (1, 4, 3, 1)),
    ((1,), (1,)),
    ((700, 9), (700, 1)),
    ((9, 700), (700,)),
    ((300, 700), (300, 1)),
    ((300, 700), (700,)),
    ((3, 100, 700), (1, 100, 1)),
    ((6, 5000), (6, 1)),
]


@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_a_scale_broadcasts_against_x(shape, scale_shape):
    x = normal(*shape, spread=3)
    scale = np.random.default_rng(1).uniform(0.01, 2, scale_shape).astype(np.float32)
    for fmt in (INT4, E2M1, formats.get("pot4")):
        assert_as_by_hand(fmt, x, scale)


def test_a_group_of_neighbours_shares_a_scale():
    x = normal(6, 64).reshape(6, 4, 16)
    scale = np.abs(x).max(axis=2, keepdims=True) / np.float32(7)
    assert_as_by_hand(INT4, x, scale)


def test_the_scale_may_lie_in_memory_in_any_way():
    scale = np.random.default_rng(0).uniform(0.1, 1, (8, 6))
    narrow = scale.astype(np.float32)
    for one in (scale, np.asfortranarray(narrow), narrow[::-1], narrow.astype(np.float16), narrow.tolist()):
        assert_as_by_hand(INT8, normal(8, 6), one)
    assert_as_by_hand(INT8, normal(8, 6), np.broadcast_to(np.float32(0.3), (8, 6)))


@pytest.mark.parametrize(
    ("scale", "shown"),
    [(0.0, "0.0"), (-0.0, "-0.0"), (-1.5, "-1.5"), (INF, "inf"), (NAN, "nan"), (1e39, "inf"), (1e-46, "0.0"), ([1, 2, -3], "-3.0")],
)
def test_a_scale_is_finite_and_positive(scale, shown):
    message = exactly(f"scale must be finite and positive, not {shown}")
    x = normal(3)
    for call in (INT4.encode, INT4.quantize, lambda x, scale: INT4.decode(np.zeros(3, np.uint8), scale)):
        with pytest.raises(ValueError, match=message) as caught:
            call(x, scale)
        assert isinstance(caught.value, BitatlasError)


@pytest.mark.parametrize(
    ("shape", "scale_shape"), [((3, 5), (3,)), ((3, 5), (1, 3, 5)), ((3,), (1, 1)), ((), (1,)), ((1,), (2,)), ((5,), (0,))]
)
def test_a_scale_of_the_wrong_shape_is_refused(shape, scale_shape):
    message = exactly(f"scale must broadcast against the shape {shape}, not have the shape {scale_shape}")
    x, scale = np.ones(shape, np.float32), np.ones(scale_shape, np.float32)
    for call in (INT4.encode, INT4.quantize, lambda x, scale: INT4.decode(np.zeros(x.shape, np.uint8), scale)):
        with pytest.raises(ValueError, match=message):
            call(x, scale)


# ---------------------------------------------------------------- shapes, layouts and dtypes

LAYOUTS = {
    "transposed": lambda x: x.transpose(2, 0, 1),
    "strided": lambda x: x[::2, :, 1::3],
    "reversed": lambda x: x[::-1, :, ::-1],
    "Fortran": np.asfortranarray,
    "sliced": lambda x: x[1:-1, 2:, 1:],
    "a column": lambda x: x[:, 0, 0],
    "repeated": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1),
    "in records": lambda x: np.rec.fromarrays([x, x])["f1"],
}


def read_only(x):
    x = x.view()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("layout", [*LAYOUTS, "read-only"])
@pytest.mark.parametrize("name", ["int4", "e2m1", "post4", "ulog2_3"])
def test_the_layout_of_x_changes_nothing(name, layout):
    fmt = formats.get(name)
    x = LAYOUTS.get(layout, read_only)(normal(12, 14, 45, spread=2))
    for rounding in ROUNDINGS:
        np.testing.assert_array_equal(fmt.encode(x, 0.4, rounding), fmt.encode(np.array(x, order="C"), 0.4, rounding))
        assert_same_bits(fmt.quantize(x, 0.4, rounding=rounding), fmt.quantize(np.array(x, order="C"), 0.4, rounding=rounding))


def test_the_layout_of_codes_changes_nothing():
    codes = np.random.default_rng(0).integers(0, 16, (12, 14, 45), dtype=np.uint8)
    for make in [LAYOUTS[name] for name in ("transposed", "strided", "reversed", "Fortran", "sliced", "repeated")] + [read_only]:
        assert_same_bits(E2M1.decode(make(codes), 0.3), E2M1.decode(make(codes).copy(), 0.3))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_float16_and_bfloat16_are_widened(dtype):
    x = normal(3, 500, spread=2).astype(dtype)
    scale = np.float32([[0.3], [1], [2.5]])
    np.testing.assert_array_equal(E2M1.encode(x, scale), E2M1.encode(x.astype(np.float32), scale))
    assert_same_bits(E2M1.quantize(x, scale), E2M1.quantize(x.astype(np.float32), scale))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(2), "x must be float32, float16 or bfloat16, not float64: narrowing it first would round twice"),
        ([1.0, 2.0], "x must be float32, float16 or bfloat16, not float64: narrowing it first would round twice"),
        (1.0, "x must be float32, float16 or bfloat16, not float64: narrowing it first would round twice"),
        (np.zeros(2, np.int64), "x must be float32, float16 or bfloat16, not int64"),
        (3, "x must be float32, float16 or bfloat16, not int64"),
        (np.zeros(2, bool), "x must be float32, float16 or bfloat16, not bool"),
        (np.zeros(2, np.complex64), "x must be float32, float16 or bfloat16, not complex64"),
        (np.zeros(2, ml_dtypes.float8_e4m3fn), "x must be float32, float16 or bfloat16, not float8_e4m3fn"),
    ],
)
def test_other_dtypes_are_refused(x, message):
    for call in (INT4.encode, INT4.quantize):
        with pytest.raises(TypeError, match=exactly(message)) as caught:
            call(x)
        assert isinstance(caught.value, BitatlasError)


def test_narrowing_float64_first_would_round_twice():
    x = 1.0625 + 2.0**-40
    assert np.float64(x).astype(ml_dtypes.float8_e4m3fn) == 1  # the exact answer is 1.125
    with pytest.raises(TypeError):
        formats.get("e4m3").quantize(np.float64(x))


@pytest.mark.parametrize("name", SMALL)
def test_a_scalar_keeps_its_shape(name):
    fmt = formats.get(name)
    for x in (np.float32(0.7), np.array(0.7, np.float32)):
        for result in (fmt.encode(x, 0.5), fmt.quantize(x, 0.5), fmt.decode(fmt.encode(x, 0.5), 0.5)):
            assert isinstance(result, np.ndarray)
            assert result.shape == ()
        assert fmt.quantize(x, 0.5) == fmt.quantize(np.float32([0.7]), 0.5)[0]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
@pytest.mark.parametrize("name", ["int4", "e2m1", "pot4", "binary"])
def test_an_array_without_elements_keeps_its_shape(name, shape):
    fmt, x = formats.get(name), np.zeros(shape, np.float32)
    for scale in (1.0, np.ones(shape, np.float32), np.ones((*shape[:-1], 1), np.float32), np.ones(shape[-1:], np.float32)):
        for rounding in ROUNDINGS:
            codes = fmt.encode(x, scale, rounding)
            assert codes.shape == fmt.decode(codes, scale).shape == fmt.quantize(x, scale, rounding=rounding).shape == shape


@pytest.mark.parametrize("count", [1, 2, 7, 2047, 2048, 2049, 4096, 5000])
def test_the_length_changes_nothing(count):
    x = normal(5000, spread=5)
    scale = np.random.default_rng(0).uniform(0.5, 2, 5000).astype(np.float32)
    for name in ("int4", "e2m1", "pot4", "binary"):
        fmt = formats.get(name)
        for rounding in ROUNDINGS:
            whole = fmt.quantize(x, scale, rounding=rounding)
            assert_same_bits(fmt.quantize(x[:count], scale[:count], rounding=rounding), whole[:count])


# ---------------------------------------------------------------- out


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ["int4", "e2m1", "pot4"])
def test_out_is_written_and_returned(name, rounding):
    fmt, x = formats.get(name), normal(60, 70, spread=3)
    scale = np.random.default_rng(0).uniform(0.3, 1, (60, 1)).astype(np.float32)
    expected = fmt.quantize(x, scale, rounding=rounding)
    buffer = np.full((120, 140), 77, np.float32)
    for out in (buffer[:60, :70], buffer[::2, ::2], buffer[59::-1, 69::-1], np.empty((70, 60), np.float32).T, np.empty_like(x)):
        assert fmt.quantize(x, scale, out, rounding) is out
        assert_same_bits(out, expected)
    around = np.full((60, 72), 77, np.float32)
    fmt.quantize(x, scale, around[:, 1:-1], rounding)
    assert (around[:, [0, -1]] == 77).all()


@pytest.mark.parametrize("name", ["int4", "e2m1", "pot4"])
def test_out_may_be_x_itself(name):
    fmt = formats.get(name)
    for make in (lambda x: x, np.asfortranarray, lambda x: x[::-1], lambda x: x[:, ::2]):
        x = make(normal(80, 80, spread=3))
        expected = fmt.quantize(x.copy(), 0.7)
        assert fmt.quantize(x, 0.7, out=x) is x
        assert_same_bits(x, expected)


def test_out_may_be_x_read_in_another_order():
    x = normal(80, 80, spread=3)
    expected = INT4.quantize(x.T.copy(), 0.7)
    assert_same_bits(INT4.quantize(x.T, 0.7, out=x), expected)


@pytest.mark.parametrize(
    ("out", "found"),
    [
        (np.empty(4, np.float32), "float32 of shape (4,)"),
        (np.empty((3, 1), np.float32), "float32 of shape (3, 1)"),
        (np.empty(3), "float64 of shape (3,)"),
        ([0.0, 0.0, 0.0], "list"),
    ],
)
def test_an_out_of_another_shape_or_dtype_is_refused(out, found):
    with pytest.raises(ValueError, match=exactly(f"out must be a float32 array of shape (3,), not {found}")):
        INT4.quantize(normal(3), out=out)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", SMALL)
def test_nan_is_refused_and_counted(name):
    message = exactly(f"values for {name} must be numbers, not NaN in 3 elements: the format has no NaN code")
    x = np.float32([1, NAN, 2, -NAN, INF, NAN])
    for rounding in ROUNDINGS:
        for call in (formats.get(name).encode, formats.get(name).quantize):
            with pytest.raises(ValueError, match=message) as caught:
                call(x, rounding=rounding)
            assert isinstance(caught.value, BitatlasError)


def test_nan_is_counted_over_a_whole_large_array():
    x = normal(200_000)
    x[[0, 2047, 2048, 99_999, 100_000, 199_999]] = np.nan
    with pytest.raises(ValueError, match="not NaN in 6 elements"):
        INT4.quantize(x)
    with pytest.raises(ValueError, match="not NaN in 6 elements"):
        INT4.encode(x.reshape(400, 500).T)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_nan_of_a_narrow_float_is_refused_too(dtype):
    with pytest.raises(ValueError, match="not NaN in 1 elements"):
        E2M1.encode(np.array([1, np.nan], dtype))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.uint8([3, 16]), "codes of int4 must be 0 to 15, not 16"),
        (np.array([3, 2**40]), "codes of int4 must be 0 to 15, not 1099511627776"),
        (np.array([2**64 - 1], np.uint64), "codes of int4 must be 0 to 15, not 18446744073709551615"),
        ([5, -1], "codes of int4 must be 0 to 15, not -1"),
        (np.int8([-128]), "codes of int4 must be 0 to 15, not -128"),
    ],
)
def test_codes_beyond_the_width_are_refused(codes, message):
    with pytest.raises(ValueError, match=exactly(message)):
        INT4.decode(codes)


@pytest.mark.parametrize(("codes", "dtype"), [([1.0], "float64"), (np.float32([1]), "float32"), ([True], "bool")])
def test_codes_that_are_not_integers_are_refused(codes, dtype):
    with pytest.raises(TypeError, match=exactly(f"codes of int4 must be integers, not {dtype}")):
        INT4.decode(codes)


def test_codes_of_any_integer_dtype_decode_alike():
    codes = np.arange(16)
    for dtype in (np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64):
        assert_same_bits(E2M1.decode(codes.astype(dtype)), E2M1.float32_values)
    assert_same_bits(E2M1.decode(codes.tolist()), E2M1.float32_values)


def test_unused_codes_decode_to_nan():
    assert np.isnan(formats.get("int8_narrow").decode([128]))
    assert np.isnan(formats.get("ternary").decode([0b10]))


@pytest.mark.parametrize(
    ("rounding", "choice"),
    [
        ("nearest", "nearest: nearest_even, nearest_away"),
        ("towards_zero", "nearest: toward_zero"),
        ("Stochastic", "nearest: stochastic"),
        ("rne", "valid: nearest_even, nearest_away, toward_zero, stochastic"),
    ],
)
def test_an_unknown_rounding_names_the_nearest(rounding, choice):
    for call in (INT4.encode, INT4.quantize):
        with pytest.raises(KeyError, match=exactly(f"rounding must be a known name, not {rounding!r}; {choice}")) as caught:
            call(normal(3), rounding=rounding)
        assert isinstance(caught.value, BitatlasError)


@pytest.mark.parametrize(("overflow", "choice"), [("saturated", "nearest: saturate"), ("wrap", "valid: saturate, ieee")])
def test_an_unknown_overflow_names_the_nearest(overflow, choice):
    for call in (INT4.encode, INT4.quantize):
        with pytest.raises(KeyError, match=exactly(f"overflow must be a known name, not {overflow!r}; {choice}")):
            call(normal(3), overflow=overflow)


# ---------------------------------------------------------------- stochastic rounding


def neighbours(fmt, x):
    levels = np.sort(np.unique(fmt.float32_values[[level.code for level in oracle(fmt.name).ladder]]))
    x = np.clip(x, levels[0], levels[-1])
    above = levels[np.searchsorted(levels, x)]
    return np.where(above == x, above, levels[np.maximum(np.searchsorted(levels, x) - 1, 0)]), above


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_stochastic_rounding_takes_one_of_the_two_neighbours(name):
    fmt = formats.get(name)
    x = np.concatenate([random_bits(4000), normal(4000), normal(4000, spread=min(fmt.maximum, 1e30))])
    below, above = neighbours(fmt, x)
    for seed in range(3):
        found = fmt.quantize(x, rounding="stochastic", seed=seed)
        assert ((found == below) | (found == above)).all()
        assert_same_bits(found, fmt.decode(fmt.encode(x, rounding="stochastic", seed=seed)))


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_stochastic_rounding_leaves_levels_alone(name):
    fmt = formats.get(name)
    levels = fmt.float32_values[[level.code for level in oracle(name).levels]]
    levels = levels[np.isfinite(levels)]
    assert_same_bits(fmt.quantize(levels, rounding="stochastic", seed=5), levels)


@pytest.mark.parametrize(
    ("name", "x"),
    [
        *[("int4", 2.25), ("int4", -0.01), ("uint8", 200.125), ("e2m1", 3.9), ("e2m1", -4.5), ("ternary", -0.7), ("binary", 0.4)],
        *[("pot4", 0.6), ("pot4", -0.001), ("post5", 0.8), ("ulog2_4", 0.7), ("ulogsqrt2_4", 0.9)],
    ],
)
def test_stochastic_rounding_is_unbiased(name, x):
    fmt, count = formats.get(name), 400_000
    below, above = (float(level) for level in neighbours(fmt, np.float32(x)))
    drawn = fmt.quantize(np.full(count, x, np.float32), rounding="stochastic", seed=1).astype(np.float64)
    share = (np.float32(x) - below) / (above - below)
    bound = 5 * (above - below) * np.sqrt(share * (1 - share) / count)
    assert abs(drawn.mean() - np.float32(x)) < bound


def test_stochastic_rounding_is_unbiased_at_every_element_over_the_seeds():
    x = normal(200, spread=2)
    below, above = neighbours(E2M1, x)
    mean = np.mean([E2M1.quantize(x, rounding="stochastic", seed=seed) for seed in range(2000)], axis=0, dtype=np.float64)
    assert (np.abs(mean - np.clip(x, -6, 6)) <= 5 * (above - below) * 0.5 / np.sqrt(2000)).all()


def test_stochastic_rounding_is_fixed_by_the_seed():
    x = normal(10_000)
    drawn = {seed: INT4.encode(x, 1.0, "stochastic", seed=seed) for seed in (0, 1, 2, -1, 2**63, 2**70)}
    for seed, codes in drawn.items():
        np.testing.assert_array_equal(INT4.encode(x, 1.0, "stochastic", seed=seed), codes)
    different = [(drawn[a] != drawn[b]).mean() for a, b in [(0, 1), (1, 2), (0, -1), (0, 2**63)]]
    assert min(different) > 0.2
    np.testing.assert_array_equal(INT4.encode(x, 1.0, "stochastic"), drawn[0])


def test_deterministic_rounding_ignores_the_seed():
    x = normal(1000)
    for rounding in DETERMINISTIC_ROUNDINGS:
        np.testing.assert_array_equal(INT4.encode(x, 0.1, rounding, seed=1), INT4.encode(x, 0.1, rounding, seed=2))


# ---------------------------------------------------------------- properties

FLOATS = st.floats(width=32, allow_nan=False)
MODERATE = st.floats(-20, 20, width=32)
AN_ARRAY = arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3), elements=MODERATE | FLOATS)
A_FORMAT = st.sampled_from(SMALL).map(formats.get)
A_ROUNDING = st.sampled_from(DETERMINISTIC_ROUNDINGS)
A_SCALE = st.floats(2.0**-100, 2.0**100, width=32)
many = settings(deadline=None, max_examples=200)


@many
@given(A_FORMAT, A_ROUNDING, AN_ARRAY)
def test_rounding_is_monotone(fmt, rounding, x):
    found = fmt.quantize(np.sort(x.reshape(-1)), rounding=rounding)
    assert (np.diff(found) >= 0).all()


@many
@given(A_FORMAT, A_ROUNDING, AN_ARRAY)
def test_rounding_is_idempotent(fmt, rounding, x):
    once = fmt.quantize(x, rounding=rounding)
    assert_same_bits(fmt.quantize(once, rounding=rounding), once)


@many
@given(st.sampled_from([name for name in SMALL if not re.match("pot|post|ulog", name)]), FLOATS | MODERATE)
def test_no_level_is_nearer_than_the_one_chosen(name, x):
    levels = {level.code: level.value for level in oracle(name).levels}
    if np.isfinite(x):
        for rounding in ("nearest_even", "nearest_away"):
            chosen = levels[int(formats.get(name).encode(np.float32(x), rounding=rounding))]
            exact = Fraction(x)
            assert all(abs(chosen - exact) <= abs(level - exact) for level in levels.values())


@many
@given(A_FORMAT, FLOATS | MODERATE)
def test_rounding_toward_zero_never_grows(fmt, x):
    if fmt.name != "binary":
        assert abs(fmt.quantize(np.float32(x), rounding="toward_zero")) <= abs(np.float32(x))


@many
@given(st.sampled_from(["int4_narrow", "ternary", "e2m1", "e3m2", "e1m2", "e2m0", "pot4", "post4"]), A_ROUNDING, AN_ARRAY, A_SCALE)
def test_a_symmetric_format_rounds_symmetrically(name, rounding, x, scale):
    fmt = formats.get(name)
    np.testing.assert_array_equal(fmt.quantize(-x, scale, rounding=rounding), -fmt.quantize(x, scale, rounding=rounding))


@many
@given(A_FORMAT, st.sampled_from(ROUNDINGS), AN_ARRAY, A_SCALE, st.integers(0, 2**64 - 1))
def test_quantize_is_decode_of_encode(fmt, rounding, x, scale, seed):
    codes = fmt.encode(x, scale, rounding, seed=seed)
    assert codes.max() < 2**fmt.bits
    assert_same_bits(fmt.quantize(x, scale, rounding=rounding, seed=seed), fmt.decode(codes, scale))


@many
@given(A_FORMAT, A_ROUNDING, AN_ARRAY, A_SCALE)
def test_elements_are_rounded_one_by_one(fmt, rounding, x, scale):
    one_by_one = [fmt.encode(element, scale, rounding) for element in x.reshape(-1)]
    np.testing.assert_array_equal(fmt.encode(x, scale, rounding).reshape(-1), one_by_one)
    np.testing.assert_array_equal(fmt.encode(x.T, scale, rounding), fmt.encode(x, scale, rounding).T)


@many
@given(A_FORMAT, AN_ARRAY, A_SCALE)
def test_the_fast_path_is_the_table(fmt, x, scale):
    np.testing.assert_array_equal(fmt.encode(x, scale), by_table(fmt.name).encode(x, scale))
    assert_same_bits(fmt.quantize(x, scale), by_table(fmt.name).quantize(x, scale))


# ---------------------------------------------------------------- rules are made once


def test_a_table_is_made_once_for_each_deterministic_rounding():
    fmt = dataclasses.replace(INT4)
    for seed in range(3):
        for rounding in ROUNDINGS:
            fmt.encode(normal(3), rounding=rounding, seed=seed)
    assert set(fmt._rules) == {f"{rounding} saturate" for rounding in ROUNDINGS}


def test_an_output_that_overlaps_the_input_by_a_shift_is_right():
    b = (np.random.default_rng(0).standard_normal(6000) * 500).astype(np.float32)
    expected = formats.get("int8").quantize(b[:-1], 20.0)
    np.testing.assert_array_equal(formats.get("int8").quantize(b[:-1], 20.0, out=b[1:]), expected)


def test_a_read_only_output_is_refused():
    out = np.zeros(3, np.float32)
    out.setflags(write=False)
    with pytest.raises(ValueError, match=r"^out must be writable, not read-only$"):
        formats.get("int8").quantize(np.zeros(3, np.float32), out=out)


def test_near_seeds_give_unrelated_sequences():
    f, x = formats.get("int8"), np.full(4000, 0.5, np.float32)
    first, second = (f.encode(x, rounding="stochastic", seed=seed).astype(float) for seed in (0, 1))
    for shift in range(4):
        assert abs(np.corrcoef(first[shift:], second[: len(second) - shift])[0, 1]) < 0.06


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("layout", ["in one piece", "turned", "every other", "half"])
@pytest.mark.parametrize("name", ["int8", "e4m3", "nf4"])
def test_quantizing_into_an_array_takes_no_memory_that_grows(name, layout):
    fmt, peaks = formats.get(name), []
    for rows in (256, 2048):
        x = normal(rows, 512)
        x = {"in one piece": x, "turned": x.T, "every other": x[:, ::2], "half": x.astype(np.float16)}[layout]
        out = np.empty(x.shape, np.float32)
        expected = fmt.quantize(np.ascontiguousarray(x, np.float32), 0.1)
        assert_same_bits(fmt.quantize(x, 0.1, out=out), expected)
        tracemalloc.start()
        fmt.quantize(x, 0.1, out=out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_random_numbers_belong_to_the_elements_order_whatever_the_layout():
    x = normal(300, 500)
    for name in ("int4", "e2m1", "bfloat16", "post4", "nf4"):
        fmt = formats.get(name)
        expected = fmt.quantize(x, 0.3, rounding="stochastic", seed=9)
        assert_same_bits(fmt.quantize(np.asfortranarray(x), 0.3, rounding="stochastic", seed=9), expected)
        assert_same_bits(fmt.quantize(x[:7], 0.3, rounding="stochastic", seed=9), expected[:7])


def splitmix64(z):
    z = (z + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def random_32_bits(seed, index):
    """The generator in plain integers."""
    key = splitmix64(seed ^ splitmix64(index >> 32))
    z = (index ^ key) % 2**32
    z = (z ^ z >> 16) * 0x21F0AAAD % 2**32
    z = (z ^ z >> 15) * 0x735A2D97 % 2**32
    z = ((z ^ z >> 15) + (key >> 32)) % 2**32
    z = (z ^ z >> 16) * 0x7FEB352D % 2**32
    z = (z ^ z >> 15) * 0x846CA68B % 2**32
    return z ^ z >> 16


@pytest.mark.parametrize("name", ["int4", "uint4", "e2m1", "float8_e4m3fnuz", "bfloat16", "e8m3", "pot4", "ulog2_4", "nf4"])
def test_stochastic_rounding_goes_up_in_magnitude_or_value_where_the_number_drawn_is_below_the_share(name):
    fmt = formats.get(name)
    x = np.clip(normal(400, spread=min(float(fmt.largest), 1e3) / 3), max(fmt.minimum, -1e30), fmt.largest)
    found = fmt.quantize(x, rounding="stochastic", seed=77)
    levels = np.unique(fmt.float32_values[np.isfinite(fmt.float32_values)]).astype(np.float64)
    by_magnitude = fmt.closed_form is not None and fmt.closed_form.kind != "uniform"
    for i, value in enumerate(x.astype(np.float64)):
        side = -1.0 if by_magnitude and value < 0 else 1.0
        ladder = np.sort(side * levels)
        below = int(np.searchsorted(ladder, side * value, side="right")) - 1
        above = min(below + 1, len(ladder) - 1)
        gap = ladder[above] - ladder[below]
        share = Fraction((side * value - ladder[below]) / gap) if gap else Fraction(0)
        # formats that cut float32 short compare as many bits as they lose
        places = {"bfloat16": 16, "e8m3": 20}.get(name, 31)
        up = (random_32_bits(77, i) >> 1) % 2**places < int(share * 2**places)
        assert found[i] == side * ladder[above if up else below], (value, found[i])


# ---------------------------------------------------------------- exhaustive

STANDARDS = tuple(name for name in formats.names() if name.startswith(("float", "bfloat")))


@pytest.mark.parametrize("bits", range(1, 17))
def test_every_code_of_every_format_round_trips(bits):
    for name in (*NAMES, *STANDARDS, "nf4"):
        fmt = formats.get(name)
        if fmt.bits != bits:
            continue
        codes = level_codes(fmt)
        if fmt.negative_zero is not None:
            codes = np.append(codes, fmt.negative_zero)
        decoded = fmt.decode(codes.astype(fmt.code_dtype))
        # float32's own subnormal numbers hold some levels only roughly, and another one then is nearer
        held = (decoded.astype(np.float64) == fmt.values[codes]) | (np.abs(decoded) >= np.finfo(np.float32).tiny)
        np.testing.assert_array_equal(fmt.encode(decoded)[held], codes[held], name)
        with np.errstate(over="ignore"):
            carried = fmt.values.astype(np.float32)
        rest = set(range(2**bits)) - set(codes.tolist())
        lost = {code for code in rest if not np.isfinite(carried[code]) or (carried[code] == 0 and fmt.values[code] != 0)}
        assert rest == lost, name  # NaN, infinities, unused codes and what float32 cannot carry at all
        assert_same_bits(fmt.decode(np.arange(2**bits)), carried, name)


# ---------------------------------------------------------------- unusual formats


def listed(name, values, **special):
    """A format of these values, code by code."""
    significand, exponent = np.frexp(np.array(values, np.float64))
    return formats.Format(
        name=name,
        bits=len(values).bit_length() - 1,
        significand=(significand * 2**24).astype(np.int64),
        exponent=exponent.astype(np.int64) - 24,
        root=np.zeros(len(values), np.int64),
        **special,
    )


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_format_may_have_one_level_only(rounding):
    x = np.float32([-INF, -3, 0, 5, 7, INF])
    for special in ({"unused": frozenset({1})}, {"nan": (1,)}):
        fmt = listed("one", [5, 0], **special)
        np.testing.assert_array_equal(fmt.encode(x, rounding=rounding), 0)
        np.testing.assert_array_equal(fmt.quantize(x, rounding=rounding), 5)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("count", [4, 64])
def test_of_codes_with_the_same_value_the_first_is_written(rounding, count):
    values = np.repeat(np.arange(count // 2) - 1.0, 2)
    fmt = listed("twice", values)
    np.testing.assert_array_equal(fmt.encode(np.float32(values), rounding=rounding), np.arange(count) // 2 * 2)
    check_format(fmt)


@pytest.mark.parametrize("levels", [2, 3, 8, 9, 10, 15, 16, 17, 18, 33])
@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
def test_tables_of_any_number_of_levels(levels, rounding):
    values = np.zeros(64)
    values[:levels] = np.random.default_rng(levels).permutation(np.cumsum(np.arange(1, levels + 1)) - 20.0) / 4
    fmt = listed("table", values, unused=frozenset(range(levels, 64)))
    x = np.concatenate([normal(2000, spread=20), np.float32(values), np.float32([INF, -INF, 0.0, -0.0])])
    ordered = np.sort(values[:levels])
    for value, found in zip(x, fmt.quantize(x, rounding=rounding), strict=True):
        clipped = float(np.clip(value, ordered[0], ordered[-1]))
        low, high = ordered[ordered <= clipped].max(), ordered[ordered >= clipped].min()
        if rounding == "toward_zero":
            assert found == (low if clipped > 0 else high) or low < 0 < high
        else:
            assert abs(float(found) - clipped) == min(clipped - low, high - clipped)
    np.testing.assert_array_equal(fmt.decode(fmt.encode(x, rounding=rounding)), fmt.quantize(x, rounding=rounding))


# ---------------------------------------------------------------- odd arguments


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint64])
def test_a_seed_is_any_whole_number(kind):
    x = normal(500)
    expected = INT8.quantize(x, 0.1, rounding="stochastic", seed=7)
    assert_same_bits(INT8.quantize(x, 0.1, rounding="stochastic", seed=kind(7)), expected)
    with pytest.raises(TypeError, match=r"^seed must be a whole number, not 1\.5$"):
        INT8.quantize(x, 0.1, rounding="stochastic", seed=1.5)


def test_out_may_share_memory_with_the_scale():
    scales, x = np.abs(normal(64, 3000)) + np.float32(0.1), normal(64, 3000, seed=1)
    expected = INT8.quantize(x, scales[:1].copy())
    assert_same_bits(INT8.quantize(x, scales[:1], out=scales), expected)


def test_overflow_to_infinity_is_refused_where_numbers_are_drawn():
    message = r"^overflow of float8_e5m2 with stochastic rounding must be saturate, not ieee$"
    with pytest.raises(ValueError, match=message):
        formats.get("float8_e5m2").quantize(np.float32([1e9]), rounding="stochastic", overflow="ieee")


def test_each_end_of_an_asymmetric_range_overflows_where_it_ends():
    special = {"nan": (5,), "infinities": (6, 7)}
    fmt = listed("asymmetric", [-8, -1, 0, 1, 2, 0, 0, 0], **special)
    x = np.float32([-9, -8, -3, 2, 3])
    assert fmt.quantize(x, overflow="ieee").tolist() == [-INF, -8, -1, 2, INF]
    fmt = listed("asymmetric", [-2, -1, 0, 1, 8, 0, 0, 0], **special)
    assert fmt.quantize(-x, overflow="ieee").tolist() == [INF, 8, 1, -2, -INF]
