import math

import numpy as np
import pytest

import formats
from formats import Quantizer
from formats.methods.tanq import THETAS, tangent_levels
from tests.formats.samples import normal


def attention(rows=100, columns=64, sharpness=4.0):
    scores = np.random.default_rng(0).normal(size=(rows, columns)) * sharpness
    return (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("theta", [0.05, 0.8, 1.5])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_levels_are_where_the_tangent_is_on_its_grid(bits, theta):
    levels = tangent_levels(bits, theta)
    y = [math.tan(theta * x) / math.tan(theta) for x in levels]
    np.testing.assert_allclose(y, [k / (2**bits - 1) for k in range(2**bits)], atol=1e-12)
    assert levels[0] == 0
    assert levels[-1] == pytest.approx(1)


def test_steps_are_finer_near_the_largest_value_and_uniform_for_small_angles():
    steps = np.diff(tangent_levels(4, 1.4))
    assert (np.diff(steps) < 0).all()
    np.testing.assert_allclose(tangent_levels(4, 1e-4), np.linspace(0, 1, 16), atol=1e-8)


def direct(x, bits, theta):
    """The formula itself: round y, and go back."""
    scale = float(x.max())
    y = np.tan(theta * x / scale) / math.tan(theta)
    return scale * np.arctan(np.round(y * (2**bits - 1)) / (2**bits - 1) * math.tan(theta)) / theta


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_no_angle_by_the_formula_itself_does_better(bits):
    x = attention()
    decoded = Quantizer.parse(f"tanq{bits}").encode(x).decode()
    error = np.square(decoded.astype(np.float64) - x).sum()
    for theta in THETAS:
        assert error <= np.square(direct(x.astype(np.float64), bits, theta) - x).sum() * (1 + 1e-6)


def test_it_is_never_much_worse_than_uniform_and_better_where_values_crowd_at_the_top():
    x = (1 - np.abs(normal(4000)) * 0.05).astype(np.float32)
    tan, uniform = (Quantizer.parse(text).encode(x).decode() for text in ("tanq4", "uint4:tensor:absmax"))
    assert np.square(tan - x).sum() < 0.2 * np.square(uniform - x).sum()


def test_decoding_follows_the_levels():
    x = attention()
    tensor = Quantizer.parse("tanq4:channel").encode(x)
    levels = tensor.format.float32_values
    np.testing.assert_array_equal(tensor.scales, x.max(axis=1))
    np.testing.assert_array_equal(tensor.decode(), levels[tensor.codes] * tensor.scales[:, np.newaxis])
    matching = [theta for theta in THETAS if np.array_equal(np.float32(tangent_levels(4, theta)), levels)]
    assert len(matching) == 1


def test_negative_values_count_as_zero():
    tensor = Quantizer.parse("tanq3").encode(np.float32([[-5, 0.5, 1]]))
    assert tensor.scales == 1
    assert tensor.decode()[0, 0] == 0


def test_only_theta_is_stored_for_the_table():
    assert Quantizer.parse("tanq4:tensor").storage_bits((8, 8)) == formats.StorageBits(codes=256, scales=64)
