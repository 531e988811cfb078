"""Operators that take numbers one by one, or sum or compare neighbours: sums, products, ends, means, maxima."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from dse import trace
from dse.hardware.compiling import Compiler, arguments, lowers
from dse.hardware.narrowing import narrow
from dse.hardware.program import Value
from dse.hardware.rearranging import reshape
from dse.hardware.steps import LargestWindow, Multiply, Sum
from dse.trace import aten
from formats.errors import BitatlasError

#: computed factors are narrowed to this many bits where their product would be too wide
FACTOR_BITS = 20


def _constant(made: Compiler, given: Any, axes: int) -> NDArray[np.float64] | None:
    """Return an argument that is stored, or a number, with ``axes`` axes; None for a computed one."""
    found = made.made.get(given) if isinstance(given, fx.Node) else np.array(float(given))
    if isinstance(found, Value):
        return None
    stored = np.asarray(found, np.float64)
    return stored.reshape((1,) * (axes - stored.ndim) + stored.shape)


@lowers(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar)
def _add(made: Compiler, node: fx.Node) -> Value:
    if node.kwargs.get("alpha", 1) != 1:
        raise BitatlasError(f"operands of a sum must count the same, not {node.kwargs['alpha']} times ({node.name})")
    negative = node.target in (aten.sub.Tensor, aten.sub.Scalar)
    axes = len(trace.shape(node))
    first, second = arguments(node)[:2]
    stored = [_constant(made, each, axes) for each in (first, second)]
    if stored[1] is not None:
        return made.builder.add_constant(made.value(first), -stored[1] if negative else stored[1])
    other = made.value(second)
    if negative:
        other = _negated(made, other)
    if stored[0] is not None:
        return made.builder.add_constant(other, stored[0])
    return made.builder.add(_with_axes(made, made.value(first), axes), _with_axes(made, other, axes))


def _with_axes(made: Compiler, value: Value, axes: int) -> Value:
    if value.unit.ndim == axes:
        return value
    raise BitatlasError(f"operands must have as many axes as their result, not {value.unit.ndim} of {axes} ({made.builder.where})")


@lowers(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
def _multiply(made: Compiler, node: fx.Node) -> Value:
    divides = node.target in (aten.div.Tensor, aten.div.Scalar)
    axes = len(trace.shape(node))
    first, second = arguments(node)[:2]
    stored = [_constant(made, each, axes) for each in (first, second)]
    if stored[1] is not None:
        return made.builder.multiply_constant(made.value(first), 1 / stored[1] if divides else stored[1])
    if divides:
        raise BitatlasError(f"divisor must be stored in whole-number arithmetic, not computed ({node.name})")
    if stored[0] is not None:
        return made.builder.multiply_constant(made.value(second), stored[0])
    a, b = (_with_axes(made, made.value(each), axes) for each in (first, second))
    if a.bits + b.bits > 2 * FACTOR_BITS:
        a, b = narrow(made, first, FACTOR_BITS), narrow(made, second, FACTOR_BITS)
    ends = [one * other for one in (a.low, a.high) for other in (b.low, b.high)]
    return made.builder.emit(Multiply(), [a, b], a.unit * b.unit, min(ends), max(ends))


@lowers(aten.neg.default)
def _negate(made: Compiler, node: fx.Node) -> Value:
    return _negated(made, made.value(node.args[0]))


def _negated(made: Compiler, value: Value) -> Value:
    return made.builder.multiply_constant(value, np.full((1,) * value.unit.ndim, -1.0))


@lowers(aten.rsub.Scalar)
def _subtract_from(made: Compiler, node: fx.Node) -> Value:
    operand, number = arguments(node)[:2]
    return made.builder.add_constant(_negated(made, made.value(operand)), np.array(float(number)))


@lowers(aten.relu.default)
def _relu(made: Compiler, node: fx.Node) -> Value:
    return made.builder.clamp(made.value(node.args[0]), np.array(0), None)


@lowers(aten.hardtanh.default, aten.clamp.default, aten.relu6.default, aten.clamp_min.default, aten.clamp_max.default)
def _clamp(made: Compiler, node: fx.Node) -> Value:
    """Keep numbers between ends, rounded to the value's unit."""
    value = made.value(node.args[0])
    defaults: dict[object, tuple[float, float]] = {aten.hardtanh.default: (-1.0, 1.0), aten.relu6.default: (0.0, 6.0)}
    _, low, high = arguments(node, None, *defaults.get(node.target, (None, None)))
    if node.target is aten.clamp_max.default:
        low, high = None, low
    ends = [None if end is None else np.round(float(end) / value.unit).astype(np.int64) for end in (low, high)]
    return made.builder.clamp(value, ends[0], ends[1])


