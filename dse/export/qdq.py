"""A runnable ONNX model of an assignment: weights as integer codes with scales, activations quantized in the graph.

Integers use QuantizeLinear and DequantizeLinear; every other format stores its codes and looks them up in its table, by a
function of the model named after the format.
"""

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dse.assignment import Assignment
from dse.export import neutral, operators
from dse.network import Fillings, Layer, Network
from dse.ptq.step import PreparedWeight
from dse.quantize import ActivationQuantizer, Preparation, StoredWeight
from formats import Format, InvalidValueError
from formats.quantizer import QuantizedTensor
from hwmodels.files import replaced


@dataclass(kw_only=True)
class _Parts:
    """What lowering adds to the graph."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", domain=domain, **attributes))
        return output

    def store(self, tensor: onnx.TensorProto) -> str:
        self.initializers.append(tensor)
        return str(tensor.name)

    def call(self, function: onnx.FunctionProto, inputs: list[str], output: str) -> str:
        self.functions[function.name] = function
        return self.add(function.name, inputs, output, domain=operators.FUNCTION_DOMAIN)


def export(preparation: Preparation, assignment: Assignment, sample_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the checked ONNX model of ``assignment``: images (batch, …) float32 to logits (batch, classes)."""
    preparation = preparation.after(assignment.steps)
    fillings = preparation.fillings(assignment)
    model = neutral.export(preparation.network, sample_shape, fillings)
    parts = _Parts()
    for node in model.graph.node:
        if node.domain == neutral.DOMAIN:
            _lower(node, preparation.network, assignment, fillings, parts)
        else:
            parts.nodes.append(node)
    _rebuild(model, parts)
    helper.set_model_props(
        model,
        {
            "bitatlas.version": version("bitatlas"),
            "bitatlas.model": assignment.model,
            "bitatlas.data": assignment.data,
            "bitatlas.steps": json.dumps(assignment.steps),
            "bitatlas.layers": json.dumps({n: [str(a.weight), str(a.activation), *a.steps] for n, a in assignment.layers.items()}),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the model whole or not at all."""
    with replaced(path) as temporary:
        onnx.save(model, temporary)


def _rebuild(model: onnx.ModelProto, parts: _Parts) -> None:
    """Put the lowered nodes in the graph's place and drop the float weights that nothing reads any more."""
    graph = model.graph
    read = {name for node in parts.nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:], model.opset_import[:]
    graph.node.extend(parts.nodes)
    graph.initializer.extend([*kept, *parts.initializers])
    model.functions.extend(parts.functions.values())
    model.opset_import.append(helper.make_opsetid("", neutral.OPSET))
    if parts.functions:
        model.opset_import.append(helper.make_opsetid(operators.FUNCTION_DOMAIN, operators.FUNCTION_VERSION))
    model.producer_name = "bitatlas"


def _lower(node: onnx.NodeProto, network: Network, assignment: Assignment, fillings: Fillings, parts: _Parts) -> None:
    """Replace one slot by operators that do what its filling does."""
    attributes = {attribute.name: helper.get_attribute_value(attribute).decode() for attribute in node.attribute}
    layer, role = network.layer(attributes["layer"]), attributes["role"]
    filling = fillings[layer.name, role]
    if isinstance(filling, StoredWeight):
        if not isinstance(filling.encoded, QuantizedTensor) or filling.encoded.quantizer.granularity.name == "tile":
            exported = "a format with scales by tensor, channel or group"
            raise InvalidValueError(
                f"weight must be {exported} to be exported, not {assignment.layers[layer.name].weight} (layer {layer.name!r})"
            )
        _lower_stored(layer, filling.prepared, filling.encoded, node.output[0], parts)
    else:
        assert isinstance(filling, ActivationQuantizer)
        _lower_activation(filling.format, filling.scale, node.input[0], node.output[0], f"{layer.name}/{role}", parts)


def _lower_activation(fmt: Format, scale: float, source: str, output: str, prefix: str, parts: _Parts) -> None:
    scale_name = parts.store(operators.float_tensor(f"{prefix}/scale", np.array(scale, np.float32)))
    stored = operators.stored_type(fmt)
    if stored is None:
        parts.call(operators.quantize_function(fmt), [source, scale_name], output)
        return
    zero = parts.store(operators.integer_tensor(f"{prefix}/zero", np.zeros((), np.int64), stored))
    if (fmt.minimum, fmt.maximum) != (stored.low, stored.high):
        # the type is wider than the format: clip before rounding, which for whole-numbered ends is the same as after
        ends = np.array([fmt.minimum, fmt.maximum], np.float32) * np.float32(scale)
        low = parts.store(operators.float_tensor(f"{prefix}/low", ends[0]))
        high = parts.store(operators.float_tensor(f"{prefix}/high", ends[1]))
        source = parts.add("Clip", [source, low, high], f"{prefix}/clipped")
    codes = parts.add("QuantizeLinear", [source, scale_name, zero], f"{prefix}/codes")
    parts.add("DequantizeLinear", [codes, scale_name, zero], output)


def _lower_stored(layer: Layer, prepared: PreparedWeight, encoded: QuantizedTensor, output: str, parts: _Parts) -> None:
    """Store a weight's codes, and the factors that are added to it where there are some."""
    if prepared.low_rank is None:
        _lower_weight(layer, encoded, output, parts)
        return
    prefix = f"{layer.name}/weight"
    _lower_weight(layer, encoded, f"{prefix}/decoded", parts)
    factors = [
        parts.store(operators.float_tensor(f"{prefix}/{side}", factor.decode()))
        for side, factor in (("left", prepared.low_rank.left), ("right", prepared.low_rank.right))
    ]
    product = parts.add("MatMul", factors, f"{prefix}/product")
    shape = parts.store(numpy_helper.from_array(np.array(encoded.shape, np.int64), f"{prefix}/product/shape"))
    parts.add("Add", [f"{prefix}/decoded", parts.add("Reshape", [product, shape], f"{prefix}/shaped")], output)


def _lower_weight(layer: Layer, encoded: QuantizedTensor, output: str, parts: _Parts) -> None:
    prefix = f"{layer.name}/weight"
    if encoded.quantizer.granularity.name != "group":
        _store_weight(encoded, output, prefix, parts)
        return
    # one row for each group, then back to the weight's shape
    rows = _store_rows(encoded, f"{prefix}/rows", prefix, parts)
    shape = list(encoded.shape)
    per_channel = int(np.prod(shape[1:]))
    steps = [("Reshape", [shape[0], -1])]
    if encoded.rows.size != np.prod(shape):
        steps.append(("Slice", [per_channel]))
    steps.append(("Reshape", shape))
    for number, (operator, value) in enumerate(steps):
        last = number == len(steps) - 1
        rows = _reshape_step(operator, value, rows, output if last else f"{prefix}/step_{number}", f"{prefix}/{number}", parts)


def _reshape_step(operator: str, value: list[int], source: str, output: str, prefix: str, parts: _Parts) -> str:
    if operator == "Reshape":
        shape = parts.store(numpy_helper.from_array(np.array(value, np.int64), f"{prefix}/shape"))
        return parts.add("Reshape", [source, shape], output)
    names = [
        parts.store(numpy_helper.from_array(np.array([number], np.int64), f"{prefix}/{label}"))
        for label, number in (("start", 0), ("end", value[0]), ("axis", 1))
    ]
    return parts.add("Slice", [source, *names], output)


def _store_weight(encoded: QuantizedTensor, output: str, prefix: str, parts: _Parts) -> None:
    """Store codes in the weight's own shape with one scale, or one for each channel."""
    fmt, scales = encoded.quantizer.format, encoded.scales
    codes = encoded.codes
    stored = operators.stored_type(fmt)
    per_channel = encoded.quantizer.granularity.name == "channel"
    if stored is None:
        shape = [-1 if axis == 0 and per_channel else 1 for axis in range(codes.ndim)]
        _look_up(fmt, codes, scales.reshape(shape), output, prefix, parts)
        return
    names = _stored_integers(fmt, codes, scales if per_channel else scales.reshape(()), prefix, parts)
    parts.add("DequantizeLinear", names, output, axis=0)


def _store_rows(encoded: QuantizedTensor, output: str, prefix: str, parts: _Parts) -> str:
    fmt = encoded.quantizer.format
    if operators.stored_type(fmt) is None:
        return _look_up(fmt, encoded.rows, encoded.scales[:, np.newaxis], output, prefix, parts)
    return parts.add("DequantizeLinear", _stored_integers(fmt, encoded.rows, encoded.scales, prefix, parts), output, axis=0)


def _look_up(fmt: Format, codes: np.ndarray, scales: np.ndarray, output: str, prefix: str, parts: _Parts) -> str:
    names = [
        parts.store(numpy_helper.from_array(np.ascontiguousarray(codes), f"{prefix}/codes")),
        parts.store(operators.float_tensor(f"{prefix}/scale", scales)),
    ]
    return parts.call(operators.decode_function(fmt), names, output)


def _stored_integers(fmt: Format, codes: np.ndarray, scales: np.ndarray, prefix: str, parts: _Parts) -> list[str]:
    stored = operators.stored_type(fmt)
    assert stored is not None
    values = fmt.significand[codes]
    return [
        parts.store(operators.integer_tensor(f"{prefix}/codes", values, stored)),
        parts.store(operators.float_tensor(f"{prefix}/scale", scales)),
        parts.store(operators.integer_tensor(f"{prefix}/zero", np.zeros(scales.shape, np.int64), stored)),
    ]
