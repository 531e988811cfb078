"""An exported QONNX graph as hls4ml reads it: static shapes, channels last, every constant a fixed-point number.

hls4ml's own reading of ``Quant`` is exact where the scale is one power of two. Weights with a power of two for each channel, and
minifloats, become fixed-point numbers of one common LSB here: the same values in a few more bits, which constants do not cost.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dse.export import qonnx_operators
from dse.export.qonnx_execution import readable, with_batch
from dse.flows.fixed_point import range_of
from formats.errors import BitatlasError

#: operators on which everything but their shapes is the same for every element
ELEMENTWISE = ("Quant", "Relu")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A graph that hls4ml reads."""

    model: onnx.ModelProto
    #: whether it takes images with their channels last
    channels_last: bool


def prepare(model: onnx.ModelProto) -> Prepared:
    """Return a graph for hls4ml that computes the same.

    Every operator is named by a word of C++; that of a layer by ``identifier`` of the layer's name. Raises ``BitatlasError`` where
    axes cannot be brought into hls4ml's order.
    """
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueParameterTensors
    from qonnx.transformation.infer_shapes import InferShapes

    with readable():
        wrapper = with_batch(ModelWrapper(model, make_deepcopy=True), 1).transform(InferShapes())
        graph = wrapper.graph
        _replace_means(graph, {name: wrapper.get_tensor_shape(name) for name in _tensors(graph)})
        _round_before_flattening(graph)
        _fix_constants(graph)
        _rename(graph)
        averages = _pretend_largest(graph)
        del graph.value_info[:]
        wrapper = wrapper.transform(InferShapes()).transform(GiveUniqueParameterTensors())
        channels_last = any(node.op_type in ("Conv", "MaxPool") for node in graph.node)
        if channels_last:
            wrapper = wrapper.transform(ConvertToChannelsLastAndClean(make_input_channels_last=True))
        wrapper = wrapper.transform(InferShapes())
        left = next((node for node in wrapper.graph.node if node.op_type == "Transpose"), None)
        if left is not None:
            raise BitatlasError("axes must be in hls4ml's order after a change of layout, not need a Transpose in between")
        _rename(wrapper.graph)
        wrapper = wrapper.transform(GiveReadableTensorNames())
    for node in wrapper.graph.node:
        node.op_type = "AveragePool" if node.name in averages else node.op_type
    # a wrapper made anew gives every initializer the shape that hls4ml looks for
    return Prepared(model=ModelWrapper(wrapper.model).model, channels_last=channels_last)


def identifier(name: str) -> str:
    """Return a word of C++ for a name."""
    word = re.sub(r"\W+", "_", name).strip("_")
    return word if word[:1].isalpha() else f"n{word}"


def _tensors(graph: onnx.GraphProto) -> list[str]:
    return [name for node in graph.node for name in (*node.input, *node.output) if name]


def _replace_means(graph: onnx.GraphProto, shapes: Mapping[str, list[int] | None]) -> None:
    """Write means over both axes of an image as a pool of the image's size, and what drops axes as ``Flatten``."""
    for node in list(graph.node):
        shape = shapes.get(node.input[0]) if node.input else None
        result = shapes.get(node.output[0])
        if shape is None or result is None:
            continue
        if node.op_type in ("ReduceMean", "GlobalAveragePool"):
            _replace(graph, node, _as_pool(node, shape, result))
        elif node.op_type == "Reshape" and len(result) == 2 and result[0] == shape[0]:
            _replace(graph, node, [helper.make_node("Flatten", [node.input[0]], list(node.output), name=node.name)])


def _as_pool(node: onnx.NodeProto, shape: list[int], result: list[int]) -> list[onnx.NodeProto]:
    """Return a pool for a mean over both axes of an image, and what drops them where the mean does."""
    if len(shape) != 4 or result not in ([*shape[:2], 1, 1], shape[:2]):
        raise BitatlasError(f"mean for hls4ml must be over both axes of an image, not turn {shape} into {result} ({node.name})")
    drops = len(result) == 2
    output = node.output[0]
    pooled = f"{output}/pooled" if drops else output
    size = shape[2:]
    pool = helper.make_node(
        "AveragePool", [node.input[0]], [pooled], name=f"{node.name}_pool", kernel_shape=size, strides=size, pads=[0] * 4
    )
    return [pool, helper.make_node("Flatten", [pooled], [output], name=f"{node.name}_flat")] if drops else [pool]


