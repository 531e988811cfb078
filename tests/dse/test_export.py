"""Exported models give the emulator's answers in onnxruntime, and hold codes, not floats."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import formats
from dse.assignment import Assignment, parse_quantizer
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import operators, qdq, runtime
from dse.problem import Problem, groups_of
from dse.ptq import steps
from dse.space import Space
from formats import BitatlasError
from formats.boundaries import boundaries

ACTIVATIONS = (
    "int8",
    "int4",
    "int6",
    "uint8",
    "uint3",
    "e2m1",
    "e3m2",
    "e4m3",
    "pot4",
    "post4",
    "ulog2_4",
    "ulogsqrt2_4",
    "ternary",
    "binary",
)


def mixed(experiment: Experiment) -> Assignment:
    """An assignment with another pair of formats in every layer."""
    names = ("int4", "e2m1", "int8", "pot4", "ternary", "post4", "e3m2", "int5", "binary", "int4_narrow")
    space = Space(groups=groups_of(experiment, (), automatic=False), weights=names, activations=names)
    problem = Problem(experiment=experiment, space=space, objectives=(), bounds=())
    layers = experiment.preparation.network.layers
    params = {f"{layer.name}/weight": names[i % 10] for i, layer in enumerate(layers)}
    params |= {f"{layer.name}/activation": names[(i * 3) % 7] for i, layer in enumerate(layers)}
    return problem.assignment(params)


def uniform(experiment: Experiment, weight: str, activation: str) -> Assignment:
    return experiment.preparation.uniform("m", "d", parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation"))


def agreement(experiment: Experiment, assignment: Assignment) -> runtime.Agreement:
    images = experiment.split("validation").images
    model = qdq.export(experiment.preparation, assignment, experiment.subject.dataset.sample_shape)
    return runtime.compare(
        runtime.run(model.SerializeToString(), images), quantized_logits(experiment.preparation, assignment, images)
    )


@pytest.mark.parametrize("model", ["resnet8", "vit"])
def test_a_mixed_assignment_predicts_the_same_in_onnxruntime(model: str, request: pytest.FixtureRequest) -> None:
    experiment: Experiment = request.getfixturevalue(model)
    found = agreement(experiment, mixed(experiment))
    runtime.check(found, model)
    assert found.samples == 300


@pytest.mark.parametrize(
    "weight", ["int4:tensor", "int8:channel", "int3:group10", "e2m1:tensor", "post4:channel", "e3m2:group16", "int12:channel"]
)
def test_every_granularity_is_stored(resnet8: Experiment, weight: str) -> None:
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


def test_integer_weights_are_stored_as_integers_and_others_as_codes(resnet8: Experiment) -> None:
    model = qdq.export(resnet8.preparation, uniform(resnet8, "int4", "e2m1"), (1, 8, 8))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert stored["stem/weight/codes"].data_type == TensorProto.INT4
    assert len(stored["stem/weight/codes"].raw_data) == (108 + 1) // 2
    assert not [name for name, tensor in stored.items() if tensor.data_type == TensorProto.FLOAT and name.endswith("weight")]
    assignment = uniform(resnet8, "int4", "e2m1")
    encoded = resnet8.preparation.stored_weights({"stem": assignment.layers["stem"]})["stem"].encoded
    values = numpy_helper.to_array(stored["stem/weight/codes"]).astype(int)
    np.testing.assert_array_equal(values, formats.get("int4").significand[encoded.codes])
    other = qdq.export(resnet8.preparation, uniform(resnet8, "post4", "e2m1"), (1, 8, 8))
    assert {tensor.data_type for tensor in other.graph.initializer if tensor.name.endswith("weight/codes")} == {TensorProto.UINT8}
    assert {function.name for function in other.functions} == {"decode_post4", "quantize_ue2m2"}


def test_the_model_tells_where_it_comes_from_and_no_path_of_the_machine(resnet8: Experiment) -> None:
    assignment = uniform(resnet8, "int4", "int4")
    model = qdq.export(resnet8.preparation, assignment, (1, 8, 8))
    metadata = {item.key: item.value for item in model.metadata_props}
    assert json.loads(metadata["bitatlas.layers"])["stem"] == ["int4:channel:mse", "uint4:tensor:mse"]
    assert b".py" not in model.SerializeToString()
    assert [item.dim_param or item.dim_value for item in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 1, 8, 8]


def bits(x: np.ndarray) -> np.ndarray:
    return (x + np.float32(0)).view(np.uint32)  # adding +0 turns -0 into +0: the graph does not keep the sign of zero


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("scale", [1.0, 0.3, 0.007])
def test_a_quantizer_in_the_graph_equals_the_emulator_bit_for_bit(name: str, scale: float) -> None:
    """At every boundary between levels and one float32 to either side, and over random numbers of all magnitudes."""
    fmt = formats.get(name)
    edges = boundaries(fmt, "nearest_even") * np.float32(scale)
    generator = np.random.default_rng(0)
    random = (generator.normal(size=5000) * np.exp(generator.normal(size=5000) * 4) * scale).astype(np.float32)
    x = np.concatenate(
        [edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf)), random, [0.0, -0.0]]
    )
    x = x.astype(np.float32)
    parts = qdq._Parts()
    qdq._lower_activation(fmt, scale, "x", "y", "slot", parts)
    graph = helper.make_graph(
        parts.nodes,
        "slot",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        parts.initializers,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(operators.FUNCTION_DOMAIN, operators.FUNCTION_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, functions=parts.functions.values(), ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x})[0]
    np.testing.assert_array_equal(bits(found), bits(fmt.quantize(x, scale)))


def test_a_model_that_answers_otherwise_is_refused() -> None:
    reference = np.eye(10, dtype=np.float32).repeat(20, axis=0)
    wrong = reference.copy()
    wrong[:2] = wrong[:2, ::-1]
    message = r"^predictions of the exported model must differ on at most 0\.5% of samples, not 1\.00% \(.* 198 of 200 .*\): m$"
    with pytest.raises(BitatlasError, match=message):
        runtime.check(runtime.compare(wrong, reference), "m")
    runtime.check(runtime.compare(reference, reference), "m")
