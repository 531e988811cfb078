import numpy as np
import pytest

import formats
from formats import Quantizer
from tests.formats.samples import normal


def direct(w, positive, negative, bits):
    """The formula one value at a time: q = round(-log2(|w| / s)), zero past the last q."""
    if w == 0:
        return 0.0
    scale = float(positive if w > 0 else negative)
    q = max(round(-np.log2(abs(float(w)) / scale)), 0)
    return float(np.sign(w)) * scale * 2.0**-q if q <= 2 ** (bits - 1) - 2 else 0.0


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_values_follow_the_formula_with_a_scale_for_either_sign(bits):
    x = normal(10, 60)
    x[x < 0] *= 0.3
    tensor = Quantizer.parse(f"twinlog{bits}:channel").encode(x)
    expected = [
        [direct(w, positive, negative, bits) for w in row] for row, positive, negative in zip(x, *tensor.scales, strict=True)
    ]
    np.testing.assert_array_equal(tensor.decode(), np.float32(expected))


def test_each_scale_is_the_one_that_mse_finds_for_its_sign():
    x = normal(5, 100)
    tensor = Quantizer.parse("twinlog4:channel").encode(x)
    one = Quantizer.parse("pot4:channel:mse")
    np.testing.assert_array_equal(tensor.scales[0], one.scales(np.maximum(x, 0)))
    np.testing.assert_array_equal(tensor.scales[1], one.scales(np.maximum(-x, 0)))


def test_two_scales_beat_one_where_the_signs_differ():
    x = normal(20, 100)
    x[x < 0] *= 0.01
    twin, one = (Quantizer.parse(text).encode(x).decode() for text in ("twinlog3:channel", "pot3:channel:mse"))
    assert np.square(twin - x)[x < 0].sum() < 0.5 * np.square(one - x)[x < 0].sum()
    assert np.square(twin - x).sum() <= np.square(one - x).sum()


def test_codes_are_those_of_powers_of_two():
    tensor = Quantizer.parse("twinlog4").encode(np.float32([[1, 2, 4, -8, -4, 0]]))
    assert tensor.codes.dtype == np.uint8
    assert [fmt.name for fmt in tensor.quantizer.formats] == ["pot4"]
    assert formats.get("pot4").values[tensor.codes].tolist() == [[0.25, 0.5, 1, -1, -0.5, 0]]
    assert tensor.storage_bits == formats.StorageBits(codes=24, scales=64)
