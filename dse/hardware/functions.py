"""Functions that are no sums of products, in whole numbers: softmax, layer norm, and those of one number by table.

Softmax follows the plan of I-BERT (Kim et al., arXiv 2101.01321, section 3.5) in that it takes the largest number off first and
divides whole numbers at the end; its exponential, and every other function of one number, is a table. Layer norm takes an integer
square root (section 3.6 there). What units are chosen here is this project's own.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from dse import trace
from dse.hardware.builder import Builder
from dse.hardware.compiling import Compiler, arguments, lowers
from dse.hardware.narrowing import narrow
from dse.hardware.program import Value
from dse.hardware.steps import (
    AddConstant,
    FloorDivide,
    Largest,
    Look,
    Multiply,
    MultiplyConstant,
    SquareRoot,
    Subtract,
    Sum,
)
from dse.trace import aten
from formats.errors import BitatlasError

#: a function's table covers -16 to 16 in steps of 2**-10; beyond, the functions here are as good as constant, or their argument
REACH, STEP_BITS = 16, 10
#: results of functions, probabilities and normalised numbers are whole multiples of 2**-16
RESULT_BITS = 16
#: stored factors of a layer norm are whole multiples of 2**-14
FACTOR_BITS = 14

Function = Callable[[torch.Tensor], torch.Tensor]
#: bounded functions, and those that are a ReLU plus a bounded one
_BOUNDED: dict[object, Function] = {
    aten.sigmoid.default: torch.sigmoid,
    aten.tanh.default: torch.tanh,
    aten.hardsigmoid.default: torch.nn.functional.hardsigmoid,
    aten.erf.default: torch.erf,
}
_RECTIFYING: dict[object, Function] = {
    aten.gelu.default: torch.nn.functional.gelu,
    aten.silu.default: torch.nn.functional.silu,
    aten.hardswish.default: torch.nn.functional.hardswish,
    aten.elu.default: torch.nn.functional.elu,
    aten.mish.default: torch.nn.functional.mish,
}


def _scalar_unit(value: Value, bits: int) -> NDArray[np.float64]:
    return np.full((1,) * value.unit.ndim, 2.0**-bits)


def _table(function: Function) -> tuple[NDArray[np.int64], int]:
    """Return a function's results in units of 2**-16 for arguments in steps of 2**-10, and the first argument's number."""
    first = -REACH << STEP_BITS
    arguments = torch.arange(first, -first + 1, dtype=torch.float64) / 2**STEP_BITS
    return torch.round(function(arguments) * 2**RESULT_BITS).to(torch.int64).numpy(), first


def _look(builder: Builder, value: Value, function: Function) -> Value:
    table, first = _table(function)
    unit = _scalar_unit(value, RESULT_BITS)
    return builder.emit(Look(table=table, first=first), [value], unit, int(table.min()), int(table.max()))


@lowers(*_BOUNDED)
def _bounded(made: Compiler, node: fx.Node) -> Value:
    value = made.value(node.args[0])
    argument = made.builder.rescale(value, _scalar_unit(value, STEP_BITS))
    return _look(made.builder, argument, _BOUNDED[node.target])


@lowers(*_RECTIFYING)
def _rectifying(made: Compiler, node: fx.Node) -> Value:
    """Add to the ReLU what the function differs from it, which is next to nothing far from zero."""
    if len(node.args) > 1 or any(value not in ("none", "tanh") for value in node.kwargs.values()):
        raise BitatlasError(f"function must be the standard one in whole-number arithmetic, not with options ({node.name})")
    options = {"approximate": node.kwargs["approximate"]} if "approximate" in node.kwargs else {}
    function = _RECTIFYING[node.target]
    value = made.value(node.args[0])
    fine = made.builder.rescale(value, _scalar_unit(value, RESULT_BITS))
    argument = made.builder.rescale(fine, _scalar_unit(value, STEP_BITS))
    difference = _look(made.builder, argument, lambda x: function(x, **options) - torch.relu(x))
    return made.builder.add(made.builder.clamp(fine, np.array(0), None), difference)


@lowers(aten.softmax.int, aten._softmax.default)
def _softmax(made: Compiler, node: fx.Node) -> Value:
    axis = arguments(node)[1] % len(trace.shape(node))
    builder, value = made.builder, made.builder.unify(made.value(node.args[0]))
    largest = builder.emit(Largest(axis=axis), [value], value.unit, value.low, value.high)
    below = builder.emit(Subtract(), [value, largest], value.unit, value.low - value.high, 0)
    argument = builder.rescale(below, _scalar_unit(value, STEP_BITS))
    power = _look(builder, argument, lambda x: torch.exp(torch.clamp(x, max=0.0)))
    count = trace.shape(node)[axis]
    unit = _scalar_unit(value, RESULT_BITS)
    total = builder.emit(Sum(axes=(axis,)), [power], unit, 1, count << RESULT_BITS)
    return _divided(builder, power, total, RESULT_BITS, (0, 1 << RESULT_BITS))


def _divided(builder: Builder, value: Value, divisor: Value, bits: int, ends: tuple[int, int]) -> Value:
    """Return the quotient in units of 2**-bits, ties up: floor((2 * value * 2**bits + divisor) / (2 * divisor))."""
    unit = _scalar_unit(value, bits)
    doubled = builder.emit(_times(2 << bits), [value], unit, value.low << (bits + 1), value.high << (bits + 1))
    raised = builder.add(_in(doubled, unit), _in(divisor, unit))
    twice = builder.emit(_times(2), [divisor], unit, 2, 2 * divisor.high)
    return builder.emit(FloorDivide(), [raised, twice], unit, *ends)


def _times(number: int) -> MultiplyConstant:
    return MultiplyConstant(numbers=np.array(number, np.int64))


def _in(value: Value, unit: NDArray[np.float64]) -> Value:
    return Value(name=value.name, unit=unit, low=value.low, high=value.high)


@lowers(aten.layer_norm.default)
def _layer_norm(made: Compiler, node: fx.Node) -> Value:
    """Divide the distance from the mean by the standard deviation, both times the length: whole numbers all the way."""
    shape = trace.shape(node)
    _, lengths, weight, bias, epsilon = arguments(node, None, None, None, None, 1e-5)[:5]
    axes = tuple(range(len(shape) - len(lengths), len(shape)))
    count = int(np.prod([shape[axis] for axis in axes]))
    value = _narrowed(made, node, count)
    builder = made.builder
    distance, deviation = _distances(builder, value, axes, count, float(epsilon))
    reach = math.isqrt(count) + 1  # no number is more standard deviations from the mean
    normal = _divided(builder, distance, deviation, RESULT_BITS, (-reach << RESULT_BITS, reach << RESULT_BITS))
    return _scaled_and_shifted(made, normal, weight, bias)


def _narrowed(made: Compiler, node: fx.Node, count: int) -> Value:
    """Return the operand narrow enough for the squares of its distances to be summed."""
    bits = min(20, (59 - 3 * count.bit_length()) // 2)
    if bits < 8:
        raise BitatlasError(f"layer norm must be over few enough numbers for sums in 63 bits, not {count} ({node.name})")
    return narrow(made, arguments(node)[0], bits)


def _distances(builder: Builder, value: Value, axes: tuple[int, ...], count: int, epsilon: float) -> tuple[Value, Value]:
    """Return the distance from the mean times ``count``, and the standard deviation times ``count``, in one unit."""
    unit, limit = value.unit, 2 * count * value.high
    total = builder.emit(Sum(axes=axes), [value], unit, -limit // 2, limit // 2)
    times = builder.emit(_times(count), [value], unit, -limit // 2, limit // 2)
    distance = builder.emit(Subtract(), [times, total], unit, -limit, limit)
    square = builder.emit(Multiply(), [distance, distance], unit, 0, limit * limit)
    summed = builder.emit(Sum(axes=axes), [square], unit, 0, count * limit * limit)
    half = np.array(count // 2, np.int64)
    raised = builder.emit(AddConstant(numbers=half), [summed], unit, 0, summed.high + count)
    variance = builder.emit(FloorDivide(by=count), [raised], unit, 0, raised.high // count)
    least = round(epsilon * (count / float(unit.flat[0])) ** 2)
    if least.bit_length() > 60:
        raise BitatlasError(f"epsilon of a layer norm must be small beside its numbers, not {epsilon} ({builder.where})")
    safe = builder.emit(AddConstant(numbers=np.array(max(least, 1), np.int64)), [variance], unit, 1, variance.high + max(least, 1))
    return distance, builder.emit(SquareRoot(), [safe], unit, 1, math.isqrt(safe.high) + 1)


def _scaled_and_shifted(made: Compiler, value: Value, weight: fx.Node | None, bias: fx.Node | None) -> Value:
    """Return the normalised numbers times the layer norm's weight plus its bias, both stored in whole numbers."""
    builder = made.builder
    if weight is not None:
        factors = np.round(np.asarray(made.made[weight]) * 2**FACTOR_BITS).astype(np.int64)
        largest = max(-value.low, value.high) * int(np.abs(factors).max(initial=1))
        shape = (1,) * (value.unit.ndim - factors.ndim) + factors.shape
        step = MultiplyConstant(numbers=factors.reshape(shape))
        value = builder.emit(step, [value], _scalar_unit(value, RESULT_BITS + FACTOR_BITS), -largest, largest)
    if bias is None:
        return value
    stored = np.asarray(made.made[bias])
    return builder.add_constant(value, stored.reshape((1,) * (value.unit.ndim - stored.ndim) + stored.shape))
