"""Quantizers that are more than a format and its scales, in a network."""

from pathlib import Path

import numpy as np
import pytest

from dse.assignment import LayerAssignment, parse_quantizer, read
from dse.cli import main
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from formats import BitatlasError

MIXES = [
    ("tritplanes:group32", "int8"),
    ("mxfp4", "e4m3"),
    ("nvfp4", "int8"),
    ("pcdvq_d12_m4:channel", "int8"),
    ("int4:block4x8:mse:e8m0", "uint8:tensor:lsq:power_of_two"),
    ("nf4:group64:absmax:double", "tanq6"),
    ("lloydfit4", "lloydfit5"),
    ("twinlog5", "llmfp8"),
    ("apot5:channel:lsq", "apot6:tensor:fpq"),
]


@pytest.mark.parametrize(
    ("model", "weight", "activation"),
    [("resnet8", *mix) for mix in MIXES] + [("vit", "tritplanes:group32", "int8"), ("vit", "lloydfit4", "lloydfit5")],
)
def test_a_network_runs_with_every_kind_of_quantizer(
    model: str, weight: str, activation: str, request: pytest.FixtureRequest
) -> None:
    experiment: Experiment = request.getfixturevalue(model)
    preparation = experiment.preparation
    assignment = preparation.uniform("m", "d", parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation"))
    images = experiment.split("validation").images[:40]
    reference = preparation.network.logits(images)
    found = quantized_logits(preparation, assignment, images)
    assert np.isfinite(found).all()
    assert not np.array_equal(found, reference)
    if weight != "pcdvq_d12_m4:channel":  # 2 bits
        assert (found.argmax(axis=1) == reference.argmax(axis=1)).mean() > 0.8


def test_a_stored_weight_is_what_its_quantizer_decodes(resnet8: Experiment) -> None:
    layer = resnet8.preparation.network.layers[1]
    assert layer.weight is not None
    for text in ("tritplanes:group32", "mxfp4", "pcdvq_d8_m2:channel"):
        quantizer = parse_quantizer(text, "weight")
        chosen = LayerAssignment(weight=quantizer, activation=parse_quantizer("int8", "activation"))
        values = resnet8.preparation.stored_weights({layer.name: chosen})[layer.name].values.numpy()
        np.testing.assert_array_equal(values, quantizer.encode(layer.weight).decode())


@pytest.mark.parametrize("text", ["tritplanes:tensor", "pcdvq_d8_m2:tensor", "twinlog4:tensor", "ternary:tensor:twn"])
def test_an_activation_needs_one_format_and_one_scale(text: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        parse_quantizer(text, "activation")
    assert str(caught.value) == f"quantizer of an activation must come down to one format and one scale, not be {text}"


@pytest.mark.parametrize(
    ("text", "granularity"), [("mxfp4", "block"), ("tritplanes:group32", "group32"), ("tanq4:channel", "channel")]
)
def test_an_activations_granularity_is_the_tensor(text: str, granularity: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        parse_quantizer(text, "activation")
    assert str(caught.value) == f"granularity of an activation must be tensor, not {granularity} ({text})"


def test_the_second_operand_of_a_product_takes_the_activations_where_the_weights_cannot_be_fixed(vit: Experiment) -> None:
    weight, activation = parse_quantizer("tritplanes:group32", "weight"), parse_quantizer("e4m3", "activation")
    layers = vit.preparation.uniform("m", "d", weight, activation).layers
    assert str(layers["blocks.0.attention.query"].weight) == "tritplanes:group32"
    assert str(layers["blocks.0.attention.mix"].weight) == "e4m3:tensor:mse"
    layers = vit.preparation.uniform("m", "d", parse_quantizer("lloydfit4:channel", "weight"), activation).layers
    assert str(layers["blocks.0.attention.mix"].weight) == "lloydfit4:tensor"


def test_a_choice_for_one_format_keeps_it_where_values_are_never_negative(resnet8: Experiment) -> None:
    activation = parse_quantizer("binary:tensor:xnor", "activation")
    layers = resnet8.preparation.uniform("m", "d", parse_quantizer("int4", "weight"), activation).layers
    assert {str(layer.activation) for layer in layers.values()} == {"binary:tensor:xnor"}


def test_an_assignment_with_methods_survives_its_file(resnet8: Experiment, tmp_path: Path) -> None:
    preparation = resnet8.preparation
    weight, activation = parse_quantizer("tritplanes:group32", "weight"), parse_quantizer("tanq4", "activation")
    written = preparation.uniform("m", "d", weight, activation)
    written.write(tmp_path / "a.json")
    assert read(tmp_path / "a.json", list(written.layers)) == written


def test_evaluate_says_which_costs_it_leaves_out_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "--model", "resnet8", "--data", "digits", "--weights", "tritplanes:group32", "--activations", "int8"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    said = "quantizer must write the codes of one format here, such as int4:channel:mse, not tritplanes:group32"
    assert f"left out: {said} (cost model 'finn-formula', layer 'stem')" in printed
    assert "weight_bits [bit, storage]" in printed
    assert "LUT" not in printed
