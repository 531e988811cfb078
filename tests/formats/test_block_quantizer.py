import numpy as np
import pytest

import formats
from formats import BlockScales, Quantizer
from tests.formats.samples import assert_same_bits, normal

NAMES = ("mxfp4", "mxfp6_e3m2", "mxfp8_e4m3", "mxint8", "nvfp4")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 70), (4, 5, 3, 3), (2, 1)])
def test_blocks_run_along_each_channels_flattened_values(name, shape):
    x, fmt = normal(*shape, spread=5), formats.get(name)
    tensor = Quantizer.parse(name).encode(x)
    codes, scales = fmt.encode(x.reshape(shape[0], -1))
    assert isinstance(tensor.scales, BlockScales)
    np.testing.assert_array_equal(tensor.codes, codes.reshape(shape))
    np.testing.assert_array_equal(tensor.scales.codes, scales.codes)
    assert tensor.scales.tensor == scales.tensor
    assert_same_bits(tensor.decode(), fmt.quantize(x.reshape(shape[0], -1)).reshape(shape))


@pytest.mark.parametrize("name", NAMES)
def test_storage_is_codes_and_the_formats_own_scales(name):
    x, fmt = normal(4, 70), formats.get(name)
    tensor = Quantizer.parse(name).encode(x)
    assert tensor.storage_bits.codes == x.size * fmt.bits
    assert tensor.storage_bits.scales == 8 * tensor.scales.codes.size + (32 if name == "nvfp4" else 0)
    assert Quantizer.parse(name).width == fmt.bits


def test_a_block_format_has_no_format_of_its_own_and_no_single_scale():
    quantizer = Quantizer.parse("mxfp4")
    assert str(quantizer.granularity) == "block"
    assert quantizer.per_tensor() is quantizer
    assert not quantizer.static
    assert [fmt.name for fmt in quantizer.formats] == ["float4_e2m1fn", "float8_e8m0fnu"]
    with pytest.raises(ValueError, match=r"^format must be one whose codes stand alone here, not the block format mxfp4$"):
        _ = quantizer.format
