"""Nodes that stand for one quantizer in this project's own exports, put back together.

An export may clip before and after QuantizeLinear, or keep a format in another type. All nodes of a quantizer bear the names of its
layer and operand. They are taken for the format that the file tells of where they give what it gives: onnxruntime runs them on
every level and to both sides of every boundary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dse.assignment import LayerAssignment
from dse.imports.graph import QUANTIZER, Graph, Quantizing, Step
from dse.imports.own_metadata import EXPONENTS
from dse.network import ROLES
from formats import Format, Quantizer
from formats.boundaries import boundaries, level_codes

OPERATOR = "Quantizer"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Group:
    nodes: list[onnx.NodeProto]
    source: str
    output: str
    scale: np.float32


def put_together(model: onnx.ModelProto, told: Mapping[str, LayerAssignment]) -> onnx.ModelProto:
    """Return the model with one node for every computed operand's quantizer that gives what the file tells of."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    replaced: dict[str, onnx.NodeProto | None] = {}
    for name, layer in told.items():
        for role in ROLES:
            quantizer = layer.quantizer(role)
            group = _group(model, f"{name}/{role}", stored)
            if group is None or not isinstance(quantizer, Quantizer):
                continue
            scale = _scale(model, group, quantizer.format)
            if scale is not None:
                replaced.update(dict.fromkeys((node.name for node in group.nodes[:-1]), None))
                replaced[group.nodes[-1].name] = helper.make_node(
                    OPERATOR,
                    [group.source],
                    [group.output],
                    name=f"{name}/{role}",
                    domain=QUANTIZER,
                    format=quantizer.format_name,
                    scale=float(scale),
                )
    kept = [replaced.get(node.name, node) for node in model.graph.node]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(node for node in kept if node is not None)
    return made


def read(graph: Graph, step: Step) -> bool:
    """Read such a node."""
    found = Quantizing(format_name=step.attributes["format"], scale=float(step.attributes["scale"]))
    graph.quantize(step, step.inputs[0], step.outputs[0], found)
    return True


def _group(model: onnx.ModelProto, prefix: str, stored: Mapping[str, onnx.TensorProto]) -> _Group | None:
    """Return the nodes with a prefix where they turn one computed tensor into another."""
    nodes = [node for node in model.graph.node if node.name.startswith(f"{prefix}/")]
    made = {name for node in nodes for name in node.output}
    sources = {name for node in nodes for name in node.input if name and name not in made and name not in stored}
    scale = stored.get(f"{prefix}/scale")
    if len(sources) != 1 or scale is None or any(node.domain.startswith("qonnx") for node in nodes):
        return None
    found = numpy_helper.to_array(scale)
    if found.size != 1:
        return None
    return _Group(nodes=nodes, source=sources.pop(), output=nodes[-1].output[0], scale=np.float32(found.reshape(())))


def _scale(model: onnx.ModelProto, group: _Group, fmt: Format) -> np.float32 | None:
    """Return the scale under which the format gives what the nodes give."""
    import onnxruntime

    names = {name for node in group.nodes for name in node.input}
    graph = helper.make_graph(
        group.nodes,
        "quantizer",
        [helper.make_tensor_value_info(group.source, TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info(group.output, TensorProto.FLOAT, [None])],
        [tensor for tensor in model.graph.initializer if tensor.name in names],
    )
    alone = helper.make_model(
        graph, opset_imports=model.opset_import, functions=model.functions, ir_version=min(model.ir_version, 10)
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for exponent in EXPONENTS:
        scale = np.ldexp(group.scale, exponent).astype(np.float32)
        if np.isfinite(scale) and scale > 0:
            x = _probes(fmt, scale)
            if np.array_equal(session.run(None, {group.source: x})[0], fmt.quantize(x, scale)):
                return np.float32(scale)
    return None


def _probes(fmt: Format, scale: np.float32) -> NDArray[np.float32]:
    """Return levels, boundaries and their neighbours, and numbers beyond both ends, for a scale."""
    marks = np.concatenate([fmt.float32_values[level_codes(fmt)], boundaries(fmt, "nearest_even")])
    with np.errstate(over="ignore"):
        scaled = (marks * scale).astype(np.float32)
    ends = np.array([-3, 3], np.float32) * np.abs(scaled).max()
    beside = [np.nextafter(scaled, np.float32(side)) for side in (-np.inf, np.inf)]
    found: NDArray[np.float32] = np.concatenate([scaled, *beside, ends])
    return found[np.isfinite(found)]
