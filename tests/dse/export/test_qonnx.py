"""QONNX' quantizers round as our formats do, and the graphs say what others need to know."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from qonnx.custom_op.registry import getCustomOp

import formats
from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import qonnx, qonnx_execution, qonnx_operators, targets
from dse.export.lowering import Lowering, Parts
from dse.ptq import steps
from formats import BitatlasError, Format, Quantizer
from formats.boundaries import boundaries
from formats.quantizer import QuantizedTensor

Floats = NDArray[np.float32]
MINIFLOATS = (*(f"e{e}m{m}" for e in range(1, 8) for m in range(7 - e)), "e5m2", "e4m3", "e7m8")
UNSIGNED_MINIFLOATS = ("ue1m1", "ue2m2", "ue3m0", "ue4m4", "ue7m1")
STANDARDS = (
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e4m3b11fnuz",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
    "float16",
)
INTEGERS = ("int2", "int4", "int8", "int16", "int2_narrow", "int8_narrow", "uint1", "uint3", "uint8", "uint16", "ternary", "binary")
#: what only weights are stored as: nothing but the levels themselves passes the quantizer unchanged
STORED = ("pot2", "pot4", "pot8", "ulog2_4", "uint8_zero37", "int4_zero-3")


def execute(parts: Parts, x: Floats) -> Floats:
    """Run nodes that were lowered, by qonnx' own definitions."""
    context: dict[str, Any] = {"x": x} | {tensor.name: numpy_helper.to_array(tensor) for tensor in parts.initializers}
    for node in parts.nodes:
        if node.op_type == "Relu":
            context[node.output[0]] = np.maximum(context[node.input[0]], np.float32(0))
        else:
            getCustomOp(node).execute_node(context, None)
    return np.asarray(context["y"])


def around_boundaries(fmt: Format, scale: float) -> Floats:
    """Return every boundary between levels, one float32 to either side, the levels, and random numbers of all magnitudes."""
    edges = boundaries(fmt, "nearest_even").astype(np.float32) * np.float32(scale)
    generator = np.random.default_rng(0)
    random = generator.normal(size=3000) * np.exp(generator.normal(size=3000) * 4) * scale
    values = fmt.decode(
        np.setdiff1d(np.arange(2**fmt.bits), [*fmt.unused, *fmt.nan, *(fmt.infinities or ())]).astype(fmt.code_dtype)
    )
    x = np.concatenate([edges, np.nextafter(edges, np.float32(9e9)), np.nextafter(edges, np.float32(-9e9)), values * scale, random])
    return np.append(x[np.isfinite(x)], [0.0, -0.0]).astype(np.float32)


@pytest.mark.parametrize("name", [*INTEGERS, *MINIFLOATS, *UNSIGNED_MINIFLOATS, *STANDARDS])
@pytest.mark.parametrize("scale", [1.0, 0.3, 2.0**-7])
def test_a_quantizer_equals_the_emulator_bit_for_bit(
    name: str, scale: float, make_quantizer: Callable[[Format, float], Any], same_bits: Callable[[Any, Any], bool]
) -> None:
    fmt, parts = formats.scalar(name), Parts()
    quantizer = make_quantizer(fmt, scale)
    assert not qonnx.activation_refusal(quantizer)
    qonnx.lower_activation("slot", quantizer, "x", "y", parts)
    x = around_boundaries(fmt, scale)
    assert same_bits(execute(parts, x.copy()), fmt.quantize(x, scale))


@pytest.mark.parametrize("name", [*INTEGERS, "e2m1", "e4m3", "ue2m2", "e1m3", "float8_e5m2", *STORED])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group3", "block2x4"])
def test_stored_weights_pass_their_quantizer_unchanged(
    name: str, granularity: str, start: Callable[[Lowering], Any], same_bits: Callable[[Any, Any], bool]
) -> None:
    operands = start(qonnx.LOWERING)
    weight = np.random.default_rng(1).normal(size=(6, 2, 3, 3)).astype(np.float32)
    encoded = Quantizer.parse(f"{name}:{granularity}:mse").encode(weight)
    operands.weight("y", encoded)
    assert same_bits(execute(operands.parts, np.empty(0, np.float32)), encoded.decode())


