"""Statistics of channels against sums in plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.ptq.channel_classes import OUTSIDE
from dse.ptq.observe import magnitudes, maxima, second_moments

SHAPES = [((1, 4, 1, 1), (5, 4, 3, 2), 1), ((1, 1, 6), (5, 3, 6), 2), ((1, 6), (5, 6), 1), ((1, 2, 1, 3), (5, 2, 4, 3), 3)]


def indexed(shape: tuple[int, ...], axis: int, generator: np.random.Generator) -> np.ndarray:
    """Channels 0 to 2 at random places along an axis, for the first place of every other axis alone."""
    index = np.full(shape, OUTSIDE)
    places = generator.permutation(shape[axis])[:3]
    first = tuple(slice(None) if number == axis else slice(0, 1) for number in range(len(shape)))
    line = np.full(shape[axis], OUTSIDE)
    line[places] = np.arange(3)
    index[first] = line.reshape([-1 if number == axis else 1 for number in range(len(shape))])
    return index


@pytest.mark.parametrize(("shape", "operand_shape", "axis"), SHAPES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_statistics_are_those_of_a_loop(shape: tuple[int, ...], operand_shape: tuple[int, ...], axis: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    operand = generator.normal(size=operand_shape).astype(np.float32)
    index = indexed(shape, axis, generator)
    everywhere = np.broadcast_to(index, operand.shape)
    channels = [
        np.moveaxis(operand, axis, -1)[np.moveaxis(everywhere, axis, -1) == channel].astype(np.float64) for channel in range(3)
    ]
    np.testing.assert_allclose(maxima(operand, index, 3), [np.abs(values).max() for values in channels], rtol=1e-6)
    sums, counts = magnitudes(operand, index, 3)
    np.testing.assert_allclose(sums, [np.abs(values).sum() for values in channels], rtol=1e-6)
    np.testing.assert_array_equal(counts, [values.size for values in channels])
    vectors = np.stack(channels)
    np.testing.assert_allclose(second_moments(operand, index, 3), vectors @ vectors.T, rtol=1e-6, atol=1e-9)
