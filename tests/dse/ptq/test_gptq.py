from dataclasses import replace

import numpy as np
import pytest

from dse.ptq.gptq import Gptq
from dse.ptq.grid import grid
from dse.ptq.moments import moments
from dse.ptq.step import LowRank, PreparedWeight
from formats import Quantizer
from tests.dse.ptq.layer_samples import FORMATS, KINDS, MAIN_KINDS, layer_data, nearest, output_errors
from tests.formats.samples import assert_same_bits, exactly


@pytest.mark.parametrize("kind", MAIN_KINDS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group4"])
@pytest.mark.parametrize("act_order", [False, True])
def test_it_lowers_the_error_of_the_output(kind, name, granularity, act_order):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, f"{name}:{granularity}:mse")
    found = Gptq(act_order=act_order).apply(data, quantizer, prepared)
    assert output_errors(data, found).sum() < 0.95 * output_errors(data, prepared).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer(kind):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, "e2m1:channel")
    assert output_errors(data, Gptq().apply(data, quantizer, prepared)).sum() < 0.9 * output_errors(data, prepared).sum()


@pytest.mark.parametrize(
    "text", ["mxfp4", "nvfp4", "mxint8", "int4:block2x4", "e2m1:group16:mse:e8m0", "int4:group4:absmax:double"]
)
@pytest.mark.parametrize("act_order", [False, True])
def test_blocks_tiles_and_stored_scales(text, act_order):
    data = layer_data("convolution")
    quantizer, prepared = nearest(data, text)
    found = Gptq(act_order=act_order).apply(data, quantizer, prepared)
    assert output_errors(data, found).sum() < 0.95 * output_errors(data, prepared).sum()
    assert found.encoded.storage_bits == prepared.encoded.storage_bits


@pytest.mark.parametrize("text", ["lloydfit3:channel", "tanq4", "llmfp4:group8"])
def test_methods_with_a_table(text):
    data = layer_data("linear")
    quantizer, prepared = nearest(data, text)
    assert output_errors(data, Gptq().apply(data, quantizer, prepared)).sum() < output_errors(data, prepared).sum()


def by_explicit_inverses(second, weight, levels, damping, act_order):
    """Round one column after the other; what is left is solved anew each time for the columns still to come."""
    codes = np.zeros(weight.shape, np.int64)
    for group, hessian in enumerate(second):
        damped = hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))
        order = list(np.argsort(-np.diag(hessian), kind="stable")) if act_order else list(range(len(hessian)))
        left = weight[group].astype(np.float64)
        while order:
            inverse = np.linalg.inv(damped[np.ix_(order, order)])
            first = order[0]
            codes[group, :, first] = levels.format.encode(left[:, first].astype(np.float32), levels.factors[group, :, first])
            rounded = levels.format.decode(codes[group, :, first].astype(np.uint8), levels.factors[group, :, first])
            left[:, order] -= np.outer(left[:, first] - rounded, inverse[0]) / inverse[0, 0]
            order = order[1:]
    return codes


@pytest.mark.parametrize("kind", MAIN_KINDS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("block", [1, 5, 128])
def test_codes_are_those_of_the_plain_algorithm(kind, name, act_order, block):
    data = layer_data(kind)
    quantizer, prepared = nearest(data, f"{name}:channel:mse")
    known, levels = moments(data), grid(prepared.encoded)
    shape = (known.groups, -1, known.columns)
    grouped = replace(levels, factors=levels.factors.reshape(known.groups, len(data.weight) // known.groups, known.columns))
    wanted = by_explicit_inverses(known.second, data.weight.reshape(shape), grouped, 0.01, act_order)
    found = Gptq(act_order=act_order, block=block).apply(data, quantizer, prepared)
    # an output channel that would err more keeps its codes
    values = levels.values(wanted.reshape(data.weight.shape).astype(np.uint8))
    kept = output_errors(data, PreparedWeight(encoded=levels.store(levels.encode(values)))) >= output_errors(data, prepared)
    values[kept] = prepared.values()[kept]
    assert_same_bits(found.values(), values)
    assert not kept.all()


def test_scales_of_groups_are_chosen_when_the_group_is_reached():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "int4:group8:mse")
    found = Gptq(act_order=False).apply(data, quantizer, prepared).encoded
    first = np.arange(len(found.scales)) % 3 == 0
    assert_same_bits(found.scales[first], prepared.encoded.scales[first])  # nothing has moved yet
    assert (found.scales[~first] != prepared.encoded.scales[~first]).any()
    static = Gptq(act_order=True).apply(data, quantizer, prepared).encoded
    assert_same_bits(static.scales, prepared.encoded.scales)


def test_the_scale_of_a_tensor_of_blocks_stays():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "nvfp4")
    found = Gptq(act_order=False).apply(data, quantizer, prepared).encoded
    assert found.scales.tensor == prepared.encoded.scales.tensor
    assert (found.scales.codes != prepared.encoded.scales.codes).any()


def test_inputs_that_are_always_zero_leave_their_weights_at_the_nearest():
    data = layer_data("linear")
    inputs = data.inputs.copy()
    inputs[:, [3, 9]] = 0
    data = replace(data, inputs=inputs)
    quantizer, prepared = nearest(data, "int4:channel")
    for act_order in (False, True):
        found = Gptq(act_order=act_order).apply(data, quantizer, prepared)
        np.testing.assert_array_equal(found.values()[:, [3, 9]], prepared.values()[:, [3, 9]])
        assert (found.values() != prepared.values()).any()


def test_operands_of_zeros_change_nothing():
    data = layer_data("linear")
    data = replace(data, inputs=np.zeros_like(data.inputs))
    quantizer, prepared = nearest(data, "int4:channel")
    np.testing.assert_array_equal(Gptq().apply(data, quantizer, prepared).values(), prepared.values())


def test_the_codes_make_up_for_what_a_low_rank_product_leaves():
    data = layer_data("linear")
    quantizer, prepared = nearest(data, "int4:channel")
    factors = Quantizer.parse("float16")
    left, right = np.ones((10, 1), np.float32), np.linspace(-0.1, 0.1, 24, dtype=np.float32)[np.newaxis]
    prepared = replace(prepared, low_rank=LowRank(left=factors.encode(left), right=factors.encode(right)))
    found = Gptq().apply(data, quantizer, prepared)
    assert found.low_rank is prepared.low_rank
    assert output_errors(data, found).sum() < 0.5 * output_errors(data, prepared).sum()


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=exactly("damping of gptq must be above 0, not 0")):
        Gptq(damping=0)
    with pytest.raises(ValueError, match=exactly("block of gptq must be at least 1, not 0")):
        Gptq(block=0)


class TestAgainstBrevitas:
    """The same codes, but where float32 there and float64 here round to other sides."""

    @pytest.mark.parametrize("kind", ["linear", "convolution", "depthwise"])
    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("act_order", [False, True])
    def test_almost_all_codes_are_the_same(self, kind, name, act_order):
        ptq = pytest.importorskip("benchmarks.ptq", exc_type=ImportError)
        data = layer_data(kind)
        quantizer, prepared = nearest(data, f"{name}:channel:absmax")
        case = ptq.Case(data=data, validation=moments(data), prepared=prepared, quantizer=quantizer)
        weight = ptq.brevitas_gptq(case, act_order)
        ours = Gptq(act_order=act_order).apply(data, quantizer, prepared)
        rows = output_errors(data, ours) < output_errors(data, prepared)
        assert rows.any()
        assert np.isclose(ours.values()[rows], weight[rows], rtol=1e-6).mean() > 0.9
        assert (prepared.values() != weight).any()
