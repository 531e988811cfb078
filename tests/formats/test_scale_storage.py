import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import formats
from formats import Quantizer
from formats.scale_storage import NO_SECOND, ScaleStorage
from tests.formats.samples import exactly, normal

NAMES = ("float32", "power_of_two", "e8m0", "float8_e4m3fn", "double")
E4M3 = formats.get("float8_e4m3fn")
SCALES = hnp.arrays(
    np.float32,
    st.integers(1, 600),
    elements=st.floats(np.float32(1.1754943508222875e-38), np.float32(3.4028234663852886e38), width=32),
)


def positive(count, seed=0, spread=1.0):
    return np.exp(normal(count, seed=seed) * spread).astype(np.float32)


def stored(name, scales, *, up=False, used=None):
    storage = ScaleStorage.parse(name)
    second = storage.second_scales(scales, np.ones(len(scales), bool) if used is None else used)
    return storage.store(scales, second, up=up)


@settings(deadline=None)
@given(SCALES, st.sampled_from(NAMES), st.booleans())
def test_every_stored_scale_is_finite_and_above_zero(scales, name, up):
    found = stored(name, scales, up=up)
    decoded = found.decode()
    assert decoded.dtype == np.float32
    assert decoded.shape == scales.shape
    assert np.isfinite(decoded).all()
    assert (decoded > 0).all()
    assert found.bits == ScaleStorage.parse(name).bits(len(scales))


@settings(deadline=None)
@given(SCALES, st.sampled_from(NAMES))
def test_what_is_stored_is_stored_as_it_is(scales, name):
    storage, first = ScaleStorage.parse(name), stored(name, scales)
    np.testing.assert_array_equal(storage.store(first.decode(), first.second).decode(), first.decode())


def test_float32_keeps_scales():
    scales = positive(50)
    assert stored("float32", scales).codes is scales


@pytest.mark.parametrize(("name", "low", "dtype"), [("power_of_two", -126, np.int8), ("e8m0", -127, np.uint8)])
def test_powers_of_two_are_the_nearest_or_the_next_up(name, low, dtype):
    scales = np.concatenate([positive(500, spread=20), np.float32([1, 2, 1.5, 3, 0.75, 1.4999999, 1.5000001, 3.4e38, 1.2e-38])])
    powers = [Fraction(2) ** exponent for exponent in range(low, 128)]
    nearest, up = stored(name, scales), stored(name, scales, up=True)
    assert nearest.codes.dtype == up.codes.dtype == dtype
    for scale, one, other in zip(scales.tolist(), nearest.decode().tolist(), up.decode().tolist(), strict=True):
        exact = Fraction(scale)
        assert Fraction(one) == min(reversed(powers), key=lambda power, exact=exact: abs(power - exact))
        assert Fraction(other) == min((power for power in powers if power >= exact), default=powers[-1])


def test_power_of_two_codes_are_exponents_and_e8m0_codes_those_of_its_format():
    scales = np.float32([0.25, 1, 1024])
    assert stored("power_of_two", scales).codes.tolist() == [-2, 0, 10]
    np.testing.assert_array_equal(formats.get("float8_e8m0fnu").decode(stored("e8m0", scales).codes), scales)


def test_e4m3_puts_the_largest_scale_at_448():
    scales = positive(300, spread=2)
    found = stored("float8_e4m3fn", scales)
    assert found.second.tensor == scales.max() / np.float32(448)
    assert found.codes[scales.argmax()] == 0x7E  # the code of 448
    np.testing.assert_array_equal(found.codes, np.maximum(E4M3.encode(scales, found.second.tensor), 1))
    np.testing.assert_array_equal(found.decode(), E4M3.decode(found.codes, found.second.tensor))


def test_e4m3_never_stores_zero():
    found = stored("float8_e4m3fn", np.float32([1, 1e-9]))
    assert found.codes.tolist() == [0x7E, 1]
    assert found.decode()[1] == np.float32(1) / np.float32(448) * np.float32(2**-9)


