"""Block formats against a slow reference: one block at a time, scales by math.frexp, elements cast by ml_dtypes."""

import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import formats
from tests.formats.samples import assert_same_bits, normal

ELEMENTS = {
    "mxfp8_e4m3": (ml_dtypes.float8_e4m3fn, 8),
    "mxfp8_e5m2": (ml_dtypes.float8_e5m2, 15),
    "mxfp6_e3m2": (ml_dtypes.float6_e3m2fn, 4),
    "mxfp6_e2m3": (ml_dtypes.float6_e2m3fn, 2),
    "mxfp4": (ml_dtypes.float4_e2m1fn, 2),
}
NAMES = (*ELEMENTS, "mxint8", "nvfp4")


def cast(x, dtype):
    """To the nearest, ties to even, and the largest number where the cast would leave the numbers."""
    largest = float(ml_dtypes.finfo(dtype).max)
    return np.clip(x, -largest, largest).astype(dtype).astype(np.float64)


def slow_block(name, block):
    amax = float(np.abs(block).max())
    exponent = max(math.frexp(amax)[1] - 1 - (0 if name == "mxint8" else ELEMENTS[name][1]), -127) if amax else -127
    scaled = block.astype(np.float64) / 2.0**exponent
    if name == "mxint8":
        return np.clip(np.rint(scaled * 64), -128, 127) / 64 * 2.0**exponent
    return cast(scaled.astype(np.float32), ELEMENTS[name][0]) * 2.0**exponent


def slow(name, row):
    """One row, ragged at the end."""
    if name != "nvfp4":
        return np.concatenate([slow_block(name, row[i : i + 32]) for i in range(0, len(row), 32)]).astype(np.float32)
    tensor = np.float32(np.abs(row).max() / np.float32(6 * 448)) if row.any() else np.float32(1)
    parts = []
    for i in range(0, len(row), 16):
        block = row[i : i + 16]
        ratio = np.float32(np.abs(block).max()) / (np.float32(6) * tensor) if block.any() else np.float32(1)
        scale = max(np.float32(cast(ratio, ml_dtypes.float8_e4m3fn)), np.float32(2.0**-9)) * tensor
        parts.append((cast(block / scale, ml_dtypes.float4_e2m1fn).astype(np.float32) * scale).astype(np.float32))
    return np.concatenate(parts)


def rows(seed, count, length):
    generator = np.random.default_rng(seed)
    spread = np.exp(generator.normal(size=(count, length)) * 3) * generator.choice([-1, 1], (count, length))
    x = (spread * np.exp2(generator.integers(-40, 40, (count, 1)))).astype(np.float32)
    x[generator.random(x.shape) < 0.1] = 0
    return x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 16, 31, 32, 33, 100])
def test_every_row_equals_the_slow_one(name, length):
    for row in rows(length, 200, length):
        np.testing.assert_array_equal(formats.get(name).quantize(row), slow(name, row))


