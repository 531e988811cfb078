"""Encoders and decoders of formats in ONNX operators: standard ones for integers, named functions with tables for the rest."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from formats import Format
from formats.boundaries import boundaries, level_codes
from formats.packing import pack

FUNCTION_DOMAIN = "bitatlas.formats"
FUNCTION_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StoredType:
    """An integer type of ONNX and its range."""

    onnx_type: int
    low: int
    high: int


_SIGNED = tuple(
    (bits, StoredType(onnx_type=kind, low=-(2 ** (bits - 1)), high=2 ** (bits - 1) - 1))
    for bits, kind in ((4, TensorProto.INT4), (8, TensorProto.INT8), (16, TensorProto.INT16))
)
_UNSIGNED = tuple(
    (bits, StoredType(onnx_type=kind, low=0, high=2**bits - 1))
    for bits, kind in ((4, TensorProto.UINT4), (8, TensorProto.UINT8), (16, TensorProto.UINT16))
)


def stored_type(fmt: Format) -> StoredType | None:
    """Return the narrowest integer type of ONNX that holds the format's values; None where they are no whole numbers."""
    if fmt.closed_form is None or fmt.closed_form.kind != "uniform":
        return None
    return next(stored for bits, stored in (_SIGNED if fmt.signed else _UNSIGNED) if bits >= fmt.bits)


def integer_tensor(name: str, values: NDArray[np.int64], stored: StoredType) -> onnx.TensorProto:
    """Make an initializer of a 4-, 8- or 16-bit integer type."""
    bits = (stored.high - stored.low).bit_length()
    return helper.make_tensor(name, stored.onnx_type, values.shape, pack(values.flatten() % 2**bits, bits).tobytes(), raw=True)


def float_tensor(name: str, values: NDArray[np.float32]) -> onnx.TensorProto:
    """Make a float32 initializer."""
    return numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name)


def quantize_function(fmt: Format) -> onnx.FunctionProto:
    """Return the function ``quantize_NAME``: (x, scale) to the quantized x.

    It bisects the table of exact rounding boundaries, one comparison for each bit, and looks up the level: bit-exact for every
    format but for the sign of zero, which is always positive.
    """
    codes = level_codes(fmt)
    thresholds = boundaries(fmt, "nearest_even")
    steps = len(thresholds).bit_length()
    padded = np.concatenate([thresholds, np.full(2**steps - 1 - len(thresholds), np.inf, np.float32)])
    levels = fmt.float32_values[codes]
    levels = np.concatenate([levels, np.full(2**steps - len(levels), levels[-1])])
    nodes = [
        _constant("thresholds", padded),
        _constant("levels", levels + np.float32(0)),  # adding +0 turns -0 into +0
        helper.make_node("Div", ["x", "scale"], ["scaled"]),
    ]
    position = ""
    for step in range(steps):
        position = _bisect(nodes, 2 ** (steps - 1 - step), step, position)
    nodes += [
        helper.make_node("Gather", ["levels", position], ["level"]),
        helper.make_node("Mul", ["level", "scale"], ["y"]),
    ]
    return _function(f"quantize_{fmt.name}", ["x", "scale"], ["y"], nodes)


def _bisect(nodes: list[onnx.NodeProto], half: int, step: int, position: str) -> str:
    """Append one step of the bisection and return the name of the new position, int32."""
    nodes.append(_constant(f"half_{step}", np.array(half, np.int32)))
    probe = f"probe_{step}"
    if position:
        nodes.append(_constant(f"offset_{step}", np.array(half - 1, np.int32)))
        nodes.append(helper.make_node("Add", [position, f"offset_{step}"], [probe]))
    else:
        nodes.append(_constant(probe, np.array(half - 1, np.int32)))
    nodes += [
        helper.make_node("Gather", ["thresholds", probe], [f"threshold_{step}"]),
        helper.make_node("GreaterOrEqual", ["scaled", f"threshold_{step}"], [f"above_{step}"]),
        helper.make_node("Cast", [f"above_{step}"], [f"upper_{step}"], to=TensorProto.INT32),
        helper.make_node("Mul", [f"upper_{step}", f"half_{step}"], [f"move_{step}"]),
    ]
    if not position:
        return f"move_{step}"
    nodes.append(helper.make_node("Add", [position, f"move_{step}"], [f"position_{step}"]))
    return f"position_{step}"


def decode_function(fmt: Format) -> onnx.FunctionProto:
    """Return the function ``decode_NAME``: (codes, scale) to values, by looking the codes up in the format's own table."""
    table = np.where(np.isfinite(fmt.float32_values), fmt.float32_values, np.float32(0))  # other codes do not occur
    nodes = [
        _constant("table", table),
        helper.make_node("Cast", ["codes"], ["index"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "index"], ["value"]),
        helper.make_node("Mul", ["value", "scale"], ["y"]),
    ]
    return _function(f"decode_{fmt.name}", ["codes", "scale"], ["y"], nodes)


def _constant(name: str, value: NDArray[np.float32] | NDArray[np.int32]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _function(name: str, inputs: list[str], outputs: list[str], nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function(FUNCTION_DOMAIN, name, inputs, outputs, nodes, [helper.make_opsetid("", 21)])
