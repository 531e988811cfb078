import math

import numpy as np
import pytest

import formats
from formats import Quantizer
from formats.granularity import Granularity
from formats.methods.llm_fp4 import format_search, real_bias, scale_of_bias
from tests.formats.samples import normal


def by_real_bias(x, bias, exponent_bits, mantissa_bits):
    """LLM-FP4's formula one value at a time, in float64."""
    largest = (2 - 2.0**-mantissa_bits) * 2.0 ** (2**exponent_bits - 1 - bias)
    clipped = min(max(float(x), -largest), largest)
    if clipped == 0:
        return 0.0
    step = 2.0 ** (max(math.floor(math.log2(abs(clipped)) + bias), 1) - mantissa_bits - bias)
    return step * round(clipped / step)


@pytest.mark.parametrize(("exponent_bits", "mantissa_bits"), [(1, 2), (2, 1), (3, 0), (2, 3), (3, 2), (4, 3), (5, 2)])
@pytest.mark.parametrize("largest", [1.0, 0.37, 6.0, 91.3])
def test_a_real_bias_is_a_scale(exponent_bits, mantissa_bits, largest):
    fmt = formats.get(f"e{exponent_bits}m{mantissa_bits}")
    bias = real_bias(largest, exponent_bits, mantissa_bits)
    scale = scale_of_bias(bias, exponent_bits)
    assert scale == pytest.approx(largest / fmt.maximum, rel=1e-12)
    x = normal(400, spread=largest / 3)
    found = fmt.quantize(x, np.float32(scale))
    expected = np.array([by_real_bias(v, bias, exponent_bits, mantissa_bits) for v in x])
    # the formula's logarithm and the float32 division may part where a value is next to a boundary
    close = np.isclose(found, expected, rtol=1e-5, atol=0)
    assert close.mean() > 0.995
    np.testing.assert_allclose(found, expected, atol=largest / 2)


@pytest.mark.parametrize("exponent_bits", [2, 3, 4])
def test_the_bias_of_the_largest_value_is_the_formats_own(exponent_bits):
    fmt = formats.get(f"e{exponent_bits}m2")
    assert real_bias(fmt.maximum, exponent_bits, 2) == pytest.approx(2 ** (exponent_bits - 1) - 1)
    assert scale_of_bias(2 ** (exponent_bits - 1) - 1, exponent_bits) == 1


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_the_search_finds_the_split_of_least_error(bits):
    for seed, x in enumerate((normal(8, 100), np.random.default_rng(0).standard_t(2, (8, 100)).astype(np.float32))):
        quantizer, encoded = format_search(x, bits, Granularity.parse("channel"))
        errors = {}
        for mantissa_bits in range(bits - 1):
            name = f"e{bits - 1 - mantissa_bits}m{mantissa_bits}"
            errors[name] = np.square(Quantizer.parse(f"{name}:channel:fpq").encode(x).decode() - x, dtype=np.float64).sum()
        assert errors[quantizer.format_name] == min(errors.values()), seed
        np.testing.assert_array_equal(encoded.decode(), quantizer.encode(x).decode())


def test_heavier_tails_ask_for_more_exponent_bits():
    uniform = np.random.default_rng(0).uniform(-1, 1, (1, 4000)).astype(np.float32)
    heavy = np.random.default_rng(0).standard_t(1.5, (1, 4000)).astype(np.float32)
    widths = [format_search(x, 6, Granularity.parse("tensor"))[0].format_name for x in (uniform, heavy)]
    assert widths[0] == "e1m4"
    assert int(widths[1][1]) > 1


def test_the_method_encodes_as_its_search_says():
    x = normal(4, 64)
    assert str(Quantizer.parse("llmfp4:channel").encode(x).quantizer) == str(format_search(x, 4, Granularity.parse("channel"))[0])
