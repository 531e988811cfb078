"""An exported QONNX graph as FINN's streamlining reads it.

FINN makes a threshold unit of a ReLU and the quantizer right behind it. Our quantizers stand right before the layer that reads
them: here they go back to the ReLU, past what moves values or takes the largest, and one takes the place of all that are equal.
The input becomes codes, as the layers' own inputs are: what makes codes of pixels stays outside.

The thresholds are written here, from the formats' own boundaries: FINN's would round every half up, where the emulator and QONNX
round to even, and sums that are whole numbers are halves often.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dse.export import qonnx_operators
from dse.export.qonnx_execution import readable, with_batch
from dse.network import Fillings
from dse.quantize import ActivationQuantizer, StoredWeight, WholeBias
from formats import Format
from formats.boundaries import boundaries, level_codes
from formats.quantizer import QuantizedTensor

#: operators that a quantizer may change places with: they give values of their input, in an order that none changes
MOVING = ("MaxPool", "Flatten", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Transpose")
QUANTIZERS = ("Quant", "BipolarQuant", "FloatQuant")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A graph for FINN."""

    model: onnx.ModelProto
    #: type of the input's codes by QONNX' name, and what one is worth; None where the input stays float
    input_type: str | None
    input_scale: float | None


def prepare(model: onnx.ModelProto, fillings: Fillings) -> Prepared:
    """Return a graph for one sample at a time that computes the same from the input's codes.

    ``model`` is what the target ``qonnx`` writes for ``fillings``.
    """
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    with readable():
        wrapper = with_batch(ModelWrapper(model, make_deepcopy=True), 1).transform(InferShapes())
        graph = wrapper.graph
        _take_biases_as_stored(graph)
        while _raise_one(graph) or _merge_one(graph):
            pass
        shapes = {name: wrapper.get_tensor_shape(name) for node in graph.node for name in node.output}
        _flatten_at_once(graph, shapes)
        kind, scale = _input_as_codes(wrapper)
        _write_thresholds(graph, fillings)
        del graph.value_info[:]
        wrapper = wrapper.transform(InferShapes())
    return Prepared(model=wrapper.model, input_type=kind, input_scale=scale)


def _readers(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if tensor in node.input]


