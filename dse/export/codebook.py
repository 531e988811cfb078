"""Target ``codebook``: codes and tables for what has no operator of its own, decoded by functions of the model.

Weights keep their codes in the narrowest of UINT4, UINT8 and UINT16, scales as float32, those of block formats as codes too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dse.export import functions
from dse.export.layout import to_shape
from dse.export.lowering import Lowering, Parts
from dse.export.prepared import encoded_tensors, lower_weight
from dse.network import Layer
from dse.quantize import ActivationQuantizer, StoredWeight
from formats import Format
from formats.block_quantizer import BlockTensor
from formats.granularity import Granularity
from formats.methods.fitted import FittedTensor
from formats.methods.pcdvq import LENGTH, PolarTensor
from formats.methods.trit_planes import TritPlanesTensor
from formats.methods.twin_log import TwinLogTensor
from formats.packing import pack
from formats.quantizer import QuantizedTensor
from formats.registry import scalar
from formats.tensor_quantizer import EncodedTensor

#: width of a stored code: type, lowest version of ONNX' operators that reads it
_CODES = {4: (TensorProto.UINT4, 21), 8: (TensorProto.UINT8, 19), 16: (TensorProto.UINT16, 19)}


def _weight_refusal(stored: StoredWeight) -> str:
    for encoded in encoded_tensors(stored.prepared):
        if type(encoded) not in _LOWERED:
            found = getattr(encoded, "quantizer", type(encoded).__name__)
            return f"exported by codebook must be a format, a block format or a method with a decoder, not {found}"
    return ""


def _lower_activation(prefix: str, quantizer: ActivationQuantizer, source: str, output: str, parts: Parts) -> None:
    scale = parts.store(_floats(f"{prefix}/scale", np.array(quantizer.scale)))
    _call(functions.quantize(quantizer.format), [source, scale], output, parts)


def _lower_weight(layer: Layer, stored: StoredWeight, output: str, parts: Parts) -> None:
    lower_weight(layer, stored, output, parts, _lower_tensor)


def _lower_tensor(encoded: EncodedTensor, prefix: str, output: str, parts: Parts) -> None:
    _LOWERED[type(encoded)](encoded, prefix, output, parts)


def _quantized(encoded: QuantizedTensor, prefix: str, output: str, parts: Parts) -> None:
    _by_table(encoded.quantizer.format, encoded, encoded.scales, prefix, output, parts)


def _fitted(encoded: FittedTensor, prefix: str, output: str, parts: Parts) -> None:
    _by_table(encoded.format, encoded, encoded.scales, prefix, output, parts)


def _by_table(
    fmt: Format,
    encoded: QuantizedTensor | FittedTensor,
    scales: NDArray[np.float32],
    prefix: str,
    output: str,
    parts: Parts,
) -> None:
    """Look up codes in the tensor's own shape where a scale is one for the tensor or a channel, else row by row."""
    granularity, shape = encoded.quantizer.granularity, encoded.shape
    whole = granularity.name in ("tensor", "channel")
    codes = _codes(f"{prefix}/codes", encoded.codes if whole else encoded.rows, fmt.bits, parts)
    column = (-1, *[1] * (len(shape) - 1)) if granularity.name == "channel" else () if whole else (-1, 1)
    inputs = [codes, parts.store(_floats(f"{prefix}/scale", scales.reshape(column)))]
    _call(functions.decode(fmt), inputs, output if whole else f"{prefix}/rows", parts)
    if not whole:
        to_shape(f"{prefix}/rows", granularity, shape, output, prefix, parts)


def _blocks(encoded: BlockTensor, prefix: str, output: str, parts: Parts) -> None:
    fmt = encoded.quantizer.block_format
    inputs = [
        _codes(f"{prefix}/codes", encoded.rows, fmt.bits, parts),
        _codes(f"{prefix}/scales", encoded.scales.codes, fmt.scale_format.bits, parts),
    ]
    if fmt.scale == "e4m3":
        inputs.append(parts.store(_floats(f"{prefix}/tensor_scale", np.array(encoded.scales.tensor))))
    _in_rows(functions.decode_blocks(fmt), inputs, encoded.quantizer.granularity, encoded.shape, prefix, output, parts)


