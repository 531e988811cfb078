import numpy as np
import pytest

from dse.ptq.low_rank import LowRankCompensation
from tests.dse.ptq.layer_samples import FORMATS, KINDS, MAIN_KINDS, layer_data, nearest, output_errors
from tests.formats.samples import exactly


@pytest.mark.parametrize("kind", MAIN_KINDS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("factors", ["float16", "int8"])
def test_it_lowers_the_error_of_the_weight_and_weighted_that_of_the_output(kind, name, factors):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, f"{name}:channel:mse")
    plain = LowRankCompensation(rank=3, factors=factors, weighted=False).apply(data, quantizer, prepared)
    weighted = LowRankCompensation(rank=3, factors=factors).apply(data, quantizer, prepared)
    error = np.square(prepared.values() - data.weight).sum()
    assert np.square(plain.values() - data.weight).sum() < 0.8 * error
    assert output_errors(data, weighted).sum() < 0.6 * output_errors(data, prepared).sum()
    assert output_errors(data, weighted).sum() < output_errors(data, plain).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_full_rank_leaves_what_storing_the_factors_takes(kind, weighted):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, "int3:channel")
    found = LowRankCompensation(rank=1000, factors="float16", weighted=weighted).apply(data, quantizer, prepared)
    error = np.abs(prepared.values() - data.weight).max()
    assert np.abs(found.values() - data.weight).max() < (0.05 if weighted else 0.005) * error
    full = min(len(data.weight), data.weight[0].size)
    assert found.low_rank.left.shape == (len(data.weight), full)
    assert found.low_rank.right.shape == (full, data.weight[0].size)


def test_without_weights_the_product_is_the_best_of_its_rank():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "int3:channel")
    found = LowRankCompensation(rank=2, factors="bfloat16", weighted=False).apply(data, quantizer, prepared)
    sizes = np.linalg.svd(data.weight.astype(np.float64) - prepared.values(), compute_uv=False)
    left = np.square(found.values().astype(np.float64) - data.weight).sum()
    assert np.square(sizes[2:]).sum() <= left < 1.01 * np.square(sizes[2:]).sum()
    left, right = found.low_rank.left.decode(), found.low_rank.right.decode()
    np.testing.assert_allclose(np.square(left).sum(axis=0), sizes[:2], rtol=0.02)
    np.testing.assert_allclose(np.square(right).sum(axis=1), sizes[:2], rtol=0.02)


def test_codes_stay_and_an_earlier_product_is_replaced():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "int4:channel")
    once = LowRankCompensation(rank=1).apply(data, quantizer, prepared)
    twice = LowRankCompensation(rank=2).apply(data, quantizer, once)
    assert twice.encoded is prepared.encoded
    np.testing.assert_array_equal(twice.values(), LowRankCompensation(rank=2).apply(data, quantizer, prepared).values())


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=exactly("rank of lorc must be at least 1, not 0")):
        LowRankCompensation(rank=0)
    with pytest.raises(KeyError, match="format must be a known name, not 'float17'"):
        LowRankCompensation(factors="float17")
