"""What hls4ml can make of an assignment bit for bit, asked before anything is written."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from dse.assignment import Assignment
from dse.export import qonnx_operators
from dse.flows.places import place
from dse.network import Fillings, Layer, Network
from dse.quantize import ActivationQuantizer, Preparation, StoredWeight
from formats.errors import BitatlasError, InvalidValueError
from formats.quantizer import QuantizedTensor
from formats.tensor_quantizer import TensorQuantizer

#: operators of an exported graph that become hardware here
OPERATORS = (
    "Add",
    "AveragePool",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "Identity",
    "MatMul",
    "MaxPool",
    "Quant",
    "ReduceMean",
    "Relu",
    "Reshape",
)


def check_quantizers(network: Network, assignment: Assignment, fillings: Fillings) -> None:
    """Raise ``ValueError`` for a format or a scale that fixed-point numbers do not hold: names the layer and the nearest choice."""
    for layer in network.layers:
        if layer.weight is None:
            raise InvalidValueError(f"weight for hls4ml must be stored, not computed by the network (layer {layer.name!r})")
        chosen = assignment.layers[layer.name]
        activation, weight = fillings[layer.name, "activation"], fillings[layer.name, "weight"]
        assert isinstance(activation, ActivationQuantizer)
        assert isinstance(weight, StoredWeight)
        operator = qonnx_operators.operator(activation.format)
        if operator is None or operator.name != "Quant":
            raise InvalidValueError(
                f"activation for hls4ml must be an integer, not {activation.format.name}; "
                f"nearest: int{max(activation.format.bits, 2)}:tensor:mse:power_of_two (layer {layer.name!r})"
            )
        _check_scales(layer, "activation", chosen.activation, [activation.scale])
        encoded = weight.encoded
        if weight.prepared.low_rank is not None or not isinstance(encoded, QuantizedTensor):
            raise InvalidValueError(
                f"weight for hls4ml must be codes of one format, not {chosen.weight} (layer {layer.name!r}); "
                f"nearest: int4:channel:mse:power_of_two"
            )
        _check_scales(layer, "weight", chosen.weight, encoded.scales.tolist())


def _check_scales(layer: Layer, role: str, quantizer: TensorQuantizer, scales: Sequence[float]) -> None:
    wrong = next((scale for scale in scales if not power_of_two(scale)), None)
    if wrong is not None:
        nearest = ":".join([*str(quantizer).split(":")[:3], "power_of_two"])
        raise InvalidValueError(
            f"scale of {role} for hls4ml must be a power of two, not {wrong:.9g}; nearest: {nearest} (layer {layer.name!r})"
        )


def power_of_two(scale: float) -> bool:
    """Whether a positive number is a power of two."""
    return math.frexp(scale)[0] == 0.5


def check_operators(model: onnx.ModelProto, network: Network) -> None:
    """Raise ``BitatlasError`` for an operator of an exported QONNX graph that cannot become hardware: names the layer before it."""
    producers = {node.output[0]: node for node in model.graph.node}
    names = {layer.name for layer in network.layers}
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        reason = _obstacle(node, producers, stored)
        if reason:
            raise BitatlasError(f"{reason} ({place(node, producers, names)})")
    for layer in network.layers:
        if layer.kind == "linear" and layer.workload.vectors != 1:
            raise BitatlasError(
                f"linear layer for hls4ml must read one vector, not {layer.workload.vectors} (layer {layer.name!r})"
            )
    for value in model.graph.input:
        axes = len(value.type.tensor_type.shape.dim)
        if axes not in (2, 4):
            raise BitatlasError(f"input for hls4ml must be vectors or images, not have {axes} axes")


def _obstacle(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], stored: set[str]) -> str:
    """Return what is wrong with an operator, "" where nothing is."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    constant = node.input[0] in stored if node.input else False
    if node.op_type in ("FloatQuant", "BipolarQuant") and constant:
        return ""  # a weight, which is written as fixed-point numbers
    if node.op_type not in OPERATORS:
        return f"operator of a network for hls4ml must be one of {', '.join(OPERATORS)}, not {node.op_type}"
    if node.op_type in ("Conv", "MaxPool", "AveragePool"):
        return _window_obstacle(node.op_type, attributes)
    if node.op_type == "MatMul" and not _is_stored(node.input[1], producers, stored):
        return "second factor of a product for hls4ml must be stored, not computed"
    return ""


def _window_obstacle(operator: str, attributes: Mapping[str, object]) -> str:
    kernel = np.asarray(attributes.get("kernel_shape", ()))
    if len(kernel) != 2:
        return f"{operator} for hls4ml must slide over images, not over {len(kernel)} axes"
    if (np.asarray(attributes.get("dilations", (1, 1))) != 1).any():
        return f"{operator} for hls4ml must have no dilation, not {attributes['dilations']}"
    if operator != "Conv" and (np.asarray(attributes.get("pads", (0,))) != 0).any():
        return f"{operator} for hls4ml must have no padding, not {attributes['pads']}"
    if attributes.get("ceil_mode", 0):
        return f"{operator} for hls4ml must leave out windows that are not whole, not fill them up"
    return ""


def _is_stored(name: str, producers: Mapping[str, onnx.NodeProto], stored: set[str]) -> bool:
    return name in stored or (name in producers and producers[name].input[0] in stored)


def fillings_of(preparation: Preparation, assignment: Assignment) -> tuple[Network, Fillings]:
    """Return the network after an assignment's steps, and what goes into its slots."""
    prepared = preparation.after(assignment.steps)
    return prepared.network, prepared.fillings(assignment)
