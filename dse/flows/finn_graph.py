"""An exported QONNX graph as FINN's streamlining reads it.

FINN makes a threshold unit of a ReLU and the quantizer right behind it. Our quantizers stand right before the layer that reads
them: here they go back to the ReLU, past what moves values or takes the largest, and one takes the place of all that are equal.
The input becomes codes, as the layers' own inputs are: what makes codes of pixels stays outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dse.flows.qonnx_execution import readable, with_batch

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


def prepare(model: onnx.ModelProto) -> Prepared:
    """Return a graph for one sample at a time that computes the same from the input's codes."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    with readable():
        wrapper = with_batch(ModelWrapper(model, make_deepcopy=True), 1).transform(InferShapes())
        graph = wrapper.graph
        while _raise_one(graph) or _merge_one(graph):
            pass
        shapes = {name: wrapper.get_tensor_shape(name) for node in graph.node for name in node.output}
        _flatten_at_once(graph, shapes)
        kind, scale = _input_as_codes(wrapper)
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
