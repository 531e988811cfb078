"""Graphs as FINN reads them, and what is refused before FINN is started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import formats
from dse import cli
from dse.assignment import Assignment, parse_quantizer
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import qonnx_execution, targets
from dse.flows import finn_conditions, finn_flow, finn_graph
from dse.flows.finn_steps import digest
from dse.flows.hls4ml_conditions import fillings_of
from formats import BitatlasError

MakeExperiment = Callable[[str], Experiment]
Uniform = Callable[..., Assignment]
SILENT = "FINN leaves it in software without a word"
POWERS = "int4:channel:mse:power_of_two", "int4:tensor:mse:power_of_two"


@pytest.mark.parametrize("name", ["mlp", "finn_cnn"])
def test_a_prepared_graph_gives_the_emulators_answers_from_codes(
    name: str, make_experiment: MakeExperiment, uniform: Uniform
) -> None:
    experiment = make_experiment(name)
    assignment = uniform(experiment, *POWERS)
    network, fillings = fillings_of(experiment.preparation, assignment)
    prepared = finn_graph.prepare(targets.export(experiment, assignment, ("qonnx",)), fillings)
    assert (prepared.input_type, prepared.input_scale) == ("UINT4", 0.0625)
    images = experiment.split("validation").images[:20]
    given = finn_flow._given(prepared, network, fillings, images)
    assert set(np.unique(given)) <= set(range(16))
    expected = quantized_logits(experiment.preparation, assignment, images)
    np.testing.assert_array_equal(qonnx_execution.run(prepared.model, given, batch=1), expected)
    operators = [node.op_type for node in prepared.model.graph.node]
    assert "Relu" not in operators
    assert operators.count("MultiThreshold") == len(network.layers) - 1
    producers = {node.output[0]: node.op_type for node in prepared.model.graph.node}
    sources = [producers[node.input[0]] for node in prepared.model.graph.node if node.op_type == "MultiThreshold"]
    assert set(sources) <= {"Add", "Conv", "MatMul"}


@pytest.mark.parametrize("unit", [0, 0.25 / 8])
@pytest.mark.parametrize("name", ["uint4", "int4", "int3_narrow", "ternary", "binary", "uint1", "int8"])
def test_thresholds_round_as_the_format_does(name: str, unit: float) -> None:
    fmt, scale = formats.scalar(name), np.float32(0.25)
    x = np.arange(-600, 600, dtype=np.float32) / 8 * scale
    if not unit:
        x = np.append(x, np.random.default_rng(0).normal(size=2000).astype(np.float32) * 8)
    for after_relu in (False, True):
        if name == "binary" and after_relu:
            continue
        thresholds, first, kind = finn_graph.thresholds_of(fmt, scale, after_relu, unit)
        steps = (x[:, np.newaxis] >= thresholds).sum(axis=1)
        expected = fmt.quantize(np.maximum(x, 0) if after_relu else x, scale)
        np.testing.assert_array_equal((steps * (2 if name == "binary" else 1) + first) * scale, expected)
        assert kind.startswith("U" if after_relu or not fmt.signed else ("INT", "BIPOLAR"))


def test_equal_quantizers_become_one(make_experiment: MakeExperiment, uniform: Uniform) -> None:
    experiment = make_experiment("resnet8")
    assignment = uniform(experiment, *POWERS)
    _, fillings = fillings_of(experiment.preparation, assignment)
    prepared = finn_graph.prepare(targets.export(experiment, assignment, ("qonnx",)), fillings)
    sources = [node.input[0] for node in prepared.model.graph.node if node.op_type == "MultiThreshold"]
    assert len(sources) == len(set(sources)) == 7  # of ten layers, two pairs read one tensor, and the first takes codes


@pytest.mark.parametrize(
    ("name", "weight", "activation", "message"),
    [
        (
            "mlp",
            "e2m1",
            "int4",
            f"weight for finn must be an integer or binary, not e2m1: {SILENT}; nearest: int4 (layer '1')",
        ),
        (
            "mlp",
            "int4",
            "ue4m4",
            f"activation for finn must be an integer or binary, not ue4m4: {SILENT}; nearest: uint8 (layer '1')",
        ),
        (
            "mlp",
            "int4:group8",
            "int4",
            "weight for finn must have scales by tensor or channel, not int4:group8:mse; nearest: int4:channel (layer '1')",
        ),
        ("mlp", "mxfp4", "int4", "weight for finn must be codes of one format, not mxfp4:block:absmax; nearest: int4 (layer '1')"),
        (
            "residual",
            "int4",
            "int4",
            "Add for finn must be of a computed and a stored tensor, not of two computed ones (behind layer 'second')",
        ),
        (
            "resnet8",
            "int4",
            "int4",
            "a ReLU for finn must be quantized before anything else reads it, not be read in float (behind layer 'stem')",
        ),
    ],
)
def test_what_finn_cannot_take_is_refused_before_it_is_started(
    name: str, weight: str, activation: str, message: str, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    experiment = make_experiment(name)
    quantizers = parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
    assignment = experiment.preparation.uniform(name, "digits", *quantizers)
    settings = finn_flow.Settings(device=finn_flow.devices.get("zu7ev"), clock_mhz=200, fps=None)
    with pytest.raises(BitatlasError) as caught:
        finn_flow.build(experiment, assignment, settings, tmp_path / "no-python", tmp_path / "out")
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            {
                "failed": "step_convert_to_hw",
                "message": "operators stay in software",
                "software": [{"type": "MatMul", "name": "MatMul_1", "layer": "head", "after": "stem"}],
            },
            "every operator must become hardware in FINN, not stay in software at step_convert_to_hw (operators stay in software): "
            "MatMul MatMul_1 (layer 'head')",
        ),
        (
            {
                "failed": "step_streamline",
                "message": "assertion",
                "software": [
                    {"type": "Div", "name": "Div_0", "layer": "", "after": "stem"},
                    {"type": "Pad", "name": "Pad_0", "layer": "", "after": ""},
                ],
            },
            "every operator must become hardware in FINN, not stay in software at step_streamline (assertion): "
            "Div Div_0 (behind layer 'stem'); Pad Pad_0 (before the first layer)",
        ),
    ],
)
def test_a_layer_that_stays_in_software_is_named(reply: dict[str, Any], message: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        finn_flow._refuse_failure(reply)
    assert str(caught.value) == message


def test_a_layer_without_a_matrix_unit_is_named(make_experiment: MakeExperiment) -> None:
    network = make_experiment("mlp").preparation.network
    nodes = tuple({"type": "MVAU_rtl", "layer": layer.name} for layer in network.layers[:-1])
    with pytest.raises(BitatlasError, match=r"^every layer must become a matrix unit in FINN, not be missing \(layer '4'\)$"):
        finn_flow._refuse_missing(network, (*nodes, {"type": "Thresholding_rtl", "layer": ""}))


def test_weights_are_known_in_whatever_order_and_among_whatever_zeros() -> None:
    weights = np.arange(-4, 8).reshape(3, 4)
    assert digest(weights) == digest(weights.T.astype(np.float32)) == digest(np.append(weights[::-1], 0))
    assert digest(weights) != digest(-weights)


def test_operators_that_finn_has_no_hardware_for(make_experiment: MakeExperiment) -> None:
    network = make_experiment("mlp").preparation.network
    node = onnx.helper.make_node("Softmax", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(BitatlasError, match=r"^operator of a network for finn must be one of .*, not Softmax \(before the first "):
        finn_conditions.check_operators(model, network)


def test_without_an_environment_the_command_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["flow", "finn", "--model", "resnet8", "--weights", "int4", "--activations", "int4", "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("dse: FINN must be installed in an environment of its own, not missing in ")
    assert said.strip().endswith(": python -m dse.flows.finn_environment makes one, or give --python")
