"""Functions of a model, in standard operators, that encode and decode formats: named after them, in a domain of their own.

A runtime that knows nothing of the domain runs their bodies; a tool that knows a function by name and version may put something
better in its place. ``quantize_NAME`` takes floats and a scale to the quantized floats; ``decode_NAME`` takes codes and whatever
scales the format has to floats. All are bit-exact; ``quantize_NAME`` gives +0 or -0 for what is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from formats import BlockFormat, Format
from formats.boundaries import boundaries, level_codes

DOMAIN = "bitatlas.formats"
VERSION = 1
#: lowest version of ONNX' operators that the bodies are valid in
OPSET = 19

Values = NDArray[np.floating] | NDArray[np.integer]


@dataclass(kw_only=True)
class _Body:
    """Nodes of a function, made one after the other; every method returns the name of what its node makes."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        made = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [made], **attributes))
        return made

    def constant(self, name: str, value: Values) -> str:
        return self.add("Constant", output=name, value=numpy_helper.from_array(value, name))

    def table(self, name: str, values: Values, codes: str) -> str:
        """Look codes of any integer type up in a table along its first axis."""
        return self.add("Gather", self.constant(name, values), self.add("Cast", codes, to=TensorProto.INT32))

    def function(self, name: str, inputs: Sequence[str], summary: str) -> onnx.FunctionProto:
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_function(DOMAIN, name, inputs, ["y"], self.nodes, opsets)
        made.doc_string = summary
        return made


def quantize(fmt: Format) -> onnx.FunctionProto:
    """Return ``quantize_NAME``: (x, scale) to the quantized x, rounded to nearest, ties to even, saturating."""
    body = _Body()
    scaled = body.add("Div", "x", "scale")
    if fmt.closed_form is not None and fmt.closed_form.kind == "uniform":
        low = body.constant("low", np.array(fmt.minimum, np.float32))
        high = body.constant("high", np.array(fmt.maximum, np.float32))
        level = body.add("Clip", body.add("Round", scaled), low, high)
    else:
        level = _nearest_level(body, fmt, scaled)
    body.add("Mul", level, "scale", output="y")
    return body.function(f"quantize_{fmt.name}", ["x", "scale"], f"{fmt.summary}; rounded to nearest, ties to even")


def _nearest_level(body: _Body, fmt: Format, scaled: str) -> str:
    """Bisect the table of exact rounding boundaries, one comparison for each bit, and look up the level."""
    codes, thresholds = level_codes(fmt), boundaries(fmt, "nearest_even")
    steps = len(thresholds).bit_length()
    padded = np.concatenate([thresholds, np.full(2**steps - 1 - len(thresholds), np.inf, np.float32)])
    levels = fmt.float32_values[codes]
    levels = np.concatenate([levels, np.full(2**steps - len(levels), levels[-1])])
    table, known = body.constant("thresholds", padded), body.constant("levels", levels + np.float32(0))  # +0 for -0
    position = ""
    for step in range(steps):
        half = 2 ** (steps - 1 - step)
        probe = body.constant(f"before_{half}", np.array(half - 1, np.int32))
        if position:
            probe = body.add("Add", position, probe)
        above = body.add("GreaterOrEqual", scaled, body.add("Gather", table, probe))
        width = body.constant(f"half_{half}", np.array(half, np.int32))
        move = body.add("Mul", body.add("Cast", above, to=TensorProto.INT32), width)
        position = body.add("Add", position, move) if position else move
    return body.add("Gather", known, position)


def decode(fmt: Format) -> onnx.FunctionProto:
    """Return ``decode_NAME``: (codes, scale) to values, by the format's own table."""
    body = _Body()
    body.add("Mul", body.table("values", _values(fmt), "codes"), "scale", output="y")
    return body.function(f"decode_{fmt.name}", ["codes", "scale"], fmt.summary)


def decode_blocks(fmt: BlockFormat) -> onnx.FunctionProto:
    """Return ``decode_NAME``: (codes (R, n), codes of scales (R, blocks of a row)[, scale of the tensor]) to values."""
    body = _Body()
    values = body.table("values", _values(fmt.element), "codes")
    inputs = ["codes", "scales"]
    if fmt.scale == "e4m3":
        inputs.append("tensor_scale")
        scales = body.add("Mul", body.table("scale_values", _values(fmt.scale_format), "scales"), "tensor_scale")
    else:  # an element's unit is a power of two as well
        with np.errstate(under="ignore"):
            powers = np.ldexp(_values(fmt.scale_format), fmt.unit_exponent).astype(np.float32)
        scales = body.table("scale_values", powers, "scales")
    length = body.add("Gather", body.add("Shape", "codes"), body.constant("last", np.array(1, np.int64)))
    zero, one = body.constant("zero", np.array(0, np.int64)), body.constant("one", np.array(1, np.int64))
    block = body.add("Div", body.add("Range", zero, length, one), body.constant("block", np.array(fmt.block, np.int64)))
    body.add("Mul", values, body.add("Gather", scales, block, axis=1), output="y")
    return body.function(f"decode_{fmt.name}", inputs, fmt.summary)


def decode_trit_planes(pairs: NDArray[np.float32]) -> onnx.FunctionProto:
    """Return ``decode_tritplanes``: (codes, first scale, second scale) to values; ``pairs`` are each code's trits, (16, 2)."""
    body = _Body()
    first, second = (body.table(label, pairs[:, plane], "codes") for plane, label in enumerate(("first_trits", "second_trits")))
    body.add("Add", body.add("Mul", first, "first_scale"), body.add("Mul", second, "second_scale"), output="y")
    return body.function("decode_tritplanes", ["codes", "first_scale", "second_scale"], "two ternary planes in one code")


def decode_by_sign(name: str, fmt: Format) -> onnx.FunctionProto:
    """Return ``decode_NAME``: (codes, scale of positive values, scale of negative ones) to values, by the table of ``fmt``."""
    body = _Body()
    value = body.table("values", _values(fmt), "codes")
    below = body.add("Less", value, body.constant("zero", np.array(0, np.float32)))
    body.add("Mul", value, body.add("Where", below, "negative_scale", "positive_scale"), output="y")
    inputs = ["codes", "positive_scale", "negative_scale"]
    return body.function(f"decode_{name}", inputs, f"{fmt.name} with a scale for either sign")


def decode_polar(name: str, directions: NDArray[np.float32], magnitudes: Format) -> onnx.FunctionProto:
    """Return ``decode_NAME``: (codes of directions (R, v), of magnitudes (R, v), scale) to values (R, 8 v)."""
    body = _Body()
    lengths = body.add("Mul", body.table("magnitude_values", _values(magnitudes), "magnitudes"), "scale")
    column = body.add("Unsqueeze", lengths, body.constant("last", np.array([-1], np.int64)))
    vectors = body.add("Mul", body.table("direction_vectors", directions, "directions"), column)
    body.add("Reshape", vectors, body.constant("rows", np.array([0, -1], np.int64)), output="y")
    return body.function(f"decode_{name}", ["directions", "magnitudes", "scale"], "vectors of eight: direction times magnitude")


def _values(fmt: Format) -> NDArray[np.float32]:
    """Return the value of every code; codes that stand for no finite number do not occur, and count as zero."""
    return np.where(np.isfinite(fmt.float32_values), fmt.float32_values, np.float32(0))