def _producer(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    return next((node for node in graph.node if tensor in node.output), None)


def _of_activations(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    stored = {tensor.name for tensor in graph.initializer}
    return (node for node in graph.node if node.op_type in QUANTIZERS and node.input[0] not in stored)


def _parameters(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[object, ...]:
    """Return what a quantizer does, to be compared."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    numbers = tuple(numpy_helper.to_array(stored[name]).tobytes() for name in node.input[1:])
    attributes = tuple(sorted((item.name, str(helper.get_attribute_value(item))) for item in node.attribute))
    return (node.op_type, *numbers, *attributes)


def _take_biases_as_stored(graph: onnx.GraphProto) -> None:
    """Take out the quantizers of biases, which leave them as they are; those of weights stay."""
    stored = {tensor.name for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Quant" and node.input[0] in stored]:
        for reader in _readers(graph, node.output[0]):
            places = [place for place, name in enumerate(reader.input) if name == node.output[0]]
            if reader.op_type == "Add" or places == [2]:
                reader.input[places[0]] = node.input[0]
        if not _readers(graph, node.output[0]):
            graph.node.remove(node)


def _raise_one(graph: onnx.GraphProto) -> bool:
    """Move one quantizer to before the operator that it reads from, if nothing else reads from there; return whether one was."""
    for node in _of_activations(graph):
        before = _producer(graph, node.input[0])
        if before is None or before.op_type not in MOVING or len(_readers(graph, node.input[0])) != 1:
            continue
        source, between, output = before.input[0], before.output[0], node.output[0]
        raised = f"{output}/raised"
        node.input[0], node.output[0] = source, raised
        before.input[0], before.output[0] = raised, output
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        graph.node.remove(node)
        graph.node.insert(list(graph.node).index(before), kept)
        for value in [value for value in graph.value_info if value.name == between]:
            graph.value_info.remove(value)
        return True
    return False


def _merge_one(graph: onnx.GraphProto) -> bool:
    """Let two equal quantizers of a tensor be one; return whether two were."""
    known: dict[object, onnx.NodeProto] = {}
    for node in _of_activations(graph):
        key = (node.input[0], _parameters(graph, node))
        if key not in known:
            known[key] = node
            continue
        for reader in _readers(graph, node.output[0]):
            for place, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[place] = known[key].output[0]
        graph.node.remove(node)
        return True
    return False


def _flatten_at_once(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Let the graph take vectors where it begins by making vectors of its input."""
    given = graph.input[0]
    readers = _readers(graph, given.name)
    if len(readers) == 1 and readers[0].op_type in QUANTIZERS:
        quantizer = readers[0]
        after = _readers(graph, quantizer.output[0])
        if len(after) == 1 and after[0].op_type in ("Flatten", "Reshape"):
            shape = shapes.get(after[0].output[0])
            if shape is not None and len(shape) == 2:
                quantizer.output[0] = after[0].output[0]
                graph.node.remove(after[0])
                given.type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape))


def _input_as_codes(wrapper: Any) -> tuple[str | None, float | None]:
    """Put a multiplication by the scale in the place of the input's quantizer where it is all that reads the input."""
    from qonnx.core.datatype import DataType

    graph = wrapper.graph
    given = graph.input[0].name
    readers = _readers(graph, given)
    if len(readers) != 1 or readers[0].op_type != "Quant":
        return None, None
    node = readers[0]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale, zero, bits = (float(np.asarray(stored[name]).reshape(())) for name in node.input[1:])
    signed = {item.name: helper.get_attribute_value(item) for item in node.attribute}.get("signed", 1)
    if zero:
        return None, None
    kind = f"{'INT' if signed else 'UINT'}{int(bits)}"
    place = list(graph.node).index(node)
    name = node.input[1]
    graph.node.remove(node)
    graph.node.insert(place, helper.make_node("Mul", [given, name], [node.output[0]], name=node.name))
    wrapper.set_tensor_datatype(given, DataType[kind])
    return kind, scale


def _write_thresholds(graph: onnx.GraphProto, fillings: Fillings) -> None:
    """Put thresholds and a multiplication by the scale in the place of every activation's quantizer, and of a ReLU before it."""
    for node in list(_of_activations(graph)):
        layer, _, rest = node.name.rpartition("/activation/")
        quantizer = fillings.get((layer, "activation"))
        assert rest
        assert isinstance(quantizer, ActivationQuantizer)
        before = _producer(graph, node.input[0])
        after_relu = before is not None and before.op_type == "Relu"
        unit = _unit(graph, before.input[0] if before is not None and after_relu else node.input[0], fillings)
        thresholds, first, kind = thresholds_of(quantizer.format, np.float32(quantizer.scale), after_relu, unit)
        names = [f"{node.name}/thresholds", f"{node.name}/unit"]
        graph.initializer.append(numpy_helper.from_array(thresholds[np.newaxis], names[0]))
        graph.initializer.append(numpy_helper.from_array(np.array(quantizer.scale, np.float32), names[1]))
        source = before.input[0] if before is not None and after_relu else node.input[0]
        steps, levels = f"{node.output[0]}/steps", quantizer.format.values[level_codes(quantizer.format)]
        binary = kind == "BIPOLAR"
        assert binary or (np.diff(levels) == 1).all()
        made = [
            helper.make_node(
                "MultiThreshold",
                [source, names[0]],
                [steps],
                name=node.name,
                domain=qonnx_operators.DOMAIN,
                out_dtype=kind,
                out_scale=2.0 if binary else 1.0,
                out_bias=float(first),
            ),
            helper.make_node("Mul", [steps, names[1]], [node.output[0]], name=f"{node.name}/Mul"),
        ]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for number, new in enumerate(made):
            graph.node.insert(place + number, new)
        if before is not None and after_relu and not _readers(graph, before.output[0]):
            graph.node.remove(before)


def _unit(graph: onnx.GraphProto, tensor: str, fillings: Fillings) -> float:
    """Return the power of two that every number in a layer's result is a whole multiple of; 0 where there is none."""
    node = _producer(graph, tensor)
    while node is not None and node.op_type == "Add":
        node = next((before for name in node.input if (before := _producer(graph, name)) is not None), None)
    layer = "" if node is None else node.name
    activation, weight, bias = (fillings.get((layer, place)) for place in ("activation", "weight", "bias"))
    if not isinstance(activation, ActivationQuantizer) or not isinstance(weight, StoredWeight) or not isinstance(bias, WholeBias):
        return 0.0
    assert isinstance(weight.encoded, QuantizedTensor)
    units = activation.scale * weight.encoded.scales.astype(np.float64)
    return float(units.min()) if (np.frexp(units)[0] == 0.5).all() else 0.0


def thresholds_of(fmt: Format, scale: np.float32, after_relu: bool, unit: float) -> tuple[NDArray[np.float32], int, str]:
    """Return from which numbers on each next level is taken, the first level, and QONNX' type of the levels.

    After a ReLU only levels from zero on are reached. Where numbers are whole multiples of ``unit``, a threshold above a tie is put
    half a unit above it: FINN will take biases off, and divide by scales, in float32, which the next float32 would not outlive.
    """
    levels, edges = fmt.values[level_codes(fmt)], boundaries(fmt, "nearest_even")
    if fmt.name == "binary":
        return (edges * scale).astype(np.float32), -1, "BIPOLAR"
    marks = (edges * scale).astype(np.float32)
    if 0 < unit < scale:
        ties = (levels[1:] + levels[:-1]) / 2
        marks = ((ties * scale) + np.where(edges > ties, unit / 2, 0)).astype(np.float32)
    if after_relu:
        marks, levels = marks[levels[1:] > 0], levels[levels >= 0]
    first, last = int(levels[0]), int(levels[-1])
    kind = f"UINT{last.bit_length()}" if first >= 0 else f"INT{max(last, -first - 1).bit_length() + 1}"
    return marks, first, kind