def _pretend_largest(graph: onnx.GraphProto) -> set[str]:
    """Turn average pools into pools of the largest, the one kind that qonnx changes the layout of; return their names."""
    averages = [node for node in graph.node if node.op_type == "AveragePool"]
    for node in averages:
        kept = [attribute for attribute in node.attribute if attribute.name != "count_include_pad"]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.op_type = "MaxPool"
    return {node.name for node in averages}


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, others: list[onnx.NodeProto]) -> None:
    place = list(graph.node).index(node)
    del graph.node[place]
    for number, other in enumerate(others):
        graph.node.insert(place + number, other)


def _round_before_flattening(graph: onnx.GraphProto) -> None:
    """Move ``Flatten`` past what treats all elements alike, to right before the product, whose weights take up the order."""
    while True:
        readers = {name: [node for node in graph.node if name in node.input] for name in _tensors(graph)}
        for node in graph.node:
            after = readers.get(node.output[0], [])
            if node.op_type == "Flatten" and len(after) >= 1 and all(_elementwise(other) for other in after):
                _swap(graph, node, after)
                break
        else:
            return


def _elementwise(node: onnx.NodeProto) -> bool:
    return node.op_type in ELEMENTWISE


def _swap(graph: onnx.GraphProto, flatten: onnx.NodeProto, after: list[onnx.NodeProto]) -> None:
    """Let every reader of a flattened tensor read it as it was, and flatten its result instead."""
    for number, node in enumerate(after):
        flat, deep = node.output[0], f"{node.output[0]}/deep"
        node.input[0], node.output[0] = flatten.input[0], deep
        made = helper.make_node("Flatten", [deep], [flat], name=flatten.name if not number else f"{flatten.name}_{number}")
        graph.node.insert(list(graph.node).index(node) + 1, made)
    graph.node.remove(flatten)


def _fix_constants(graph: onnx.GraphProto) -> None:
    """Put one quantizer with one power of two behind every stored weight and bias."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.domain == qonnx_operators.DOMAIN and node.input[0] in stored:
            values = numpy_helper.to_array(stored[node.input[0]])
            _replace(graph, node, [_quant(graph, node.input[0], node.output[0], values)])
    for node in list(graph.node):
        places = {"Conv": (2,), "Add": (0, 1)}.get(node.op_type, ())
        for place in places:
            if place < len(node.input) and node.input[place] in stored:
                name = node.input[place]
                fixed = f"{name}/fixed"
                quant = _quant(graph, name, fixed, numpy_helper.to_array(stored[name]))
                graph.node.insert(list(graph.node).index(node), quant)
                node.input[place] = fixed


def _quant(graph: onnx.GraphProto, source: str, output: str, values: NDArray[np.float32]) -> onnx.NodeProto:
    fixed = range_of(values).type
    names = []
    for name, value in (("scale", 2.0**fixed.exponent), ("zero", 0), ("bits", max(fixed.bits, 1 + fixed.signed))):
        names.append(f"{output}/fixed/{name}")
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), names[-1]))
    return helper.make_node(
        "Quant",
        [source, *names],
        [output],
        name=f"{output}_fixed",
        domain=qonnx_operators.DOMAIN,
        signed=int(fixed.signed),
        narrow=0,
        rounding_mode=qonnx_operators.ROUNDING,
    )


def _rename(graph: onnx.GraphProto) -> None:
    """Name every operator by a word that no other has."""
    taken: set[str] = set()
    for node in graph.node:
        first = identifier(node.name or node.op_type)
        word, number = first, 2
        while word in taken:
            word, number = f"{first}_{number}", number + 1
        taken.add(word)
        node.name = word
