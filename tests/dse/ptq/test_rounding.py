from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from dse.ptq.gptq import Gptq
from dse.ptq.grid import grid
from dse.ptq.moments import moments
from dse.ptq.rounding import Round
from tests.dse.ptq.layer_samples import FORMATS, KINDS, MAIN_KINDS, layer_data, nearest, output_errors
from tests.formats.samples import assert_same_bits, exactly

QUICK = Round(iterations=60)


@pytest.mark.parametrize("kind", MAIN_KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_it_lowers_the_error_of_every_output_channel_that_it_changes(kind, name):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, f"{name}:channel:mse")
    found = QUICK.apply(data, quantizer, prepared)
    before, after = output_errors(data, prepared), output_errors(data, found)
    assert after.sum() < 0.7 * before.sum()
    assert (after <= before * (1 + 1e-6)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["e2m1:tensor", "mxfp4"])
def test_every_kind_of_layer(kind, text):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, text)
    assert output_errors(data, QUICK.apply(data, quantizer, prepared)).sum() < 0.8 * output_errors(data, prepared).sum()


@pytest.mark.parametrize("text", ["int4:group4:mse:e8m0", "post4:block2x4", "nvfp4", "lloydfit3:channel"])
def test_every_weight_takes_one_of_its_neighbours_and_scales_stay(text):
    data = layer_data("linear")
    quantizer, prepared = nearest(data, text)
    found, levels = QUICK.apply(data, quantizer, prepared).encoded, grid(prepared.encoded)
    below = levels.lower_levels(data.weight)
    values = found.decode()
    low, high = levels.levels[below] * levels.factors, levels.levels[below + 1] * levels.factors
    assert ((values == low) | (values == high)).all()
    assert_same_bits(grid(found).factors, levels.factors)
    assert (values != prepared.values()).any()


@pytest.mark.parametrize("name", FORMATS)
def test_few_weights_come_near_to_the_best_of_all_roundings(name):
    """Of all 2**9 roundings of each channel: the best itself for most channels, and within a tenth for the layer."""
    data = layer_data("depthwise")
    quantizer, prepared = nearest(data, f"{name}:channel:mse")
    levels, known = grid(prepared.encoded), moments(data)
    below = levels.lower_levels(data.weight).reshape(8, 9)
    factors, weight = levels.factors.reshape(8, 9), data.weight.reshape(8, 9)
    upper = np.array(list(product((0, 1), repeat=9)))
    best = np.zeros(8)
    for channel in range(8):
        errors = (levels.levels[below[channel] + upper] * factors[channel] - weight[channel]).astype(np.float64)
        best[channel] = np.einsum("ni,ij,nj->n", errors, known.second[channel], errors).min()
    found = known.squared_errors(Round(iterations=200).apply(data, quantizer, prepared).values() - data.weight)
    assert (found >= best * (1 - 1e-6)).all()
    assert (found <= best * (1 + 1e-6)).sum() > 4
    assert found.sum() <= 1.1 * best.sum()


def test_it_builds_upon_codes_that_came():
    for kind in MAIN_KINDS:
        data = layer_data(kind)
        quantizer, prepared = nearest(data, "e2m1:channel:mse")
        earlier = Gptq().apply(data, quantizer, prepared)
        found = Round(iterations=1).apply(data, quantizer, earlier)
        assert (output_errors(data, found) <= output_errors(data, earlier) * (1 + 1e-6)).all()
        assert output_errors(data, found).sum() < output_errors(data, earlier).sum()


def test_learning_finds_more_than_exchange_alone():
    gained = []
    for kind in ("linear", "tokens", "convolution", "grouped"):
        data = layer_data(kind)
        quantizer, prepared = nearest(data, "int4:channel:mse")
        errors = [output_errors(data, Round(iterations=n).apply(data, quantizer, prepared)).sum() for n in (1, 300)]
        gained.append(errors[1] / errors[0])
    assert np.exp(np.log(gained).mean()) < 0.97


def test_a_shifted_bias_is_allowed_for():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "int4:channel")
    prepared = replace(prepared, bias_shift=np.linspace(-0.2, 0.2, 10, dtype=np.float32))
    before, after = output_errors(data, prepared), output_errors(data, QUICK.apply(data, quantizer, prepared))
    assert (after <= before * (1 + 1e-6)).all()


def test_results_are_the_same_every_time():
    data = layer_data("convolution")
    quantizer, prepared = nearest(data, "int4:channel")
    assert_same_bits(QUICK.apply(data, quantizer, prepared).values(), QUICK.apply(replace(data), quantizer, prepared).values())


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=exactly("iterations of round must be at least 1, not 0")):
        Round(iterations=0)
    with pytest.raises(ValueError, match=exactly("learning rate of round must be above 0, not -1")):
        Round(learning_rate=-1)
    with pytest.raises(ValueError, match=exactly("regularisation of round must be above 0, not 0")):
        Round(regularisation=0)