@pytest.mark.parametrize("name", ["bfloat16", "e8m3", "pot4", "post4", "nf4", "uint8_zero37", "float8_e8m0fnu"])
def test_what_rounds_otherwise_is_refused(name: str, make_quantizer: Callable[[Format, float], Any]) -> None:
    needs = "an integer, ternary, binary or a minifloat of at most 7 exponent bits"
    assert qonnx.activation_refusal(make_quantizer(formats.scalar(name), 1.0)) == f"exported by qonnx must be {needs}, not {name}"


def test_a_refusal_names_the_layer_and_the_targets_that_can(resnet8: Experiment, uniform: Callable[..., Assignment]) -> None:
    message = (
        r"^weight exported by qonnx must be an integer, ternary, binary or a minifloat of at most 7 exponent bits, "
        r"or a power of two, not post4:channel:mse \(layer 'stem'\); targets that can: codebook$"
    )
    with pytest.raises(BitatlasError, match=message):
        targets.export(resnet8, uniform(resnet8, "post4", "int8"), ("qonnx",))


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def annotations(model: onnx.ModelProto) -> dict[str, str]:
    return {one.tensor_name: one.quant_parameter_tensor_names[0].value for one in model.graph.quantization_annotation}


def test_operators_are_named_after_layers_and_products_stand_apart_from_biases(
    resnet8: Experiment, uniform: Callable[..., Assignment]
) -> None:
    model = targets.export(resnet8, uniform(resnet8, "int4", "int8"), ("qonnx",))
    named = {node.name: node for node in model.graph.node}
    layers = [layer.name for layer in resnet8.preparation.network.layers]
    assert {named[name].op_type for name in layers[:-1]} == {"Conv"}
    classifier = named["classifier"]
    assert classifier.op_type == "MatMul"
    assert named["classifier/Add"].input[0] == classifier.output[0]
    stored = initializers(model)
    assert stored["classifier/weight"].shape == (48, 10)
    assert stored["classifier/weight/scale"].shape == (1, 10)
    assert stored["stem/weight/scale"].shape == (12, 1, 1, 1)
    assert {(one.domain, one.version) for one in model.opset_import if one.domain} == {("qonnx.custom_op.general", 2)}


def test_quantizers_of_weights_say_the_format(resnet8: Experiment, uniform: Callable[..., Assignment]) -> None:
    model = targets.export(resnet8, uniform(resnet8, "int4_narrow", "e2m1"), ("qonnx",))
    quantizers = {node.input[0]: node for node in model.graph.node if node.domain == qonnx_operators.DOMAIN}
    stored = initializers(model)
    weight = quantizers["stem/weight"]
    attributes = {attribute.name: attribute.i or attribute.s for attribute in weight.attribute}
    assert attributes == {"signed": 1, "narrow": 1, "rounding_mode": b"ROUND"}
    assert [float(stored[name]) for name in weight.input[2:]] == [0, 4]
    activation = next(node for node in quantizers.values() if node.op_type == "FloatQuant")
    assert [float(stored[name]) for name in activation.input[2:]] == [2, 2, 1, 7]  # ue2m2: bias 1, at most 1.75 * 2**2
    scales = [stored[node.input[1]] for node in quantizers.values() if node.op_type == "FloatQuant"]
    assert {scale.shape for scale in scales} == {()}


@pytest.mark.parametrize(("weight", "activation", "lsb"), [("int4", "int8", 1), ("e2m1", "e3m2", 2.0**-1 * 2.0**-5)])
def test_annotated_widths_hold_the_furthest_sums(
    weight: str, activation: str, lsb: float, resnet8: Experiment, uniform: Callable[..., Assignment]
) -> None:
    """The stem's sums where every pixel is the one that drives a channel furthest, by its weights' codes."""
    assignment = uniform(resnet8, weight, activation).in_whole_numbers()
    model = targets.export(resnet8, assignment, ("qonnx",))
    stored = resnet8.preparation.stored_weights({"stem": assignment.layers["stem"]})["stem"].encoded
    assert isinstance(stored, QuantizedTensor)
    pixel = assignment.layers["stem"].activation.format
    assert not pixel.signed
    weights = formats.scalar(weight).values[stored.codes].reshape(len(stored.codes), -1)
    furthest = np.concatenate([np.maximum(weights, 0).sum(axis=1), np.minimum(weights, 0).sum(axis=1)]) * pixel.maximum / lsb
    assert (furthest == np.round(furthest)).all()
    bits = max(int(number).bit_length() if number > 0 else int(-number - 1).bit_length() for number in furthest) + 1
    node = next(node for node in model.graph.node if node.name == "stem")
    assert annotations(model)[node.output[0]] == f"SCALEDINT<{bits + 1}>"  # one more for the bias


