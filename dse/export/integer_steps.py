"""Steps of whole-number programs in operators of ONNX, all of them on integers.

onnxruntime's 8-bit products add neighbouring pairs in 16 bits on processors without dedicated instructions, and saturate there
where unsigned bytes meet signed ones beyond 64 in magnitude. So wider weights are stored as unsigned bytes with the zero point
128.
"""

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dse.export.lowering import Parts
from dse.hardware import steps
from dse.hardware.accumulate import Accumulate, Operand

DOMAIN, VERSION = "bitatlas.integer", 1
#: the version of ONNX' operators that is used: the first with ReduceMax whose axes are an input
OPSET = 18
#: beyond this magnitude a signed byte is stored as an unsigned one
SAFE = 64
OFFSET = 128

#: (step, names of the operands, name of the result, parts)
Writer = Callable[..., None]
_WRITERS: dict[type, Writer] = {}


def write(step: steps.Step, operands: list[str], output: str, parts: Parts) -> None:
    """Add the nodes of a step, int64 to int64."""
    _WRITERS[type(step)](step, operands, output, parts)


def _writes(kind: type) -> Callable[[Writer], Writer]:
    def register(function: Writer) -> Writer:
        _WRITERS[kind] = function
        return function

    return register


def _number(parts: Parts, name: str, numbers: object) -> str:
    return parts.store(numpy_helper.from_array(np.ascontiguousarray(np.asarray(numbers, np.int64)), name))


