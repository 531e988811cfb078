"""From a network and what fills its slots to a program of whole numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from dse import trace
from dse.assignment import Assignment
from dse.hardware.accumulate import Accumulate, Operand
from dse.hardware.builder import Builder, Unit, exact_ratio
from dse.hardware.observing import Observed, observe
from dse.hardware.program import INPUT, Program, Value
from dse.hardware.steps import Compare
from dse.network import SLOTS, Filling, Layer, Network, Place, Role
from dse.quantize import ActivationQuantizer, Preparation, StoredWeight, WholeBias
from dse.trace import aten
from formats import Accumulator, Format
from formats.arithmetic.products import lsb_exponent
from formats.boundaries import boundaries, level_codes
from formats.errors import BitatlasError, InvalidValueError
from formats.quantizer import QuantizedTensor


@dataclass(kw_only=True)
class Compiler:
    """What is known while a graph is walked."""

    network: Network
    fillings: Mapping[tuple[str, Place], Filling]
    assignment: Assignment
    #: what each node's result is like on calibration samples
    observed: Mapping[fx.Node, Observed]
    builder: Builder = field(default_factory=Builder)
    #: results so far: values, stored tensors of real numbers, float64, or lengths
    made: dict[fx.Node, Value | NDArray[np.float64] | int] = field(default_factory=dict)
    operands: dict[tuple[str, Role], tuple[Value, Format, float]] = field(default_factory=dict)
    #: quantized operands by tensor, format and scale: layers that read one tensor alike share the quantizer
    quantized: dict[tuple[str, str, float], Value] = field(default_factory=dict)

    def value(self, node: Any) -> Value:
        """Return the computed result of a node."""
        found = self.made.get(node)
        if not isinstance(found, Value):
            raise BitatlasError(f"operand must be computed, not stored, in whole-number arithmetic ({self.builder.where})")
        return found

    def sample_axes(self, node: fx.Node) -> tuple[int, ...]:
        """Return the axes of a node's result that are longer for more samples."""
        both = zip(trace.shape(node), self.observed[node].shape, strict=True)
        return tuple(axis for axis, (one, several) in enumerate(both) if one != several)


#: what lowers an operator: (compiler, node) to its value
Lowering = Callable[[Compiler, fx.Node], Value]
LOWERINGS: dict[object, Lowering] = {}


def lowers(*targets: object) -> Callable[[Lowering], Lowering]:
    """Register what lowers these operators."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(targets, function))
        return function

    return register


def compile_program(preparation: Preparation, assignment: Assignment) -> Program:
    """Return the program of an assignment: exact accumulators where it says ``float32``, the hardware's requantizers between.

    Raises ``BitatlasError`` for operators and quantizers that have no whole-number form, naming the layer or the operator.
    """
    from dse.hardware import elementwise, functions, rearranging  # noqa: F401 - they register what lowers operators

    assignment = assignment.in_whole_numbers()
    prepared = preparation.after(assignment.steps)
    _refuse(assignment, prepared.network)
    fillings = prepared.fillings(assignment)
    network = prepared.network
    made = Compiler(
        network=network,
        fillings=fillings,
        assignment=assignment,
        observed=observe(network, fillings, prepared.calibration.images),
    )
    fmt, scale = _input_quantizer(made)
    output = _walk(made, fmt, scale)
    (last,) = (node for node in network.graph_module.graph.nodes if node.op == "output")
    return Program(
        model=assignment.model,
        input_format=fmt,
        input_scale=scale,
        instructions=tuple(made.builder.instructions),
        output=output,
        classes=trace.shape(last.all_input_nodes[0])[-1],
        operands=made.operands,
    )


def _refuse(assignment: Assignment, network: Network) -> None:
    """Refuse by the quantizers alone, before any weight is prepared."""
    for layer in network.layers:
        weight = assignment.layers[layer.name].weight
        if layer.weight is not None and weight.granularity.name not in ("tensor", "channel"):
            raise InvalidValueError(
                f"weight must have scales by tensor or channel, not {weight}, for sums of whole numbers "
                f"(layer {layer.name!r}); nearest: FORMAT:channel:mse"
            )


def _walk(made: Compiler, fmt: Format, scale: float) -> Value:
    builder = made.builder
    for node in made.network.graph_module.graph.nodes:
        builder.where = node.name
        if node.op == "placeholder":
            made.made[node] = _input(fmt, scale, len(trace.shape(node)))
        elif node.op == "get_attr":
            stored = trace.attribute(made.network.graph_module, node)
            made.made[node] = stored.detach().to(torch.float64).numpy()
        elif node.op == "call_module":
            _slot(made, node)
        elif node.op == "output":
            (result,) = node.all_input_nodes
            return builder.unify(made.value(result))
        else:
            _operator(made, node)
    raise AssertionError("a graph has an output")


def _input(fmt: Format, scale: float, axes: int) -> Value:
    operand = Operand(format=fmt)
    low, high = (int(operand.tables[0].min()), int(operand.tables[0].max())) if operand.plain else (0, 2**fmt.bits - 1)
    return Value(name=INPUT, unit=_unit(fmt, scale, axes), low=low, high=high, given=True)


def _unit(fmt: Format, scale: float, axes: int) -> Unit:
    return np.full((1,) * axes, np.ldexp(np.float64(np.float32(scale)), lsb_exponent(fmt)))


def arguments(node: fx.Node, *defaults: Any) -> tuple[Any, ...]:
    """Return a node's arguments, those left out from the end of ``defaults``."""
    return (*node.args, *defaults[len(node.args) :])


