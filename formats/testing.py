"""A conformance suite that any scalar format can be run through, also one registered from outside the project.

    from formats.testing import check_format
    check_format(formats.get("my_format"))

Every check takes a format and raises ``AssertionError``, saying what does not hold. They look at a format through its public
methods alone, over every code where there are few and over random numbers of all magnitudes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from formats.boundaries import boundaries, level_codes
from formats.errors import InvalidValueError
from formats.format import Format

Check = Callable[[Format], None]


def samples(fmt: Format) -> NDArray[np.float32]:
    """Levels, boundaries and one float32 to either side of each, zeros, infinities, and random numbers of all magnitudes."""
    edges = np.concatenate([fmt.float32_values[level_codes(fmt)], boundaries(fmt, "nearest_even")])
    beside = np.concatenate([np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf))])
    generator = np.random.default_rng(0)
    random = (generator.normal(size=2000) * np.exp(generator.normal(size=2000) * 6)).astype(np.float32)
    ends = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32)
    return np.concatenate([edges, beside, random, ends])


def check_definition(fmt: Format) -> None:
    """Tables have one entry for each code, and some code is a number."""
    for name in ("significand", "exponent", "root"):
        table = getattr(fmt, name)
        assert table.shape == (2**fmt.bits,), f"{name} of {fmt.name} must have the shape ({2**fmt.bits},), not {table.shape}"
    assert len(level_codes(fmt)) > 0, f"{fmt.name} must have a code that float32 can carry"


def check_round_trip(fmt: Format) -> None:
    """Every code that an encoder can choose decodes to a value that encodes to it."""
    codes = level_codes(fmt).astype(fmt.code_dtype)
    wrong = codes[fmt.encode(fmt.decode(codes)) != codes]
    assert len(wrong) == 0, f"codes of {fmt.name} must come back from their values, not be lost: {wrong[:5].tolist()}"


def check_nearest(fmt: Format) -> None:
    """No level is nearer than the one chosen, by the format's own measure of distance."""
    x = samples(fmt)
    x = x[np.isfinite(x)].astype(np.float64)
    found = fmt.quantize(x.astype(np.float32)).astype(np.float64)
    levels = np.unique(fmt.float32_values[level_codes(fmt)].astype(np.float64))
    if fmt.spacing != "linear":  # zero has no place on a logarithmic line: compare where the levels are
        inside = (np.abs(x) >= np.abs(levels[levels != 0]).min()) & ((x > 0) | fmt.signed)
        x, found = x[inside], found[inside]
        levels = np.unique(np.abs(levels[levels != 0]))
        x, found, levels = np.log2(np.abs(x)), np.log2(np.abs(found)), np.log2(levels)
    place = np.clip(np.searchsorted(levels, x), 1, len(levels) - 1) if len(levels) > 1 else np.zeros(len(x), np.int64)
    nearest = np.minimum(np.abs(x - levels[place]), np.abs(x - levels[np.maximum(place - 1, 0)]))
    slack = 0 if fmt.spacing == "linear" else 1e-6  # of the logarithms' own rounding
    wrong = x[np.abs(x - found) > nearest + slack]
    assert len(wrong) == 0, f"{fmt.name} must choose the nearest level, not another for {wrong[:5].tolist()}"


def check_order(fmt: Format) -> None:
    """Larger numbers never get smaller levels, and a level stays what it is."""
    x = np.sort(samples(fmt))
    found = fmt.quantize(x)
    assert (np.diff(found[np.isfinite(found)]) >= 0).all(), f"{fmt.name} must be monotone"
    again = fmt.quantize(found)
    np.testing.assert_array_equal(again, found, f"{fmt.name} must be idempotent")


def check_saturation(fmt: Format) -> None:
    """Infinities become the ends of the range."""
    ends = fmt.float32_values[level_codes(fmt)[[0, -1]]]
    np.testing.assert_array_equal(fmt.quantize(np.array([-np.inf, np.inf], np.float32)), ends, f"{fmt.name} must saturate")


def check_scale(fmt: Format) -> None:
    """Quantizing with a scale is dividing, rounding and multiplying in float32, one scale or many."""
    x = samples(fmt)
    x = x[np.isfinite(x) & (np.abs(x) < 1e30)]
    scales = np.array([0.3, 0.007, 1.0], np.float32)[:, np.newaxis]
    by_hand = fmt.decode(fmt.encode((x / scales).astype(np.float32))) * scales
    np.testing.assert_array_equal(
        fmt.quantize(np.broadcast_to(x, (3, len(x))), scales), by_hand, f"{fmt.name} must follow its scale"
    )


def check_layout(fmt: Format) -> None:
    """Neither the array's layout nor its length changes the result, and it goes where it is told."""
    x = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    expected = fmt.quantize(x)
    np.testing.assert_array_equal(fmt.quantize(x.T).T, expected, f"{fmt.name} must not depend on layout")
    np.testing.assert_array_equal(fmt.quantize(x[:, ::3]), expected[:, ::3], f"{fmt.name} must not depend on strides")
    np.testing.assert_array_equal(
        fmt.quantize(x.reshape(-1)[:20]), expected.reshape(-1)[:20], f"{fmt.name} must not depend on length"
    )
    out = np.empty_like(x)
    assert fmt.quantize(x, out=out) is out
    np.testing.assert_array_equal(out, expected, f"{fmt.name} must write to out")


def check_nan(fmt: Format) -> None:
    """NaN takes the format's NaN code, or is refused with the format's name where it has none."""
    x = np.array([np.nan, 1.0], np.float32)
    if fmt.nan:
        assert fmt.encode(x)[0] in fmt.nan, f"{fmt.name} must keep NaN"
        return
    try:
        fmt.encode(x)
    except InvalidValueError as error:
        named = fmt.name in str(error)
    else:
        raise AssertionError(f"{fmt.name} must refuse NaN, not encode it")
    assert named, f"the error must name {fmt.name}"


CHECKS: tuple[Check, ...] = (
    check_definition,
    check_round_trip,
    check_nearest,
    check_order,
    check_saturation,
    check_scale,
    check_layout,
    check_nan,
)


def check_format(fmt: Format) -> None:
    """Run every check; raise ``AssertionError`` at the first that does not hold."""
    for check in CHECKS:
        check(fmt)