def test_the_annotated_width_is_that_of_the_accumulator(resnet8: Experiment, uniform: Callable[..., Assignment]) -> None:
    assignment = uniform(resnet8, "int4", "int8")
    layers = {name: replace(layer, accumulator="fixed:31") for name, layer in assignment.layers.items()}
    model = targets.export(resnet8, replace(assignment, layers=layers), ("qonnx",))
    outputs = {node.name: node.output[0] for node in model.graph.node}
    assert {annotations(model)[outputs[name]] for name in layers} == {"SCALEDINT<31>"}


def test_an_accumulator_too_narrow_for_its_layer_is_refused(resnet8: Experiment, uniform: Callable[..., Assignment]) -> None:
    assignment = uniform(resnet8, "int4", "int8")
    layers = {**assignment.layers, "block1.conv1": replace(assignment.layers["block1.conv1"], accumulator="fixed:12")}
    message = (
        r"^accumulator exported by qonnx must hold every sum, which has no limits there, so 1\d bits or exact, not fixed:12 "
        r"\(layer 'block1\.conv1'\)$"
    )
    with pytest.raises(BitatlasError, match=message):
        targets.export(resnet8, replace(assignment, layers=layers), ("qonnx",))


def test_biases_of_exact_accumulators_say_their_precision(resnet8: Experiment, uniform: Callable[..., Assignment]) -> None:
    assignment = uniform(resnet8, "int4:channel:mse:power_of_two", "int8:tensor:mse:power_of_two").in_whole_numbers()
    model = targets.export(resnet8, assignment, ("qonnx",))
    stored = initializers(model)
    for layer in resnet8.preparation.network.layers:
        node = next(node for node in model.graph.node if node.name == f"{layer.name}/bias/Quant")
        bias = {"y": stored[node.input[0]]}
        context = {name: stored[name] for name in node.input}
        getCustomOp(node).execute_node(context, None)
        np.testing.assert_array_equal(context[node.output[0]], bias["y"])
        whole = bias["y"] / stored[node.input[1]]
        assert (whole == np.round(whole)).all()
        assert np.abs(whole).max() < 2.0 ** (float(stored[node.input[3]]) - 1)


@pytest.mark.parametrize("row", ["lorc(rank=2)", "gptq+correct_bias"])
def test_prepared_weights_are_what_is_exported(row: str, resnet8: Experiment) -> None:
    # activations in fine steps: a sum in another order that crosses a rounding boundary then moves the logits little
    quantizers = Quantizer.parse("int4", granularity="channel"), Quantizer.parse("int12", granularity="tensor")
    assignment = resnet8.preparation.uniform("m", "d", *quantizers, steps.parse_row(row, "layer"))
    model = targets.export(resnet8, assignment, ("qonnx",))
    images = resnet8.split("validation").images[:64]
    reference = quantized_logits(resnet8.preparation, assignment, images)
    np.testing.assert_allclose(qonnx_execution.run(model, images), reference, rtol=0, atol=0.01)


def test_one_graph_may_mix_qonnx_with_tables(resnet8: Experiment, uniform: Callable[..., Assignment]) -> None:
    model = targets.export(resnet8, uniform(resnet8, "post4", "int8"), ("qonnx", "codebook"))
    assert {node.op_type for node in model.graph.node} >= {"Quant", "decode_post4"}
    assert not model.graph.quantization_annotation or "FLOAT32" not in annotations(model).values()
