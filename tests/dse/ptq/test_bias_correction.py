import numpy as np
import pytest

from dse.ptq.bias_correction import CorrectBias
from dse.ptq.low_rank import LowRankCompensation
from tests.dse.ptq.layer_samples import FORMATS, KINDS, layer_data, nearest, output_errors, outputs


def mean_error(data, prepared):
    error = outputs(data, prepared.values(), prepared.bias_shift) - outputs(data, data.weight)
    return error.reshape(-1, error.shape[-1]).mean(axis=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_mean_error_of_every_output_channel_becomes_zero(kind, name):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, f"{name}:channel")
    found = CorrectBias().apply(data, quantizer, prepared)
    before = np.abs(mean_error(data, prepared)).max()
    assert before > 1e-3
    assert np.abs(mean_error(data, found)).max() < 1e-4 * before
    assert (output_errors(data, found) <= output_errors(data, prepared)).all()
    assert found.bias_shift.dtype == np.float32
    assert found.encoded is prepared.encoded


def test_a_low_rank_product_counts_and_an_earlier_shift_is_replaced():
    data = layer_data("convolution")
    quantizer, prepared = nearest(data, "int3:channel")
    early = CorrectBias().apply(data, quantizer, prepared)
    found = CorrectBias().apply(data, quantizer, LowRankCompensation(rank=1).apply(data, quantizer, early))
    assert np.abs(mean_error(data, found)).max() < 1e-5
    assert np.abs(found.bias_shift - early.bias_shift).max() > 1e-3