@_writes(steps.Add)
def _add(step: steps.Add, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("Add", operands, output)


@_writes(steps.Subtract)
def _subtract(step: steps.Subtract, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("Sub", operands, output)


@_writes(steps.Multiply)
def _multiply(step: steps.Multiply, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("Mul", operands, output)


@_writes(steps.AddConstant)
def _add_constant(step: steps.AddConstant, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("Add", [*operands, _number(parts, f"{output}/numbers", step.numbers)], output)


@_writes(steps.MultiplyConstant)
def _multiply_constant(step: steps.MultiplyConstant, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("Mul", [*operands, _number(parts, f"{output}/numbers", step.numbers)], output)


@_writes(steps.Clamp)
def _clamp(step: steps.Clamp, operands: list[str], output: str, parts: Parts) -> None:
    ends = [(kind, end) for kind, end in (("Max", step.low), ("Min", step.high)) if end is not None]
    (current,) = operands
    for number, (kind, end) in enumerate(ends):
        last = number == len(ends) - 1
        stored = _number(parts, f"{output}/{kind}/end", end)
        current = parts.add(kind, [current, stored], output if last else f"{output}/{kind}")
    if not ends:
        parts.add("Identity", [current], output)


@_writes(steps.Rescale)
def _rescale(step: steps.Rescale, operands: list[str], output: str, parts: Parts) -> None:
    multiplier = _number(parts, f"{output}/multiplier", step.multiplier)
    divisor = _number(parts, f"{output}/divisor", step.divisor)
    parts.need(DOMAIN, VERSION)
    parts.call(rescale_function(even=step.even), [*operands, multiplier, divisor], output)


@_writes(steps.Look)
def _look(step: steps.Look, operands: list[str], output: str, parts: Parts) -> None:
    first = _number(parts, f"{output}/first", step.first)
    ends = [_number(parts, f"{output}/{name}", end) for name, end in (("low", 0), ("high", len(step.table) - 1))]
    index = parts.add("Sub", [*operands, first], f"{output}/index")
    above = parts.add("Max", [index, ends[0]], f"{output}/above")
    within = parts.add("Min", [above, ends[1]], f"{output}/within")
    parts.add("Gather", [_number(parts, f"{output}/table", step.table), within], output)


@_writes(steps.Sum)
def _sum(step: steps.Sum, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("ReduceSum", [*operands, _number(parts, f"{output}/axes", step.axes)], output, keepdims=1)


@_writes(steps.Largest)
def _largest(step: steps.Largest, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("ReduceMax", [*operands, _number(parts, f"{output}/axes", [step.axis])], output, keepdims=1)


@_writes(steps.FloorDivide)
def _floor_divide(step: steps.FloorDivide, operands: list[str], output: str, parts: Parts) -> None:
    divisor = operands[1] if step.by is None else _number(parts, f"{output}/by", step.by)
    parts.need(DOMAIN, VERSION)
    parts.call(floor_function(), [operands[0], divisor], output)


@_writes(steps.SquareRoot)
def _square_root(step: steps.SquareRoot, operands: list[str], output: str, parts: Parts) -> None:
    parts.need(DOMAIN, VERSION)
    parts.call(root_function(), operands, output)


@_writes(steps.LargestWindow)
def _largest_window(step: steps.LargestWindow, operands: list[str], output: str, parts: Parts) -> None:
    vertical, horizontal = step.padding
    pads = _number(parts, f"{output}/pads", [0, 0, vertical, horizontal] * 2)
    lowest = _number(parts, f"{output}/lowest", step.lowest)
    padded = parts.add("Pad", [*operands, pads, lowest], f"{output}/padded")
    axes = _number(parts, f"{output}/axes", [2, 3])
    windows = []
    for number, both in enumerate(step.offsets(step.size[0] + 2 * vertical, step.size[1] + 2 * horizontal)):
        places = [
            _number(parts, f"{output}/{number}/{name}", [getattr(part, name) for part in both])
            for name in ("start", "stop", "step")
        ]
        windows.append(parts.add("Slice", [padded, places[0], places[1], axes, places[2]], f"{output}/window_{number}"))
    parts.add("Max", windows, output)


@_writes(steps.Rearrange)
def _rearrange(step: steps.Rearrange, operands: list[str], output: str, parts: Parts) -> None:
    given = step.arguments
    if step.kind == "permute":
        parts.add("Transpose", operands, output, perm=list(given))
        return
    if step.kind == "slice":
        names = [_number(parts, f"{output}/{position}", [given[position]]) for position in (1, 2, 0, 3)]
        parts.add("Slice", [*operands, *names], output)
        return
    lengths = given if step.kind == "reshape" else tuple(max(length, 1) for length in given)
    operator = "Reshape" if step.kind == "reshape" else "Expand"
    parts.add(operator, [*operands, _number(parts, f"{output}/shape", lengths)], output)


@_writes(steps.Join)
def _join(step: steps.Join, operands: list[str], output: str, parts: Parts) -> None:
    parts.add("Concat", operands, output, axis=step.axis)


@_writes(Accumulate)
def _accumulate(step: Accumulate, operands: list[str], output: str, parts: Parts) -> None:
    """Multiply and sum bytes to int32, then add the bias in int64: nothing overflows, which was checked before."""
    activation = _as_bytes(step.activation, operands[0], f"{output}/activation", parts)
    weight = _stored(step, output, parts) if step.codes is not None else _computed(step, operands[1], output, parts)
    inputs = [activation, weight[0]] + ([] if weight[1] is None else ["", weight[1]])
    sums = f"{output}/sums"
    if step.kind == "convolution":
        stride, padding, dilation = (list(each) for each in step.geometry)
        parts.add("ConvInteger", inputs, sums, strides=stride, pads=padding * 2, dilations=dilation, group=step.groups)
    else:
        parts.add("MatMulInteger", inputs, sums)
    if step.bias is None:
        parts.add("Cast", [sums], output, to=TensorProto.INT64)
        return
    wide = parts.add("Cast", [sums], f"{output}/wide", to=TensorProto.INT64)
    shape = (-1, *[1] * len(step.geometry[0])) if step.kind == "convolution" else (-1,)
    parts.add("Add", [wide, _number(parts, f"{output}/bias", step.bias.reshape(shape))], output)


def _as_bytes(operand: Operand, name: str, output: str, parts: Parts) -> str:
    signed = int(operand.tables[0].min()) < 0
    return parts.add("Cast", [name], output, to=TensorProto.INT8 if signed else TensorProto.UINT8)


def _stored(step: Accumulate, output: str, parts: Parts) -> tuple[str, str | None]:
    """Store a weight as bytes, inputs first where it is multiplied as a matrix; also the name of its zero point, if any."""
    assert step.codes is not None
    numbers = step.weight.tables[0][step.codes]
    laid = numbers if step.kind == "convolution" else np.ascontiguousarray(numbers.T)
    wide = int(np.abs(numbers).max(initial=0)) > SAFE
    shifted: NDArray[np.int64] = laid + OFFSET if wide and numbers.min() < 0 else laid
    dtype = np.uint8 if wide else np.int8
    name = parts.store(numpy_helper.from_array(shifted.astype(dtype), f"{output}/weight"))
    zero = _zero(parts, output) if wide and numbers.min() < 0 else None
    return name, zero


def _computed(step: Accumulate, name: str, output: str, parts: Parts) -> tuple[str, str | None]:
    table = step.weight.tables[0]
    if int(table.min()) >= 0 or int(np.abs(table).max()) <= SAFE:
        return _as_bytes(step.weight, name, f"{output}/factor", parts), None
    offset = _number(parts, f"{output}/offset", OFFSET)
    shifted = parts.add("Add", [name, offset], f"{output}/shifted")
    return parts.add("Cast", [shifted], f"{output}/factor", to=TensorProto.UINT8), _zero(parts, output)


def _zero(parts: Parts, output: str) -> str:
    return parts.store(numpy_helper.from_array(np.array(OFFSET, np.uint8), f"{output}/zero"))


def rescale_function(*, even: bool) -> onnx.FunctionProto:
    """Return the function (x, multiplier, divisor) to the rounded quotient of their product, ties even or up."""
    nodes = [
        helper.make_node("Mul", ["x", "multiplier"], ["product"]),
        helper.make_node("Mod", ["product", "divisor"], ["rest"]),
        helper.make_node("Sub", ["product", "rest"], ["multiple"]),
        helper.make_node("Div", ["multiple", "divisor"], ["whole"]),
        _constant("two", 2),
        helper.make_node("Mul", ["rest", "two"], ["twice"]),
        helper.make_node("Mod", ["whole", "two"], ["nudge"]) if even else _constant("nudge", 1),
        helper.make_node("Add", ["twice", "nudge"], ["reach"]),
        helper.make_node("Greater", ["reach", "divisor"], ["up"]),
        helper.make_node("Cast", ["up"], ["step"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "step"], ["y"]),
    ]
    return _function("rescale_to_even" if even else "rescale_up", ["x", "multiplier", "divisor"], nodes)


def floor_function() -> onnx.FunctionProto:
    """Return the function (x, divisor) to the quotient rounded down, for divisors above zero."""
    nodes = [
        helper.make_node("Mod", ["x", "divisor"], ["rest"]),
        helper.make_node("Sub", ["x", "rest"], ["multiple"]),
        helper.make_node("Div", ["multiple", "divisor"], ["y"]),
    ]
    return _function("divide_down", ["x", "divisor"], nodes)


def root_function() -> onnx.FunctionProto:
    """Return the function x to its integer square root, bit by bit, for numbers from 0 to 2**62 - 1."""
    nodes = [_constant("root_31", 0)]
    for bit in reversed(range(31)):
        last = f"root_{bit + 1}"
        nodes += [
            _constant(f"bit_{bit}", 1 << bit),
            helper.make_node("Add", [last, f"bit_{bit}"], [f"try_{bit}"]),
            helper.make_node("Mul", [f"try_{bit}", f"try_{bit}"], [f"square_{bit}"]),
            helper.make_node("LessOrEqual", [f"square_{bit}", "x"], [f"fits_{bit}"]),
            helper.make_node("Where", [f"fits_{bit}", f"try_{bit}", last], [f"root_{bit}" if bit else "y"]),
        ]
    return _function("square_root_down", ["x"], nodes)


def _constant(name: str, value: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.int64), name))


def _function(name: str, inputs: list[str], nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function(DOMAIN, name, inputs, ["y"], nodes, [helper.make_opsetid("", OPSET)])
