"""Exported models give the emulator's answers in onnxruntime, and hold codes, not floats."""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import formats
from dse import network
from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.calibrate import calibrate
from dse.data import Split
from dse.evaluate import quantized_logits
from dse.experiment import Experiment, prepare
from dse.export import codebook, graph, qdq, runtime, targets
from dse.models import loading
from dse.ptq import steps
from dse.quantize import Preparation
from formats import BitatlasError

Uniform = Callable[[Experiment, str, str], Assignment]


class Stack(nn.Module):
    """Linear layers one after the other, under any names."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.names = names
        for name in names:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            x = torch.relu(getattr(self, name)(x)) + x
        return x


def stack(weights: Mapping[str, str], activation: str) -> tuple[Preparation, Assignment]:
    """Return linear layers by the names in ``weights``, with their quantizers."""
    images = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    split = Split(images=images, labels=np.zeros(32, np.int64))
    traced = network.build("stack", Stack(list(weights)), (4,))
    preparation = Preparation(network=traced, statistics=calibrate(traced, split), calibration=split)
    given = parse_quantizer(activation, "activation")
    layers = {name: LayerAssignment(weight=parse_quantizer(text, "weight"), activation=given) for name, text in weights.items()}
    return preparation, Assignment(model="m", data="d", layers=layers)


def built(preparation: Preparation, assignment: Assignment) -> onnx.ModelProto:
    return graph.build(preparation, assignment, (4,), (qdq.LOWERING, codebook.LOWERING), {})


@pytest.fixture(scope="module")
def mobilenet() -> Experiment:
    return prepare(loading.load("mobilenet", "digits"))


def agreement(experiment: Experiment, assignment: Assignment, names: tuple[str, ...] = targets.DEFAULT) -> runtime.Agreement:
    images = experiment.split("validation").images
    model = targets.export(experiment, assignment, names)
    return runtime.compare(
        runtime.run(model.SerializeToString(), images), quantized_logits(experiment.preparation, assignment, images)
    )


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("resnet8", ("qdq", "codebook")),
        ("vit", ("qdq", "codebook")),
        ("mobilenet", ("qdq", "codebook")),
        ("resnet8", ("codebook",)),
        ("vit", ("codebook",)),
    ],
)
def test_a_mixed_assignment_predicts_the_same_in_onnxruntime(
    model: str, names: tuple[str, ...], mixed: Callable[[Experiment], Assignment], request: pytest.FixtureRequest
) -> None:
    experiment: Experiment = request.getfixturevalue(model)
    found = agreement(experiment, mixed(experiment), names)
    runtime.check(found, model)
    assert found.samples == 300


@pytest.mark.parametrize(
    ("model", "weight", "activation"),
    [
        ("resnet8", "e4m3", "int4"),
        ("resnet8", "ternary", "int8"),
        ("resnet8", "int4", "float8_e4m3fn"),
        ("mobilenet", "int4:group16", "int3"),
        ("vit", "int2", "ternary"),
        ("vit", "float8_e4m3fn", "float8_e5m2"),
    ],
)
def test_a_session_that_fuses_what_it_can_predicts_the_same(
    model: str, weight: str, activation: str, uniform: Uniform, request: pytest.FixtureRequest
) -> None:
    """Not all of what onnxruntime fuses by default takes every type, nor does it always see that."""
    experiment: Experiment = request.getfixturevalue(model)
    assignment, images = uniform(experiment, weight, activation), experiment.split("validation").images
    exported = targets.export(experiment, assignment, ("qdq",)).SerializeToString()
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    found = runtime.compare(session.run(None, {"images": images})[0], quantized_logits(experiment.preparation, assignment, images))
    runtime.check(found, model)


@pytest.mark.parametrize("weight", ["int3:group10", "e3m2:group16", "nvfp4:block"])
def test_every_granularity_is_stored(resnet8: Experiment, uniform: Uniform, weight: str) -> None:
    # activations in fine steps: a sum in another order that crosses a rounding boundary then moves the logits little
    found = agreement(resnet8, uniform(resnet8, weight, "int12"))
    assert found.equal == found.samples
    assert found.largest_difference < 1e-2


@pytest.mark.parametrize("row", ["gptq+correct_bias", "lorc(rank=2)+correct_bias"])
def test_prepared_weights_their_factors_and_biases_are_exported(resnet8: Experiment, row: str) -> None:
    prepared = resnet8.preparation.after(("equalize",))
    quantizers = parse_quantizer("e2m1", "weight"), parse_quantizer("int8", "activation")
    found = agreement(resnet8, prepared.uniform("m", "d", *quantizers, steps.parse_row(row, "layer")))
    assert found.equal == found.samples
    assert found.largest_difference < 0.2


def test_integer_weights_are_stored_as_integers_and_others_as_codes(resnet8: Experiment, uniform: Uniform) -> None:
    assignment = uniform(resnet8, "int4", "e2m1")
    model = targets.export(resnet8, assignment)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert stored["stem/weight/codes"].data_type == TensorProto.INT4
    assert len(stored["stem/weight/codes"].raw_data) == (108 + 1) // 2
    assert not [name for name, tensor in stored.items() if tensor.data_type == TensorProto.FLOAT and name.endswith("weight")]
    encoded = resnet8.preparation.stored_weights({"stem": assignment.layers["stem"]})["stem"].encoded
    values = numpy_helper.to_array(stored["stem/weight/codes"]).astype(int)
    np.testing.assert_array_equal(values, formats.get("int4").significand[encoded.codes])
    other = targets.export(resnet8, uniform(resnet8, "post4", "e2m1"))
    assert {tensor.data_type for tensor in other.graph.initializer if tensor.name.endswith("weight/codes")} == {TensorProto.UINT4}
    assert {function.name for function in other.functions} == {"decode_post4", "quantize_ue2m2"}


@pytest.mark.parametrize(
    ("weight", "activation", "opset", "ir_version"),
    [
        ("int8", "int8", 19, 9),
        ("float8_e4m3fn", "float8_e5m2", 19, 9),
        ("e4m3", "e5m2", 19, 9),
        ("int4", "int8", 21, 10),
        ("int8", "int12", 21, 10),
        ("int8:group2", "int8", 21, 10),
        ("post8", "post8", 19, 9),
        ("mxfp4", "int8", 21, 10),
        ("ternary", "int8", 25, 13),
        ("int8", "uint2", 25, 13),
    ],
)
def test_operators_are_of_the_lowest_version_that_has_the_types(weight: str, activation: str, opset: int, ir_version: int) -> None:
    model = built(*stack({"layer": weight}, activation))
    assert {imported.domain: imported.version for imported in model.opset_import}[""] == opset
    assert {imported.version for function in model.functions for imported in function.opset_import} <= {opset}
    assert model.ir_version == ir_version


def test_any_number_of_samples_goes_in_and_no_path_of_the_machine_comes_out(resnet8: Experiment, uniform: Uniform) -> None:
    model = targets.export(resnet8, uniform(resnet8, "int4", "int4"))
    assert b".py" not in model.SerializeToString()
    assert [item.dim_param or item.dim_value for item in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    assert [item.dim_param or item.dim_value for item in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", 10]
    images = resnet8.split("validation").images
    whole = runtime.run(model.SerializeToString(), images, batch=300)
    np.testing.assert_allclose(runtime.run(model.SerializeToString(), images, batch=1), whole, atol=1e-4)


def test_a_tensor_that_several_layers_read_is_quantized_once(vit: Experiment, uniform: Uniform) -> None:
    model = targets.export(vit, uniform(vit, "int8", "int8"))
    reads = [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(reads) == len(set(reads))
    assert len(reads) < 2 * len(vit.preparation.network.layers)


def test_layers_may_be_called_anything() -> None:
    odd = ("a b", "a_b", "ü–:*", "a/b", " ")
    weights = ("int4", "nf4", "mxfp4", "e2m1:group2", "tritplanes")
    preparation, assignment = stack(dict(zip(odd, weights, strict=True)), "int8")
    model, images = built(preparation, assignment), preparation.calibration.images
    names = {name for node in model.graph.node for name in (node.name, *node.input, *node.output)}
    assert all(name.replace("/", "").replace(".", "").replace("_", "").isalnum() and name.isascii() for name in names)
    properties = {item.key: json.loads(item.value) for item in model.metadata_props}
    prefixes = properties["bitatlas.names"]
    assert list(prefixes) == list(odd)
    assert len(set(prefixes.values())) == len(odd)
    assert all(any(name.startswith(f"{prefix}/weight") for name in names) for prefix in prefixes.values())
    assert properties["bitatlas.written_by"]["a b"] == {"weight": "qdq", "activation": "qdq"}
    assert {row["weight"] for row in properties["bitatlas.written_by"].values()} == {"qdq", "codebook"}
    found = runtime.compare(runtime.run(model.SerializeToString(), images), quantized_logits(preparation, assignment, images))
    assert found.equal == 32
    assert found.largest_difference < 1e-5


def test_clean_names_are_different_for_different_names() -> None:
    found = graph.clean_names(["a b", "a_b", "a:b", "a_b_2", "x.y/z", "a b"])
    assert found == {"a b": "a_b", "a_b": "a_b_2", "a:b": "a_b_3", "a_b_2": "a_b_2_2", "x.y/z": "x.y/z"}


def test_what_is_wrong_with_a_graph_is_said() -> None:
    model = built(*stack({"first": "int8", "second": "int8"}, "int8"))
    graph.check(model)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    for node in wrong.graph.node[:2]:
        node.name = "twice"
    with pytest.raises(BitatlasError, match=r"^names of nodes must be unique, not twice 'twice'$"):
        graph.check(wrong)
    wrong.CopyFrom(model)
    wrong.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(BitatlasError, match=r"^exported model must take any number of samples, not 4 \(images\)$"):
        graph.check(wrong)
    wrong.CopyFrom(model)
    wrong.graph.node[0].op_type = "Unknown"
    with pytest.raises(onnx.checker.ValidationError):
        graph.check(wrong)
