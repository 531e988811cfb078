from dataclasses import replace

import numpy as np
import pytest

from dse.ptq.moments import moments
from tests.dse.ptq.layer_samples import KINDS, layer_data, outputs
from tests.formats.samples import exactly, normal


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_outputs_follow_from_the_moments(kind):
    data = layer_data(kind)
    error, shift = normal(*data.weight.shape, seed=1), normal(len(data.weight), seed=2)
    difference = outputs(data, data.weight + error) - outputs(data, data.weight)
    flat = difference.reshape(-1, len(error))
    found = moments(data)
    np.testing.assert_allclose(found.squared_errors(error), (flat**2).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.mean_errors(error), flat.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.squared_errors(error, shift), ((flat + shift) ** 2).mean(axis=0), rtol=1e-4)


def test_moments_are_computed_once_and_are_the_same_in_parts(monkeypatch):
    data = layer_data("convolution")
    whole = moments(data)
    assert moments(data) is whole
    monkeypatch.setattr("dse.ptq.moments.PATCH_VALUES", 1)
    parts = moments(replace(data))
    assert parts is not whole
    np.testing.assert_allclose(parts.second, whole.second, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(parts.first, whole.first, rtol=1e-5, atol=1e-5)


def test_useless_operands_are_refused():
    data = layer_data("linear")
    with pytest.raises(ValueError, match=exactly("calibration operands must be at least one sample, not none (layer '0')")):
        moments(replace(data, inputs=data.inputs[:0]))
    message = "calibration operands must be finite, and so their squares in float32 (layer '0')"
    for value in (np.nan, np.inf, 1e30):
        inputs = data.inputs.copy()
        inputs[3, 4] = value
        with pytest.raises(ValueError, match=exactly(message)):
            moments(replace(data, inputs=inputs))


def test_a_product_of_activations_is_refused(vit):
    layer = vit.preparation.network.layer("blocks.0.attention.scores")
    with pytest.raises(ValueError, match="layer must have a stored weight to be prepared"):
        moments(replace(layer_data("linear"), layer=layer))
