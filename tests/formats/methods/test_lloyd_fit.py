import numpy as np
import pytest

from formats import Quantizer, StorageBits
from formats.clustering import of_samples
from formats.lloyd_max import gaussian_distortion
from formats.testing import check_format
from tests.formats.samples import normal


def relative_error(text, x):
    return np.square(Quantizer.parse(text).encode(x).decode() - x, dtype=np.float64).sum() / np.square(x, dtype=np.float64).sum()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_normal_values_come_at_the_known_distortion(bits, granularity):
    x = normal(50, 2000)
    assert relative_error(f"lloydfit{bits}:{granularity}", x) == pytest.approx(gaussian_distortion(bits), rel=0.02)


def test_it_fits_what_no_fixed_format_does():
    x = np.random.default_rng(0).choice(np.float32([-3.3, -0.1, 0.7, 0.71, 5]), (10, 100))
    assert relative_error("lloydfit3", x) < 1e-13


def test_the_levels_are_those_of_the_scaled_samples():
    x = normal(1, 500)
    tensor = Quantizer.parse("lloydfit3").encode(x)
    np.testing.assert_allclose(tensor.scales, np.sqrt(np.square(x, dtype=np.float64).mean()), rtol=1e-6)
    np.testing.assert_array_equal(tensor.format.values, np.float32(of_samples(x / tensor.scales, 8)))
    check_format(tensor.format)


def test_rows_with_larger_scales_count_for_more():
    """One row of whole numbers, large, and one that is small: the code book must serve the large one."""
    large = np.float32([-3, -1, 1, 3] * 50)
    x = np.stack([large, np.abs(normal(200)) * np.float32(1e-3)])
    decoded = Quantizer.parse("lloydfit2:channel").encode(x).decode()
    np.testing.assert_allclose(decoded[0], large, rtol=1e-4)


def test_the_filling_of_a_short_group_is_left_out():
    x = np.float32([[4, 4, 4, 4, 4]])
    tensor = Quantizer.parse("lloydfit2:group4").encode(x)
    assert tensor.scales.tolist() == [4, 4]
    assert tensor.format.unused == {1, 2, 3}
    assert tensor.decode().tolist() == x.tolist()


def test_the_table_is_stored():
    assert Quantizer.parse("lloydfit3:channel").storage_bits((8, 8)) == StorageBits(codes=192, scales=8 * 32 + 8 * 32)
