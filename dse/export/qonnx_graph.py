"""What a whole QONNX graph has beside its quantizers: layers by name, matrix products apart from biases, data types.

Data types are written by the package qonnx, as annotations of tensors: ``INT20`` for whole numbers of 20 bits, and
``SCALEDINT<20>`` for such numbers times a scale.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dse.assignment import Assignment
from dse.export import qonnx_operators
from dse.export.qonnx import weight_name
from dse.export.qonnx_sums import sums
from dse.network import Fillings, Layer, Network
from dse.quantize import WholeBias
from formats.errors import require

COMPUTING = ("Conv", "Gemm", "MatMul")
#: width of whole numbers that a quantizer in float32 gives back as they are
BIAS_BITS = 20


def finish(model: onnx.ModelProto, network: Network, assignment: Assignment, fillings: Fillings) -> None:
    """Name the operator of each layer after it, part products from biases, and write down what its sums need.

    ``model`` has its slots lowered already; layers with an operand that another target wrote are left as they are. Raises
    ``BitatlasError`` for an accumulator that some sum does not fit.
    """
    require("qonnx", "--target qonnx", extra="flows")
    from qonnx.core.datatype import DataType
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.custom_op.registry import getCustomOp

    wrapper = ModelWrapper(model, fix_missing_initializer_valueinfo=False)
    for layer in network.layers:
        node = _operator(model.graph, layer)
        if node is None:
            continue
        found = sums(layer, assignment.layers[layer.name], fillings)
        bias = fillings.get((layer.name, "bias"))
        if found is not None and isinstance(bias, WholeBias):
            _quantize_bias(model.graph, node, layer.name, bias.numbers, found.unit)
        if node.op_type == "Gemm":
            node = _part(model.graph, node, layer)
        node.name = layer.name
        if found is not None:
            wrapper.set_tensor_datatype(node.output[0], DataType[found.data_type])
    for node in model.graph.node:
        if node.domain == qonnx_operators.DOMAIN:
            getCustomOp(node).infer_node_datatype(wrapper)


def _operator(graph: onnx.GraphProto, layer: Layer) -> onnx.NodeProto | None:
    """Return the operator that reads a layer's weight, found by the name of what the weight or its scale is stored as."""
    wanted = {weight_name(layer), f"{weight_name(layer)}/scale"}
    node = next((node for node in graph.node if wanted & set(node.input)), None)
    while node is not None and node.op_type not in COMPUTING:
        node = next(_readers(graph, node.output[0]), None)
    return node


def _readers(graph: onnx.GraphProto, tensor: str) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.node if tensor in node.input)


def _quantize_bias(
    graph: onnx.GraphProto, node: onnx.NodeProto, layer: str, numbers: NDArray[np.int64], unit: NDArray[np.float64]
) -> None:
    """Put a quantizer behind a stored bias of whole numbers, so that others know its precision."""
    bits = int(np.abs(numbers).max(initial=1)).bit_length() + 1
    if len(node.input) < 3 or bits > BIAS_BITS:
        return
    scale = unit.astype(np.float32)
    if not np.array_equal(scale, unit):
        return  # float32 would not hold the scale
    prefix = f"{layer}/bias"
    parameters = {"scale": scale, "zero_point": np.zeros((), np.float32), "bit_width": np.array(bits, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, f"{prefix}/{name}") for name, value in parameters.items())
    quantizer = helper.make_node(
        "Quant",
        [node.input[2], *(f"{prefix}/{name}" for name in parameters)],
        [f"{prefix}/quantized"],
        name=f"{prefix}/Quant",
        domain=qonnx_operators.DOMAIN,
        signed=1,
        narrow=0,
        rounding_mode=qonnx_operators.ROUNDING,
    )
    node.input[2] = quantizer.output[0]
    graph.node.insert(list(graph.node).index(node), quantizer)


def _part(graph: onnx.GraphProto, gemm: onnx.NodeProto, layer: Layer) -> onnx.NodeProto:
    """Replace ``Gemm`` by a product with the transposed weight and a sum with the bias; return the product."""
    place = list(graph.node).index(gemm)
    data, weight, *bias = gemm.input
    output, made = gemm.output[0], f"{layer.name}/transposed"
    nodes = []
    if not _transpose_stored(graph, layer, weight):
        nodes.append(helper.make_node("Transpose", [weight], [made], name=f"{made}/Transpose", perm=[1, 0]))
        weight = made
    product = f"{layer.name}/product" if bias else output
    nodes.append(helper.make_node("MatMul", [data, weight], [product], name=layer.name))
    if bias:
        nodes.append(helper.make_node("Add", [product, bias[0]], [output], name=f"{layer.name}/Add"))
    del graph.node[place]
    for number, node in enumerate(nodes):
        graph.node.insert(place + number, node)
    made_product: onnx.NodeProto = graph.node[place + len(nodes) - (2 if bias else 1)]
    return made_product


def _transpose_stored(graph: onnx.GraphProto, layer: Layer, quantized: str) -> bool:
    """Transpose a weight where it is stored; return whether it can be, being nothing but quantized on the way."""
    producer = next(node for node in graph.node if quantized in node.output)
    names = {weight_name(layer), f"{weight_name(layer)}/scale"}
    if producer.domain != qonnx_operators.DOMAIN or producer.input[0] != weight_name(layer):
        return False
    for tensor in graph.initializer:
        if tensor.name in names and len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(tensor).T), tensor.name))
    return True