@lowers(aten.mean.dim, aten.sum.dim_IntList, aten.adaptive_avg_pool2d.default)
def _mean(made: Compiler, node: fx.Node) -> Value:
    """Sum exactly; what a mean divides by goes into the unit."""
    operand, given = arguments(node, None, None)[:2]
    source = trace.shape(operand)
    pooling = node.target is aten.adaptive_avg_pool2d.default
    if pooling and list(given) != [1, 1]:
        raise BitatlasError(f"adaptive pooling must end in one number a channel, not {given} ({node.name})")
    axes = tuple(sorted(axis % len(source) for axis in ([2, 3] if pooling else given)))
    if set(axes) & set(made.sample_axes(operand)):
        raise BitatlasError(f"samples must stay apart in whole-number arithmetic ({node.name})")
    total = _sum(made, made.value(operand), source, axes, mean=node.target is not aten.sum.dim_IntList)
    kept = tuple(1 if axis in axes else length for axis, length in enumerate(source))
    return total if kept == trace.shape(node) else reshape(made, total, kept, trace.shape(node), made.sample_axes(node))


def _sum(made: Compiler, value: Value, source: tuple[int, ...], axes: tuple[int, ...], *, mean: bool) -> Value:
    value = made.builder.unify(value, axes)
    count = int(np.prod([source[axis] for axis in axes]))
    unit = value.unit / count if mean else value.unit
    return made.builder.emit(Sum(axes=axes), [value], unit, min(value.low * count, 0), max(value.high * count, 0))


@lowers(aten.avg_pool2d.default)
def _average_pool(made: Compiler, node: fx.Node) -> Value:
    """Sum windows that lie side by side."""
    (operand,) = arguments(node)[:1]
    source, wanted = trace.shape(operand), trace.shape(node)
    kernel, stride, padding = (_pair(node, position, default) for position, default in ((1, 1), (2, None), (3, 0)))
    stride = stride or kernel
    fits = all(source[2 + axis] == wanted[2 + axis] * kernel[axis] for axis in (0, 1))  # type: ignore[index]
    if kernel != stride or padding != (0, 0) or not fits:
        raise BitatlasError(f"windows of an average must lie side by side in whole-number arithmetic ({node.name})")
    assert kernel is not None
    split = (1, source[1], wanted[2], kernel[0], wanted[3], kernel[1])
    parts = reshape(made, made.value(operand), source, split, (0,))
    total = _sum(made, parts, split, (3, 5), mean=True)
    return reshape(made, total, (*split[:3], 1, split[4], 1), wanted, (0,))


def _pair(node: fx.Node, position: int, default: int | None) -> tuple[int, int] | None:
    given: Any = node.args[position] if len(node.args) > position and node.args[position] != [] else default
    if given is None:
        return None
    listed = [given] if isinstance(given, int) else list(given)
    return (listed[0], listed[-1])


@lowers(aten.max_pool2d.default)
def _max_pool(made: Compiler, node: fx.Node) -> Value:
    value = made.builder.unify(made.value(node.args[0]), (2, 3))
    kernel, stride, padding, dilation = (_pair(node, at, default) for at, default in ((1, 1), (2, None), (3, 0), (4, 1)))
    if len(node.args) > 5 and node.args[5]:
        raise BitatlasError(f"windows of a maximum must lie within the image, not reach beyond it by ceil_mode ({node.name})")
    assert kernel is not None
    assert padding is not None
    assert dilation is not None
    height, width = trace.shape(arguments(node)[0])[2:]
    size = (height, width)
    step = LargestWindow(kernel=kernel, stride=stride or kernel, padding=padding, dilation=dilation, lowest=value.low, size=size)
    return made.builder.emit(step, [value], value.unit, value.low, value.high)
