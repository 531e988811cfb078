"""The named floating-point formats against ml_dtypes and numpy, which are the judges of what they are."""

import ml_dtypes
import numpy as np
import pytest

import formats

WITH_SPECIALS = (
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e4m3b11fnuz",
    "bfloat16",
    "float16",
)
FINITE = ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")
NAMES = (*WITH_SPECIALS, *FINITE)


def judge(name):
    return np.dtype(np.float16) if name == "float16" else np.dtype(getattr(ml_dtypes, name))


def inputs(name):
    """All float16, all bfloat16, every level and every middle of two with its float32 neighbours, and random float32."""
    every = np.arange(65536, dtype=np.uint16)
    levels = np.unique(np.abs(formats.get(name).float32_values[np.isfinite(formats.get(name).float32_values)]))
    middles = ((levels[:-1].astype(np.float64) + levels[1:]) / 2).astype(np.float32)
    with np.errstate(over="ignore"):
        edges = np.concatenate([levels, middles, levels[-1:] * np.float32(1.25), levels[-1:] * np.float32(2)])
        edges = np.concatenate([edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(0))])
    random = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        halves = [every.view(kind).astype(np.float32) for kind in (np.float16, ml_dtypes.bfloat16)]
    return np.concatenate([*halves, edges, -edges, random])


def same(found, expected):
    """Equal bits, but any NaN is as good as any other."""
    both = np.isnan(found) & np.isnan(expected)
    np.testing.assert_array_equal(found[~both].view(np.uint32), expected[~both].view(np.uint32))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("name", NAMES)
def test_every_code_is_worth_what_ml_dtypes_says(name):
    fmt = formats.get(name)
    codes = np.arange(2**fmt.bits, dtype=fmt.code_dtype)
    with np.errstate(invalid="ignore"):
        same(fmt.decode(codes), codes.view(judge(name)).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_rounding_with_ieee_overflow_is_the_cast_of_ml_dtypes(name):
    fmt, x = formats.get(name), inputs(name)
    x = x if name in WITH_SPECIALS else x[~np.isnan(x)]
    with np.errstate(over="ignore", invalid="ignore"):
        same(fmt.quantize(x, overflow="ieee"), x.astype(judge(name)).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_saturation_differs_only_where_the_cast_leaves_the_numbers(name):
    fmt, x = formats.get(name), inputs(name)
    x = x if name in WITH_SPECIALS else x[~np.isnan(x)]
    with np.errstate(over="ignore", invalid="ignore"):
        cast = x.astype(judge(name)).astype(np.float32)
        beyond = ~np.isnan(x) & ~np.isfinite(cast)
        expected = np.where(beyond, np.copysign(fmt.largest, x), cast)
    same(fmt.quantize(x), expected)
    same(fmt.decode(fmt.encode(x)), expected)


@pytest.mark.parametrize("name", WITH_SPECIALS)
def test_nan_has_a_code_of_its_own_and_keeps_it_in_place(name):
    fmt = formats.get(name)
    x = np.float32([1, np.nan, -1, np.nan])
    assert fmt.encode(x)[[1, 3]].tolist() == [fmt.nan[0]] * 2
    fmt.quantize(x, out=x)
    np.testing.assert_array_equal(x, np.float32([1, np.nan, -1, np.nan]))


def test_the_published_traps_of_overflow():
    e4m3fn = formats.get("float8_e4m3fn")
    assert e4m3fn.quantize(np.float32([464, 465, np.inf]), overflow="ieee").tolist()[0] == 448
    assert np.isnan(e4m3fn.quantize(np.float32([465, np.inf]), overflow="ieee")).all()
    assert e4m3fn.quantize(np.float32([465, np.inf, -1e9])).tolist() == [448, 448, -448]
    e5m2 = formats.get("float8_e5m2")
    assert e5m2.quantize(np.float32([61439, 61440, -np.inf]), overflow="ieee").tolist() == [57344, np.inf, -np.inf]
    assert e5m2.quantize(np.float32([1e9, np.inf]), rounding="toward_zero", overflow="ieee").tolist() == [57344, np.inf]


def test_the_scale_type_holds_powers_of_two_alone():
    fmt = formats.get("float8_e8m0fnu")
    codes = np.arange(256, dtype=np.uint8)
    same(fmt.decode(codes), codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    x = np.exp2(np.random.default_rng(0).uniform(-120, 120, 10_000)).astype(np.float32)
    same(fmt.quantize(x), x.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    assert fmt.quantize(np.float32([0, -3, 1e-45, 3e38])).tolist() == [2.0**-127, 2.0**-127, 2.0**-127, 2.0**127]


def test_fnuz_types_have_no_minus_zero():
    fmt = formats.get("float8_e4m3fnuz")
    assert not np.signbit(fmt.quantize(np.float32([-0.0, -1e-9]))).any()
    assert fmt.encode(np.float32([-0.0, -1e-9])).tolist() == [0, 0]


def test_nf4_is_its_table():
    fmt = formats.get("nf4")
    assert fmt.values[[0, 7, 15]].tolist() == [-1, 0, 1]
    assert fmt.float32_values.tolist() == sorted(fmt.float32_values.tolist())
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    nearest = np.abs(x[:, None].astype(np.float64) - fmt.values).argmin(axis=1)
    np.testing.assert_array_equal(fmt.encode(x), nearest)