@pytest.mark.parametrize("name", NAMES)
def test_blocks_run_along_any_axis(name):
    fmt, x = formats.get(name), np.random.default_rng(0).normal(size=(5, 40, 3)).astype(np.float32)
    codes, scales = fmt.encode(x, axis=1)
    blocks = -(-40 // fmt.block)
    assert (codes.shape, codes.dtype, scales.codes.shape) == (x.shape, np.uint8, (5, blocks, 3))
    moved = np.moveaxis(fmt.quantize(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1)
    np.testing.assert_array_equal(fmt.decode(codes, scales, axis=1), moved)
    np.testing.assert_array_equal(fmt.quantize(np.asfortranarray(x), axis=-2), moved)


@pytest.mark.parametrize(
    ("name", "block", "expected"),
    [
        ("mxfp4", [7, 0.3, 0.3], [6, 0.5, 0.5]),
        ("mxfp4", [7.9999995, 1.1, 0.3], [6, 1, 0.5]),  # the logarithm, in floating point, would make the scale 2
        ("mxfp8_e4m3", [957.0], [896]),
        ("mxfp4", [2.0**-127] * 32, [2.0**-127] * 32),
        ("mxint8", [1.0, -0.5, 0.0078125], [1, -0.5, 0.0]),
        ("mxfp4", [0.0, -0.0], [0.0, -0.0]),
        ("nvfp4", [0.0] * 17, [0.0] * 17),
    ],
)
def test_the_published_traps(name, block, expected):
    found = formats.get(name).quantize(np.float32(block))
    np.testing.assert_array_equal(found.view(np.uint32), np.float32(expected).view(np.uint32))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nvfp4"])
def test_quantizing_again_changes_nothing_where_scales_are_powers_of_two(name):
    fmt, x = formats.get(name), rows(3, 50, 64)
    once = fmt.quantize(x)
    np.testing.assert_array_equal(fmt.quantize(once), once)


@pytest.mark.parametrize("name", NAMES)
def test_small_blocks_beside_a_large_one_keep_a_usable_scale(name):
    x = np.concatenate([np.full(32, 1e30, np.float32), np.full(32, 1e-30, np.float32), np.zeros(32, np.float32)])
    found = formats.get(name).quantize(x)
    assert np.isfinite(found).all()
    assert (found[64:] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_leaves_no_usable_scale_names_the_block(value):
    x = np.zeros((2, 100), np.float32)
    x[1, 40] = value
    message = r"^values for mxfp4 must be finite, not NaN or Inf in 1 blocks, the first \(1, 1\)$"
    with pytest.raises(ValueError, match=message):
        formats.get("mxfp4").encode(x)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_nothing_becomes_nothing(shape):
    assert formats.get("mxfp4").quantize(np.zeros(shape, np.float32)).shape == shape


def test_bits_count_the_scales_share():
    found = [formats.get(name).bits_per_element for name in NAMES]
    assert found == [8.25, 8.25, 6.25, 6.25, 4.25, 8.25, 4.5]


def test_a_block_format_is_refused_where_codes_stand_alone():
    with pytest.raises(ValueError, match=r"^format must be one whose codes stand alone here, not the block format mxfp4$"):
        formats.scalar("mxfp4")
    with pytest.raises(ValueError, match=r"^x for nvfp4 must have at least one axis, not none$"):
        formats.get("nvfp4").encode(np.float32(1))
    codes, scales = formats.get("mxfp4").encode(np.zeros((2, 64), np.float32))
    with pytest.raises(ValueError, match=r"^scales of mxfp4 must be \(2, 1\) for these codes, not \(2, 2\)$"):
        formats.get("mxfp4").decode(codes[:, :32], scales)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_quantizing_into_an_array_is_decoding_what_was_encoded(name, axis):
    fmt = formats.get(name)
    x = normal(5, 37, 70, spread=3)
    out = np.full(x.shape, np.nan, np.float32)
    assert fmt.quantize(x, axis, out) is out
    codes, scales = fmt.encode(x, axis)
    assert_same_bits(out, fmt.decode(codes, scales, axis))
    assert_same_bits(out, fmt.decode(codes, scales, axis, out=np.empty_like(x)))


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "nvfp4"])
def test_any_layout_and_any_float_gives_the_same(name):
    fmt = formats.get(name)
    x = normal(6, 40, 34).astype(np.float16)
    expected = fmt.quantize(np.ascontiguousarray(x, np.float32), 1)
    assert_same_bits(fmt.quantize(x, 1), expected)
    assert_same_bits(fmt.quantize(np.asfortranarray(x), 1), expected)
    assert_same_bits(fmt.quantize(x.T, 1).T, expected)
    turned = np.empty(x.shape[::-1], np.float32)
    assert fmt.quantize(x.T, 1, turned) is turned
    assert_same_bits(turned.T, expected)
    spaced = np.zeros((6, 40, 68), np.float32)[:, :, ::2]
    spaced[...] = x
    assert_same_bits(fmt.quantize(spaced, 1, spaced), expected)
    assert_same_bits(spaced, expected)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_parts_of_a_large_array_that_is_gathered_are_cut_between_blocks(name):
    fmt = formats.get(name)
    x = normal(300, 700)
    for axis in (0, 1):
        assert_same_bits(fmt.quantize(np.asfortranarray(x), axis), fmt.quantize(x, axis))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_what_cannot_be_quantized_in_place_is_left_as_it_was(name):
    x = normal(4, 64)
    x[3, 40] = np.inf
    before = x.copy()
    with pytest.raises(ValueError, match="the first \\(3, "):
        formats.get(name).quantize(x, out=x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_quantizing_into_an_array_takes_no_memory_that_grows(name, turn):
    fmt = formats.get(name)
    peaks = []
    for rows in (256, 2048):
        x = normal(rows, 512)
        x = x.T if turn else x
        out = np.empty(x.shape, np.float32)
        fmt.quantize(x, out=out)
        tracemalloc.start()
        fmt.quantize(x, out=out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


@pytest.mark.parametrize("rounding", ["nearest_away", "toward_zero", "stochastic"])
def test_elements_are_rounded_as_asked_within_the_same_scales(rounding):
    fmt = formats.get("mxfp4")
    x = normal(3, 64)
    x[0, :3] = 4, 2.5, 0.25  # two of them half way between levels
    nearest, scales = fmt.encode(x)
    codes, same = fmt.encode(x, rounding=rounding, seed=3)
    np.testing.assert_array_equal(same.codes, scales.codes)
    factors = np.repeat(np.ldexp(np.float32(1), scales.codes.astype(int) - 127), 32, axis=1).astype(np.float32)
    np.testing.assert_array_equal(codes, fmt.element.encode(x, factors, rounding, seed=3))
    assert (codes != nearest).any()
    assert_same_bits(fmt.quantize(x, rounding=rounding, seed=3), fmt.decode(codes, scales))


def test_blocks_do_not_depend_on_the_number_of_threads():
    fmt, x = formats.get("nvfp4"), normal(700, 1024)
    before = formats.thread_count()
    try:
        found = []
        for count in (1, 3):
            formats.set_thread_count(count)
            found.append([fmt.quantize(x, axis) for axis in (0, 1)])
    finally:
        formats.set_thread_count(before)
    for one, three in zip(*found, strict=True):
        assert_same_bits(one, three)