def _operator(made: Compiler, node: fx.Node) -> None:
    if node.target is aten.sym_size.int:  # of one sample: shapes are given without their number
        source, axis = arguments(node)
        made.made[node] = trace.shape(source)[axis]
        return
    layer = _layer_of(made, node)
    if layer is not None:
        made.made[node] = _layer(made, layer, node)
        return
    if not any(isinstance(made.made.get(source), Value) for source in node.all_input_nodes):
        made.made[node] = _constant(made, node)
        return
    lowering = LOWERINGS.get(node.target)
    if lowering is None:
        known = "float arithmetic: dse evaluate without --arithmetic exact, targets qdq, qonnx and codebook"
        raise BitatlasError(f"operator must have a whole-number form, not be {node.target} ({node.name}); it runs in {known}")
    made.made[node] = lowering(made, node)


def _constant(made: Compiler, node: fx.Node) -> NDArray[np.float64] | int:
    """Return an operator's result on stored tensors and lengths alone."""

    def stored(argument: fx.Node) -> Any:
        found = made.made[argument]
        return torch.from_numpy(np.array(found)) if isinstance(found, np.ndarray) else found

    given, options = fx.map_arg((node.args, node.kwargs), stored)
    operator: Any = node.target
    result = operator(*given, **options)
    return np.asarray(result.to(torch.float64).numpy()) if isinstance(result, torch.Tensor) else int(result)


def _slot_of(node: fx.Node) -> tuple[int, Place]:
    place, _, index = str(node.target).removeprefix(f"{SLOTS}.").rpartition("_")
    return int(index), place  # type: ignore[return-value]


def _layer_of(made: Compiler, node: fx.Node) -> Layer | None:
    slot = node.args[1] if len(node.args) > 1 else None
    if isinstance(slot, fx.Node) and slot.op == "call_module":
        return made.network.layers[_slot_of(slot)[0]]
    return None


def _slot(made: Compiler, node: fx.Node) -> None:
    """Quantize an operand as it passes; stored weights and biases are taken from what fills the slot."""
    index, place = _slot_of(node)
    layer = made.network.layers[index]
    filling = made.fillings.get((layer.name, place))
    if not isinstance(filling, ActivationQuantizer) or place == "bias":
        return
    made.builder.where = f"layer {layer.name!r}"
    source = node.args[0]
    value = made.value(source)
    key = (value.name, filling.format.name, filling.scale)
    if key not in made.quantized:
        made.quantized[key] = quantized(made.builder, value, filling.format, filling.scale)
    made.made[node] = made.quantized[key]
    made.operands[layer.name, place] = made.quantized[key], filling.format, filling.scale


def quantized(builder: Builder, value: Value, fmt: Format, scale: float) -> Value:
    """Return a value in a format: its numbers where these are consecutive, by multiplier or shift; else codes, by thresholds."""
    unit = _unit(fmt, scale, value.unit.ndim)
    if value.given:  # the input comes in this very format
        return value
    operand = Operand(format=fmt)
    if operand.plain:
        low, high = (np.array(end) for end in (operand.tables[0].min(), operand.tables[0].max()))
        return builder.clamp(builder.rescale(value, unit), low, high)
    codes = level_codes(fmt)
    thresholds = _thresholds(boundaries(fmt, "nearest_even"), np.float64(np.float32(scale)), value.unit)
    return builder.emit(Compare(thresholds=thresholds, codes=codes), [value], unit, 0, 2**fmt.bits - 1)


def _thresholds(ends: NDArray[np.float32], scale: np.float64, unit: Unit) -> NDArray[np.int64]:
    """Return the smallest whole number of ``unit`` that reaches each boundary, exactly: int64, (*unit.shape, levels - 1)."""
    limit = 2**62
    rows = []
    for one in unit.reshape(-1):
        ratio = exact_ratio(float(one / scale))
        rows.append([min(max(ceil(Fraction(float(end)) / ratio), -limit), limit) for end in ends])
    return np.array(rows, np.int64).reshape(*unit.shape, len(ends))


