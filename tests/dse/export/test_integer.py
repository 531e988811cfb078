"""The target ``integer``: onnxruntime computes what the emulator's hardware mode does, bit for bit."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from dse.assignment import Assignment, parse_quantizer
from dse.cli import main
from dse.experiment import Experiment, prepare
from dse.export import integer, integer_steps
from dse.export.lowering import Parts
from dse.hardware import steps
from dse.hardware.compiling import compile_program
from dse.models import loading
from formats import BitatlasError

PAIRS = [("int4", "int8"), ("int8:tensor:absmax", "int4"), ("e2m1", "int6"), ("ternary", "int5"), ("int3_narrow", "uint8")]
EXPORT = ["export", "--model", "resnet8", "--activations", "int8", "--target", "integer"]


@cache
def experiment(model: str) -> Experiment:
    return prepare(loading.load(model, "digits"))


def assignment(model: str, weight: str, activation: str, accumulator: str = "float32") -> Assignment:
    pair = parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
    made = experiment(model).preparation.uniform(model, "digits", *pair)
    return replace(made, layers={name: replace(layer, accumulator=accumulator) for name, layer in made.layers.items()})


def mixed(model: str) -> Assignment:
    """Give every layer another pair of formats, scales and accumulator."""
    made = assignment(model, "int8", "int8")
    network = experiment(model).preparation.network
    layers = {}
    for number, layer in enumerate(network.layers):
        pair = PAIRS[number % len(PAIRS)]
        weight, activation = parse_quantizer(pair[0], "weight"), parse_quantizer(pair[1], "activation")
        given = experiment(model).preparation.resolve(layer, weight if layer.weight is not None else activation, activation)
        layers[layer.name] = replace(given, accumulator=("exact", "fixed:30", "float32")[number % 3])
    return replace(made, layers=layers)


@pytest.mark.parametrize("model", ["resnet8", "mobilenet", "vit"])
@pytest.mark.parametrize("kind", ["int8", "powers of two", "mixed"])
def test_every_zoo_model_is_equal_bit_for_bit_on_the_whole_validation_split(model: str, kind: str) -> None:
    given = {
        "int8": lambda: assignment(model, "int8", "int8"),
        "powers of two": lambda: assignment(model, "int4:channel:mse:power_of_two", "int8:tensor:mse:power_of_two"),
        "mixed": lambda: mixed(model),
    }[kind]()
    exported = integer.export(experiment(model), given)
    program = compile_program(experiment(model).preparation, given)
    images = experiment(model).split("validation").images
    assert np.array_equal(integer.run(exported.SerializeToString(), program, images), program.run(images))


def test_the_graph_holds_no_floating_point_at_all() -> None:
    model = onnx.shape_inference.infer_shapes(
        integer.export(experiment("vit"), assignment("vit", "int8", "int8")), strict_mode=True
    )
    floats = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    assert len(values) > 300
    assert not {value.type.tensor_type.elem_type for value in values} & floats
    assert not {tensor.data_type for tensor in model.graph.initializer} & floats
    nodes = [node for function in model.functions for node in function.node]
    constants = [attribute.t.data_type for node in nodes for attribute in node.attribute if attribute.name == "value"]
    assert set(constants) == {TensorProto.INT64}


def test_the_properties_say_how_to_encode_the_input_and_what_the_logits_are_worth() -> None:
    given = assignment("resnet8", "int4", "int8")
    model = integer.export(experiment("resnet8"), given)
    properties = {each.key: each.value for each in model.metadata_props}
    program = compile_program(experiment("resnet8").preparation, given)
    assert json.loads(properties["bitatlas.input"]) == {"format": "uint8", "scale": float(np.float32(program.input_scale))}
    assert json.loads(properties["bitatlas.output"]) == {"scale": float(program.output.unit.flat[0])}
    assert json.loads(properties["bitatlas.accumulators"])["stem"]["accumulator"] == "exact"
    assert json.loads(properties["bitatlas.assignment"])["layers"]["stem"]["weight"] == "int4:channel:mse"


def session(step: steps.Step, operands: int, shape: list[object]) -> Callable[..., np.ndarray]:
    parts = Parts(opsets={"": integer_steps.OPSET})
    names = [f"x{number}" for number in range(operands)]
    integer_steps.write(step, names, "y", parts)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names]
    result = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    graph = helper.make_graph(parts.nodes, "step", inputs, [result], parts.initializers)
    opsets = [helper.make_opsetid(domain, version) for domain, version in parts.opsets.items()]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(parts.functions.values()), ir_version=10)
    made = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda *given: made.run(None, dict(zip(names, given, strict=True)))[0]


def some_steps() -> Iterator[tuple[str, steps.Step, list[np.ndarray]]]:
    rng = np.random.default_rng(0)
    wide = rng.integers(-(2**31), 2**31, (2, 3, 8, 6))
    ties = np.arange(-192, 192).reshape(2, 4, 8, 6)
    channel = np.array([3, 5, 7]).reshape(1, 3, 1, 1)
    for even in (False, True):
        for shift in (0, 1, 5, 31, 62):
            step = steps.Rescale(multiplier=np.array(1), divisor=np.array(1 << shift), even=even)
            yield f"rescale {even} {shift}", step, [ties]
        yield f"rescale {even} wide", steps.Rescale(multiplier=channel << 28, divisor=1 << (channel + 20), even=even), [wide]
        yield f"rescale {even} by 49", steps.Rescale(multiplier=np.array(4), divisor=np.array(98), even=even), [ties]
    positive = rng.integers(1, 2**31, (2, 3, 8, 6))
    yield "divide", steps.FloorDivide(), [wide * 2**20, positive]
    yield "divide by", steps.FloorDivide(by=7), [ties]
    yield "root", steps.SquareRoot(), [positive * positive - 1]
    yield "root of small", steps.SquareRoot(), [ties + 192]
    yield "look", steps.Look(table=np.array([4, 2, 9]), first=-1), [ties]
    yield "clamp", steps.Clamp(low=-channel, high=channel), [wide]
    yield "clamp low", steps.Clamp(low=np.array(0)), [ties]
    yield "sum", steps.Sum(axes=(2, 3)), [wide]
    yield "largest", steps.Largest(axis=1), [wide]
    yield "expand", steps.Rearrange(kind="expand", arguments=(-1, 3, 8, 6)), [wide[:, :1]]
    yield "slice", steps.Rearrange(kind="slice", arguments=(2, 1, 8, 3)), [wide]
    yield "join", steps.Join(axis=2), [wide, wide]
    for kernel, stride, padding, dilation in ((2, 2, 0, 1), (3, 1, 1, 1), (3, 2, 1, 2)):
        both = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2}
        yield f"windows {kernel} {stride}", steps.LargestWindow(**both, lowest=-(2**31), size=(8, 6)), [wide]


@pytest.mark.parametrize(("step", "operands"), [each[1:] for each in some_steps()], ids=[each[0] for each in some_steps()])
def test_a_step_is_what_onnxruntime_computes(step: steps.Step, operands: list[np.ndarray]) -> None:
    found = session(step, len(operands), [None] * 4)(*operands)
    assert np.array_equal(found, step.run(*(torch.from_numpy(each) for each in operands)).numpy())


@pytest.mark.parametrize(
    ("weight", "activation", "accumulator", "message", "able"),
    [
        (
            "int4",
            "e2m1",
            "exact",
            "activation must be whole numbers of 8 bits in a row, such as int8, not ue2m2",
            "qonnx, codebook",
        ),
        ("int4", "int12", "exact", "activation must be multiples of one LSB within 8 bits, not uint12", "qdq, qonnx"),
        ("post4", "int8", "exact", "weight must be multiples of one LSB within 8 bits, not post4", "codebook"),
        ("e4m3", "int8", "exact", "weight must be multiples of one LSB within 8 bits, not e4m3", "qdq, qonnx, codebook"),
        ("mxfp4", "int8", "exact", "weight must be a format with scales by tensor or channel, not mxfp4:block:absmax", "codebook"),
        (
            "int4:group16",
            "int8",
            "exact",
            "weight must be a format with scales by tensor or channel, not int4:group16:mse",
            "qdq, qonnx",
        ),
        (
            "int8",
            "int8",
            "fixed:12",
            "accumulator must hold every sum, 19 bits, not have 12; nearest: fixed:19 or exact",
            "qdq, qonnx",
        ),
    ],
)
def test_what_it_cannot_express_is_named_with_the_layer_and_the_targets_that_can(
    weight: str, activation: str, accumulator: str, message: str, able: str
) -> None:
    with pytest.raises(BitatlasError) as caught:
        integer.export(experiment("resnet8"), assignment("resnet8", weight, activation, accumulator))
    assert str(caught.value).replace(" exported by integer", "").startswith(f"{message} (layer 'stem'); targets that can: {able}")


def test_the_command_writes_a_model_that_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a" / "m.onnx"
    assert main([*EXPORT, "--weights", "int4", "--out", str(path)]) == 0
    assert "300 of 300" in capsys.readouterr().out
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_nothing_is_left_of_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    assert main([*EXPORT, "--weights", "nf4", "--out", str(path)]) == 2
    assert "not nf4 (layer 'stem'); targets that can: codebook" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