def slow_double(scales):
    """Double quantization one scale at a time: mean off, blocks of 256, the nearest float8_e4m3fn that leaves a positive scale."""
    mean = np.float32(math.fsum(scales.tolist()) / len(scales))
    values = [float(v) for v in E4M3.float32_values if np.isfinite(v)]
    decoded = []
    for start in range(0, len(scales), 256):
        block = scales[start : start + 256]
        second = np.abs(block - mean).max() / np.float32(448)
        for scale in block:
            usable = [v for v in values if mean + np.float32(np.float32(v) * second) >= np.finfo(np.float32).tiny]
            ratio = float((scale - mean) / second)
            best = min(abs(v - ratio) for v in usable)
            near = {float(mean + np.float32(np.float32(v) * second)) for v in usable if abs(v - ratio) == best}
            decoded.append(near)
    return decoded


@pytest.mark.parametrize(("count", "spread"), [(700, 0.3), (256, 0.1), (300, 3.0), (5, 1.0)])
def test_double_quantization_is_the_slow_one(count, spread):
    scales = positive(count, seed=count, spread=spread)
    for one, expected in zip(stored("double", scales).decode().tolist(), slow_double(scales), strict=True):
        assert one in expected


def test_double_quantization_brings_small_scales_up_where_they_would_turn_negative():
    scales = np.float32([1.0] * 50 + [1e-6])
    found = stored("double", scales).decode()
    assert (found > 0).all()
    assert found[-1] < 0.1


def test_rows_of_zeros_do_not_move_second_scales():
    scales = np.float32([0.01, 0.02, 1, 1])
    used = np.array([True, True, False, False])
    for name in ("float8_e4m3fn", "double"):
        found, alone = stored(name, scales, used=used), stored(name, scales[:2])
        assert found.second.tensor == alone.second.tensor
        np.testing.assert_array_equal(found.second.blocks, alone.second.blocks)
        np.testing.assert_array_equal(found.decode()[:2], alone.decode())


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("float32", 32 * 600),
        ("power_of_two", 8 * 600),
        ("e8m0", 8 * 600),
        ("float8_e4m3fn", 8 * 600 + 32),
        ("double", 8 * 600 + 32 * 4),
    ],
)
def test_bits_are_what_codes_and_second_scales_take(name, bits):
    found = stored(name, positive(600))
    assert found.bits == bits
    second = 32 * len(found.second.blocks) + 32 * (name in ("float8_e4m3fn", "double"))
    assert found.codes.nbytes * 8 + second == bits


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_with_a_row_of_zeros_keeps_it(name):
    x = normal(6, 32, spread=0.01)
    x[3] = 0
    tensor = Quantizer.parse(f"int4:channel:mse:{name}").encode(x)
    assert not tensor.decode()[3].any()
    assert (tensor.scales > 0).all()
    assert tensor.scales[3] == 1 or name in ("float8_e4m3fn", "double")


def test_double_quantization_of_nf4_costs_an_eighth_of_a_bit_and_hardly_any_error():
    """QLoRA, section 3: from 0.5 to 0.127 bits for a value with blocks of 64."""
    x = normal(256, 1024)
    once, twice = (Quantizer.parse(f"nf4:group64:absmax{end}").encode(x) for end in ("", ":double"))
    assert once.storage_bits.scales / x.size == 0.5
    assert round(twice.storage_bits.scales / x.size, 3) == 0.127
    errors = [np.square(tensor.decode() - x, dtype=np.float64).mean() for tensor in (once, twice)]
    assert errors[1] < 1.01 * errors[0]


@pytest.mark.parametrize(("text", "nearest"), [("e8m1", "nearest: e8m0"), ("fp32", "nearest: float32")])
def test_an_unknown_storage_names_the_nearest(text, nearest):
    with pytest.raises(KeyError, match=exactly(f"scale storage must be a known name, not {text!r}; {nearest}")):
        ScaleStorage.parse(text)


def test_storages_without_second_scales_have_none():
    assert stored("e8m0", positive(3)).second is NO_SECOND