def _layer(made: Compiler, layer: Layer, node: fx.Node) -> Value:
    """Lower a layer: codes to the content of its accumulators."""
    made.builder.where = f"layer {layer.name!r}"
    activation, a_format, a_scale = made.operands[layer.name, "activation"]
    accumulator = Accumulator.parse(made.assignment.layers[layer.name].accumulator)
    operands = [activation]
    axes = len(trace.shape(node))
    geometry = _geometry(node) if layer.kind == "convolution" else ((), (), ())
    weight, w_format, w_scale, bias = _weight(made, layer)
    if isinstance(weight, Value):
        operands.append(weight)
    step = Accumulate(
        layer=layer.name,
        kind=layer.kind,
        activation=Operand(format=a_format),
        weight=Operand(format=w_format),
        accumulator=accumulator,
        codes=None if isinstance(weight, Value) else weight,
        bias=bias,
        geometry=geometry[:3],
        groups=arguments(node, *[1] * 7)[6] if layer.kind == "convolution" else 1,
        bound=0,
    )
    step = step.bounded(made.network.operand_shape(layer.name, "weight")[-2] if isinstance(weight, Value) else 0)
    channel = 1 if layer.kind == "convolution" else axes - 1
    unit = np.reshape(w_scale, [-1 if axis == channel else 1 for axis in range(axes)]) * np.ldexp(
        np.float64(np.float32(a_scale)), lsb_exponent(a_format) + lsb_exponent(w_format)
    )
    return made.builder.emit(step, operands, unit / step.units, -step.reach, step.reach)


def _weight(
    made: Compiler, layer: Layer
) -> tuple[Value | NDArray[np.int64], Format, NDArray[np.float64], NDArray[np.int64] | None]:
    """Return a layer's weight as codes or as a computed value, its format, its scales, and the bias in LSBs."""
    filling = made.fillings[layer.name, "weight"]
    if not isinstance(filling, StoredWeight):
        value, fmt, scale = made.operands[layer.name, "weight"]
        return value, fmt, np.float64(np.float32(scale)).reshape(1), None
    encoded, bias = filling.encoded, made.fillings[layer.name, "bias"]
    assert isinstance(encoded, QuantizedTensor)
    assert isinstance(bias, WholeBias)
    return encoded.codes.astype(np.int64), encoded.quantizer.format, encoded.scales.astype(np.float64), bias.numbers


def _geometry(node: fx.Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return stride, padding and dilation of a convolution, by axis."""
    axes = len(trace.shape(node)) - 2

    def by_axis(position: int, default: int) -> tuple[int, ...]:
        given: Any = node.args[position] if len(node.args) > position else default
        if given in ("valid", "same"):
            return _named_padding(node, given, by_axis(5, 1))
        listed = [given] if isinstance(given, int) else list(given)
        return tuple(listed * axes if len(listed) == 1 else listed)

    return by_axis(3, 1), by_axis(4, 0), by_axis(5, 1)


def _named_padding(node: fx.Node, name: str, dilation: tuple[int, ...]) -> tuple[int, ...]:
    if name == "valid":
        return (0,) * len(dilation)
    weight: Any = node.args[1]
    reach = [step * (size - 1) for step, size in zip(dilation, trace.shape(weight.args[0])[2:], strict=True)]
    if any(each % 2 for each in reach):
        raise BitatlasError(f"padding must be the same on both sides, not {name!r} around an even kernel ({node.name})")
    return tuple(each // 2 for each in reach)


def _input_quantizer(made: Compiler) -> tuple[Format, float]:
    """Return the one quantizer that the network's input goes through, in whatever order its numbers are."""
    from dse.hardware.rearranging import REARRANGING

    (placeholder,) = (node for node in made.network.graph_module.graph.nodes if node.op == "placeholder")
    found: dict[tuple[str, float], Format] = {}
    waiting = [placeholder]
    while waiting:
        for reader in waiting.pop().users:
            filling = None
            if reader.op == "call_module":
                index, place = _slot_of(reader)
                filling = made.fillings.get((made.network.layers[index].name, place))
            if isinstance(filling, ActivationQuantizer):
                found[filling.format.name, filling.scale] = filling.format
            elif reader.target in REARRANGING:
                waiting.append(reader)
            elif reader.target is not aten.sym_size.int:
                raise BitatlasError(
                    f"input must be quantized before anything else reads it, not by {reader.target} ({reader.name})"
                )
    if len(found) != 1:
        names = ", ".join(name for name, _ in found) or "none"
        raise BitatlasError(f"input must go through one quantizer in whole-number arithmetic, not {len(found)} ({names})")
    ((_, scale),) = found
    return next(iter(found.values())), scale
