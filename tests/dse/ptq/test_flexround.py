from dataclasses import replace

import numpy as np
import pytest

from dse.ptq.flexround import FlexRound
from dse.ptq.grid import grid
from tests.dse.ptq.layer_samples import FORMATS, KINDS, MAIN_KINDS, layer_data, nearest, output_errors
from tests.formats.samples import assert_same_bits, exactly

QUICK = FlexRound(iterations=60)


@pytest.mark.parametrize("kind", MAIN_KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_it_lowers_the_error_of_every_output_channel_that_it_changes(kind, name):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, f"{name}:channel:mse")
    before, after = output_errors(data, prepared), output_errors(data, QUICK.apply(data, quantizer, prepared))
    assert after.sum() < 0.8 * before.sum()
    assert (after <= before * (1 + 1e-4)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, "e2m1:group4")
    assert output_errors(data, QUICK.apply(data, quantizer, prepared)).sum() < 0.9 * output_errors(data, prepared).sum()


@pytest.mark.parametrize("text", ["int4:tensor", "post4:block2x4", "lloydfit3:channel", "tanq4", "int4:group8"])
def test_scales_are_learned_where_they_are_stored_as_they_are(text):
    data = layer_data("linear")
    quantizer, prepared = nearest(data, text)
    found = QUICK.apply(data, quantizer, prepared)
    assert (found.encoded.scales != prepared.encoded.scales).any()
    assert output_errors(data, found).sum() < 0.9 * output_errors(data, prepared).sum()
    levels = grid(found.encoded)
    assert_same_bits(found.values(), levels.values(found.encoded.codes))


@pytest.mark.parametrize("text", ["int4:channel:mse:power_of_two", "e2m1:group8:absmax:double", "mxfp4", "nvfp4"])
def test_scales_stay_where_they_are_stored_otherwise(text):
    data = layer_data("linear")
    quantizer, prepared = nearest(data, text)
    found = QUICK.apply(data, quantizer, prepared)
    assert_same_bits(grid(found.encoded).factors, grid(prepared.encoded).factors)
    assert output_errors(data, found).sum() < 0.95 * output_errors(data, prepared).sum()


def test_a_weight_may_move_by_more_than_one_level():
    data = layer_data("convolution")
    quantizer, prepared = nearest(data, "int6:channel:mse:e8m0")
    codes = FlexRound(iterations=500, learning_rate=0.01).apply(data, quantizer, prepared).encoded.codes
    moved = np.abs(codes.astype(int) - prepared.encoded.codes)
    assert np.minimum(moved, 64 - moved).max() > 1


def test_a_shifted_bias_is_allowed_for():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "int4:channel")
    prepared = replace(prepared, bias_shift=np.linspace(-0.2, 0.2, 10, dtype=np.float32))
    before, after = output_errors(data, prepared), output_errors(data, QUICK.apply(data, quantizer, prepared))
    assert (after <= before * (1 + 1e-4)).all()
    assert after.sum() < before.sum()


def test_results_are_the_same_every_time():
    data = layer_data("convolution")
    quantizer, prepared = nearest(data, "int4:channel")
    assert_same_bits(QUICK.apply(data, quantizer, prepared).values(), QUICK.apply(replace(data), quantizer, prepared).values())


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=exactly("iterations of flexround must be at least 1, not 0")):
        FlexRound(iterations=0)
