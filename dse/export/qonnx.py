"""QONNX: quantizers as operators on float tensors, as Brevitas, FINN and hls4ml read and write them.

A weight is stored as the float values that its codes and scales stand for, behind a quantizer that leaves each as it is, which is
checked. The quantizers' semantics are those of the package qonnx (see ``dse.export.qonnx_operators``).
"""

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from dse.export import qonnx_operators
from dse.export.lowering import Lowering, Parts
from dse.export.qonnx_operators import Operator
from dse.network import Layer
from dse.quantize import ActivationQuantizer, StoredWeight
from formats.errors import BitatlasError
from formats.quantizer import QuantizedTensor
from formats.tensor_quantizer import EncodedTensor

NAME = "qonnx"


def weight_refusal(weight: StoredWeight) -> str:
    """Return why a weight cannot be written; empty where it can."""
    low_rank = weight.prepared.low_rank
    stored = [weight.encoded] if low_rank is None else [weight.encoded, low_rank.left, low_rank.right]
    return next((reason for reason in map(_refusal, stored) if reason), "")


def activation_refusal(quantizer: ActivationQuantizer) -> str:
    """Return why an activation's quantizer cannot be written; empty where it can."""
    if qonnx_operators.operator(quantizer.format) is None:
        return f"exported by {NAME} must be {qonnx_operators.NEEDS}, not {quantizer.format.name}"
    return ""


def _refusal(encoded: EncodedTensor) -> str:
    if isinstance(encoded, QuantizedTensor) and qonnx_operators.storing_operator(encoded.quantizer.format) is not None:
        return ""
    given = getattr(encoded, "quantizer", type(encoded).__name__)
    return f"exported by {NAME} must be {qonnx_operators.NEEDS}, or a power of two, not {given}"


def lower_weight(layer: Layer, weight: StoredWeight, output: str, parts: Parts) -> None:
    """Add the nodes that make a weight: one quantizer, and the product of its factors where it has some."""
    prefix = weight_name(layer)
    low_rank = weight.prepared.low_rank
    if low_rank is None:
        _lower_stored(weight.encoded, prefix, output, parts, layer.name)
        return
    decoded = _lower_stored(weight.encoded, prefix, f"{prefix}/decoded", parts, layer.name)
    sides = {"left": low_rank.left, "right": low_rank.right}
    factors = [_lower_stored(sides[side], f"{prefix}/{side}", f"{prefix}/{side}/decoded", parts, layer.name) for side in sides]
    product = parts.add("MatMul", factors, f"{prefix}/product")
    shape = parts.store(numpy_helper.from_array(np.array(weight.encoded.shape, np.int64), f"{prefix}/shape"))
    parts.add("Add", [decoded, parts.add("Reshape", [product, shape], f"{prefix}/shaped")], output)


def lower_activation(prefix: str, quantizer: ActivationQuantizer, source: str, output: str, parts: Parts) -> None:
    """Add the nodes that quantize an activation."""
    operator = qonnx_operators.operator(quantizer.format)
    assert operator is not None
    if operator.cuts_negatives:
        source = parts.add("Relu", [source], f"{prefix}/cut")
    _quantize(operator, np.array(quantizer.scale, np.float32), prefix, source, output, parts)


def weight_name(layer: Layer) -> str:
    """Return the name of the initializer with a layer's weight."""
    return f"{layer.name}/weight"


def _lower_stored(encoded: EncodedTensor, prefix: str, output: str, parts: Parts, layer: str) -> str:
    assert isinstance(encoded, QuantizedTensor)
    operator = qonnx_operators.storing_operator(encoded.quantizer.format)
    assert operator is not None
    values, scales = encoded.decode(), _scales(encoded)
    # a scale so small that float32 cannot keep the value's digits would let the quantizer change it
    if not np.array_equal(encoded.quantizer.format.quantize(values, scales), values):
        raise BitatlasError(f"weight exported by {NAME} must stay as it is when quantized again, not change (layer {layer!r})")
    stored = parts.store(numpy_helper.from_array(values, prefix))
    return _quantize(operator, scales, prefix, stored, output, parts)


def _scales(encoded: QuantizedTensor) -> NDArray[np.float32]:
    """Return the scales in a shape that broadcasts against the weight: one, one for each channel, or one for each value."""
    granularity = encoded.quantizer.granularity
    if granularity.name == "tensor":
        return encoded.scales.reshape(())
    if granularity.name == "channel":
        return encoded.scales.reshape(-1, *(1 for _ in encoded.shape[1:]))
    return granularity.from_rows(np.broadcast_to(encoded.scales[:, np.newaxis], encoded.rows.shape), encoded.shape)


def _quantize(operator: Operator, scale: NDArray[np.float32], prefix: str, source: str, output: str, parts: Parts) -> str:
    inputs = [source, parts.store(numpy_helper.from_array(scale, f"{prefix}/scale"))]
    for name, value in operator.parameters.items():
        inputs.append(parts.store(numpy_helper.from_array(np.array(value, np.float32), f"{prefix}/{name}")))
    parts.need(qonnx_operators.DOMAIN, qonnx_operators.VERSION)
    return parts.add(operator.name, inputs, output, domain=qonnx_operators.DOMAIN, **operator.attributes)


LOWERING = Lowering(
    name=NAME,
    summary="QONNX: Quant, FloatQuant and BipolarQuant on float tensors, for FINN, hls4ml and Brevitas",
    weight_refusal=weight_refusal,
    activation_refusal=activation_refusal,
    lower_weight=lower_weight,
    lower_activation=lower_activation,
)
