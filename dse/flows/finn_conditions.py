"""What FINN can make of an assignment, asked before anything is started."""

import numpy as np
import onnx

from dse.assignment import Assignment
from dse.export import qonnx_operators
from dse.flows.finn_graph import QUANTIZERS
from dse.flows.places import place
from dse.network import Fillings, Network
from dse.quantize import ActivationQuantizer, StoredWeight
from formats import Format
from formats.errors import BitatlasError, InvalidValueError
from formats.quantizer import QuantizedTensor

#: operators of a prepared graph that FINN has hardware for, or moves into it
OPERATORS = ("Add", "BipolarQuant", "Conv", "Flatten", "Identity", "MatMul", "MaxPool", "Mul", "MultiThreshold", "Quant", "Reshape")
#: bits of an activation that FINN makes thresholds for
THRESHOLD_BITS = 8
_SILENT = "FINN leaves it in software without a word"


def check_quantizers(network: Network, assignment: Assignment, fillings: Fillings) -> None:
    """Raise ``ValueError`` for a product, a format or a granularity that FINN has no hardware for, naming the layer."""
    for layer in network.layers:
        where = f"(layer {layer.name!r})"
        if layer.weight is None:
            raise InvalidValueError(f"weight of a layer for finn must be stored, not computed by the network {where}")
        activation, weight = fillings[layer.name, "activation"], fillings[layer.name, "weight"]
        assert isinstance(activation, ActivationQuantizer)
        assert isinstance(weight, StoredWeight)
        _check_format("activation", activation.format, qonnx_operators.operator(activation.format), where)
        if activation.format.bits > THRESHOLD_BITS:
            found = f"{activation.format.bits} ({activation.format.name})"
            raise InvalidValueError(f"bits of an activation for finn must be at most {THRESHOLD_BITS}, not {found} {where}")
        encoded, chosen = weight.encoded, assignment.layers[layer.name].weight
        if weight.prepared.low_rank is not None or not isinstance(encoded, QuantizedTensor):
            raise InvalidValueError(f"weight for finn must be codes of one format, not {chosen}; nearest: int4 {where}")
        fmt = encoded.quantizer.format
        _check_format("weight", fmt, qonnx_operators.operator(fmt), where)
        if encoded.quantizer.granularity.name not in ("tensor", "channel"):
            nearest = f"{fmt.name}:channel"
            raise InvalidValueError(
                f"weight for finn must have scales by tensor or channel, not {chosen}; nearest: {nearest} {where}"
            )


def _check_format(role: str, fmt: Format, operator: qonnx_operators.Operator | None, where: str) -> None:
    if operator is None or operator.name not in ("Quant", "BipolarQuant"):
        nearest = f"{'' if fmt.signed else 'u'}int{max(fmt.bits, 2)}"
        raise InvalidValueError(
            f"{role} for finn must be an integer or binary, not {fmt.name}: {_SILENT}; nearest: {nearest} {where}"
        )


def check_operators(model: onnx.ModelProto, network: Network) -> None:
    """Raise ``BitatlasError`` for an operator of a prepared graph that cannot become hardware, naming the layer before it."""
    names = {layer.name for layer in network.layers}
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {node.output[0] for node in model.graph.node if node.op_type in QUANTIZERS and node.input[0] in stored}
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        reason = ""
        if node.op_type == "Relu":
            reason = "a ReLU for finn must be quantized before anything else reads it, not be read in float"
        elif node.op_type not in OPERATORS:
            reason = f"operator of a network for finn must be one of {', '.join(OPERATORS)}, not {node.op_type}"
        elif node.op_type in ("Add", "Mul") and not stored & set(node.input):
            reason = f"{node.op_type} for finn must be of a computed and a stored tensor, not of two computed ones"
        if reason:
            raise BitatlasError(f"{reason} ({place(node, producers, names)})")


def whole_weights(weight: StoredWeight) -> np.ndarray:
    """Return the whole numbers that a weight's codes stand for, int64."""
    encoded = weight.encoded
    assert isinstance(encoded, QuantizedTensor)
    return encoded.quantizer.format.significand[encoded.codes]
