"""Targets of QuantizeLinear and DequantizeLinear: operands in ONNX' own types, with the operators that every runtime knows.

``qdq`` uses types that onnxruntime runs. ``fp4`` writes e2m1 as FLOAT4E2M1, which onnxruntime has no kernels for: for the record,
and for runtimes that have them.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dse.export import types
from dse.export.layout import to_shape, whole_numbers
from dse.export.lowering import Lowering, Parts
from dse.export.prepared import encoded_tensors, lower_weight
from dse.export.types import Kept
from dse.network import Layer
from dse.quantize import ActivationQuantizer, StoredWeight
from formats.quantizer import QuantizedTensor
from formats.tensor_quantizer import EncodedTensor

#: version of ONNX' operators that has scales for blocks along an axis
BLOCKED = 21
_TYPES = {False: "integers, binary or minifloats that a type of ONNX holds (INT2 to INT16, FLOAT8…)", True: "e2m1 or a part of it"}


def _kept(encoded: EncodedTensor, float4: bool) -> tuple[Kept, NDArray[np.float32]] | None:
    """Return how a tensor's codes are kept, and the scales that go with them; None where they cannot be."""
    if not isinstance(encoded, QuantizedTensor):
        return None
    kept = types.holding(encoded.quantizer.format, float4)
    scales = kept.scales(encoded.scales) if kept else None
    return (kept, scales) if kept is not None and scales is not None else None


def _weight_refusal(target: str, float4: bool, stored: StoredWeight) -> str:
    for encoded in encoded_tensors(stored.prepared):
        if _kept(encoded, float4) is None:
            found = getattr(encoded, "quantizer", type(encoded).__name__)
            return f"exported by {target} must be {_TYPES[float4]}, not {found}"
    return ""


def _activation_refusal(target: str, float4: bool, quantizer: ActivationQuantizer) -> str:
    kept = types.rounding(quantizer.format, float4)
    if kept is None or kept.scales(np.array([quantizer.scale], np.float32)) is None:
        wanted = "e2m1 or a part of it" if float4 else "a format that QuantizeLinear rounds to (INT2 to UINT16, FLOAT8…)"
        return f"exported by {target} must be {wanted}, not {quantizer.format.name}"
    return ""


def _lower_activation(float4: bool, prefix: str, quantizer: ActivationQuantizer, source: str, output: str, parts: Parts) -> None:
    kept = types.rounding(quantizer.format, float4)
    scales = kept.scales(np.array([quantizer.scale], np.float32)) if kept else None
    assert kept is not None
    assert scales is not None
    parts.need("", kept.element.opset)
    scale = parts.store(_floats(f"{prefix}/scale", scales[0]))
    zero = parts.store(kept.element.tensor(f"{prefix}/zero", np.array(kept.zero)))
    guard = kept.element.guard
    if kept.clipped:
        low, high = (_floats(f"{prefix}/{label}", end) for label, end in zip(("low", "high"), kept.ends * scales[0], strict=True))
        ends = [parts.store(low), parts.store(high)]
        below = parts.add("Max", [source, ends[0]], f"{prefix}/clipped_below") if guard != "none" else ""
        clip, inputs = ("Min", [below, ends[1]]) if below else ("Clip", [source, *ends])
        source = parts.add(clip, inputs, f"{prefix}/clipped")
    codes = parts.add("QuantizeLinear", [source, scale, zero], f"{prefix}/codes")
    values = parts.add("DequantizeLinear", [codes, scale, zero], f"{prefix}/values" if guard == "around" else output)
    if guard == "around":
        parts.add("Min", [values, f"{prefix}/high"], output)  # changes nothing


def _lower_weight(float4: bool, layer: Layer, stored: StoredWeight, output: str, parts: Parts) -> None:
    lower_weight(layer, stored, output, parts, partial(_lower_tensor, float4))


def _lower_tensor(float4: bool, encoded: EncodedTensor, prefix: str, output: str, parts: Parts) -> None:
    assert isinstance(encoded, QuantizedTensor)
    found = _kept(encoded, float4)
    assert found is not None
    kept, scales = found
    parts.need("", kept.element.opset)
    shape, granularity = encoded.shape, encoded.quantizer.granularity
    if granularity.name == "tile":
        _dequantize(kept, encoded, encoded.rows, scales, prefix, f"{prefix}/rows", parts, axis=0)
        to_shape(f"{prefix}/rows", granularity, shape, output, prefix, parts)
        return
    # groups lie along one axis where a channel has one; Reshape also keeps onnxruntime from fusing what it has no kernel for
    flattened = len(shape) > 2 and (granularity.name == "group" or kept.element.guard == "around")
    made = f"{prefix}/flat" if flattened else output
    codes = encoded.codes.reshape(shape[0], math.prod(shape[1:])) if flattened else encoded.codes
    if granularity.name == "group":
        parts.need("", BLOCKED)
        groups = scales.reshape(shape[0], -1)
        _dequantize(kept, encoded, codes, groups, prefix, made, parts, axis=1, block_size=granularity.size)
    else:
        by_axis = scales if granularity.name == "channel" else scales.reshape(())
        _dequantize(kept, encoded, codes, by_axis, prefix, made, parts, axis=0)
    if flattened:
        parts.add("Reshape", [made, whole_numbers(f"{prefix}/shape", list(shape), parts)], output)


def _dequantize(
    kept: Kept,
    encoded: QuantizedTensor,
    codes: NDArray[np.integer],
    scales: NDArray[np.float32],
    prefix: str,
    output: str,
    parts: Parts,
    **attributes: Any,
) -> None:
    """Store codes and scales, and zero points where there are any, and add the node that multiplies them."""
    inputs = [
        parts.store(kept.values(encoded.quantizer.format, f"{prefix}/codes", codes)),
        parts.store(_floats(f"{prefix}/scale", scales)),
    ]
    if kept.zero:
        inputs.append(parts.store(kept.element.tensor(f"{prefix}/zero", np.full(scales.shape, kept.zero))))
    parts.add("DequantizeLinear", inputs, output, **attributes)


def _floats(name: str, values: NDArray[np.float32] | np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32).reshape(np.shape(values)), name)


def _target(name: str, summary: str, float4: bool) -> Lowering:
    return Lowering(
        name=name,
        summary=summary,
        weight_refusal=partial(_weight_refusal, name, float4),
        activation_refusal=partial(_activation_refusal, name, float4),
        lower_weight=partial(_lower_weight, float4),
        lower_activation=partial(_lower_activation, float4),
    )


LOWERING = _target("qdq", "QuantizeLinear and DequantizeLinear, in types that onnxruntime runs", False)
FP4 = _target("fp4", "the same for e2m1 alone, as FLOAT4E2M1, which onnxruntime does not run yet", True)