def _trit_planes(encoded: TritPlanesTensor, prefix: str, output: str, parts: Parts) -> None:
    # a code holds the trits of both planes, two bits each
    trits = np.nan_to_num(scalar("ternary").float32_values)
    pairs = np.stack([np.tile(trits, 4), np.repeat(trits, 4)], axis=1)
    inputs = [_codes(f"{prefix}/codes", encoded.planes[0] | (encoded.planes[1] << 2), 4, parts)]
    inputs += _scale_columns(prefix, ("first_scale", "second_scale"), encoded.scales, parts)
    function = functions.decode_trit_planes(pairs)
    _in_rows(function, inputs, encoded.quantizer.granularity, encoded.shape, prefix, output, parts)


def _twin_log(encoded: TwinLogTensor, prefix: str, output: str, parts: Parts) -> None:
    quantizer = encoded.quantizer
    inputs = [_codes(f"{prefix}/codes", encoded.rows, quantizer.bits, parts)]
    inputs += _scale_columns(prefix, ("positive_scale", "negative_scale"), encoded.scales, parts)
    function = functions.decode_by_sign(quantizer.name, quantizer.code_format)
    _in_rows(function, inputs, quantizer.granularity, encoded.shape, prefix, output, parts)


def _polar(encoded: PolarTensor, prefix: str, output: str, parts: Parts) -> None:
    quantizer = encoded.quantizer
    length = quantizer.granularity.row_length(encoded.shape)
    inputs = [
        _codes(f"{prefix}/directions", encoded.directions, quantizer.direction_bits, parts),
        _codes(f"{prefix}/magnitudes", encoded.magnitudes, quantizer.magnitude_bits, parts),
        parts.store(_floats(f"{prefix}/scale", encoded.scales[:, np.newaxis])),
    ]
    rows = f"{prefix}/rows"
    filled = length % LENGTH != 0  # a row's last vector holds more values than the row
    function = functions.decode_polar(quantizer.name, quantizer.directions, quantizer.magnitudes)
    _call(function, inputs, f"{prefix}/vectors" if filled else rows, parts)
    if filled:
        ends = [
            parts.store(numpy_helper.from_array(np.array([end], np.int64), f"{prefix}/vectors/{label}"))
            for label, end in (("from", 0), ("to", length), ("axis", 1))
        ]
        parts.add("Slice", [f"{prefix}/vectors", *ends], rows)
    to_shape(rows, quantizer.granularity, encoded.shape, output, prefix, parts)


_LOWERED: dict[type, Callable[[Any, str, str, Parts], None]] = {
    QuantizedTensor: _quantized,
    FittedTensor: _fitted,
    BlockTensor: _blocks,
    TritPlanesTensor: _trit_planes,
    TwinLogTensor: _twin_log,
    PolarTensor: _polar,
}


def _in_rows(
    function: onnx.FunctionProto,
    inputs: list[str],
    granularity: Granularity,
    shape: tuple[int, ...],
    prefix: str,
    output: str,
    parts: Parts,
) -> None:
    """Call a function that decodes rows, and lay them out as the tensor."""
    _call(function, inputs, f"{prefix}/rows", parts)
    to_shape(f"{prefix}/rows", granularity, shape, output, prefix, parts)


def _call(function: onnx.FunctionProto, inputs: list[str], output: str, parts: Parts) -> None:
    parts.need("", functions.OPSET)
    parts.need(function.domain, functions.VERSION)
    parts.call(function, inputs, output)


def _scale_columns(prefix: str, labels: tuple[str, str], scales: NDArray[np.float32], parts: Parts) -> list[str]:
    """Store two scales for each row, (2, R), as two columns."""
    return [parts.store(_floats(f"{prefix}/{label}", column[:, np.newaxis])) for label, column in zip(labels, scales, strict=True)]


def _codes(name: str, codes: NDArray[np.integer], bits: int, parts: Parts) -> str:
    """Store codes in the narrowest type that has room for ``bits``."""
    width = next(width for width in _CODES if width >= bits)
    onnx_type, opset = _CODES[width]
    parts.need("", opset)
    return parts.store(helper.make_tensor(name, onnx_type, codes.shape, pack(codes.reshape(-1), width).tobytes(), raw=True))


def _floats(name: str, values: NDArray[np.floating]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32, order="C"), name)


LOWERING = Lowering(
    name="codebook",
    summary="codes and tables, decoded by functions of the model named after the format",
    weight_refusal=_weight_refusal,
    activation_refusal=lambda quantizer: "",
    lower_weight=_lower_weight,
    lower_activation=_lower_activation,
)
