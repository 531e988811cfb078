"""From a torch module to a flat graph of operators, with batch norm folded and attention spelled out.

``torch.export`` does the tracing, so that layers inside other modules, functional calls and ``nn.MultiheadAttention`` are all
seen alike, by what they compute.
"""

import contextlib
import hashlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils import fusion

from formats.errors import BitatlasError

aten = torch.ops.aten

CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
PADDED_CONVOLUTIONS = (aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding)
PRODUCTS = (aten.matmul.default, aten.bmm.default, aten.mm.default)
#: where a product's node keeps what the product is for, as the last part of its layer's name
PRODUCT_NAME = "product_name"
#: operators that multiply and accumulate, but that no layer here stands for: left alone they would stay float without a word
UNSUPPORTED = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.conv_tbc.default,
    aten._convolution.default,
    aten.bilinear.default,
    aten._trilinear.default,
    aten.addmm.default,
    aten.addbmm.default,
    aten.addmv.default,
    aten.addr.default,
    aten.baddbmm.default,
    aten.mv.default,
    aten.dot.default,
    aten.vdot.default,
    aten.outer.default,
    aten.cdist.default,
    aten.lstm.input,
    aten.gru.input,
    aten.rnn_tanh.input,
    aten.rnn_relu.input,
    aten.lstm_cell.default,
    aten.gru_cell.default,
    aten.rnn_tanh_cell.default,
    aten.rnn_relu_cell.default,
)
#: operators that are products under another name
CONTRACTIONS = (
    aten.einsum.default,
    aten.linalg_matmul.default,
    aten.tensordot.default,
    aten.inner.default,
    aten.linalg_vecdot.default,
    aten.chain_matmul.default,
    aten.linalg_multi_dot.default,
)
#: where a folded tensor's node keeps the name of the parameter that it was computed from
ORIGIN = "origin"
BATCH_NORM = aten._native_batch_norm_legit_no_training.default


def trace(module: nn.Module, sample: Tensor) -> fx.GraphModule:
    """Trace ``module`` in evaluation mode for batches shaped like ``sample`` (first axis: batch, of any size).

    Every node of the result carries the shape that it has for a batch of one. Raises ``BitatlasError`` where the module cannot
    be traced.
    """
    module = module.eval()
    with _quiet():
        graph_module = _exported(module, sample)
    _fold_constants(graph_module)
    _refuse_unsupported(graph_module)
    _fold_batch_norm(graph_module)
    _views_of_any_layout(graph_module)
    _spell_out_attention(graph_module)
    _products_with_weights_as_linear(graph_module)
    _give_every_layer_a_bias(graph_module)
    _drop_unused_attributes(graph_module)
    graph_module.recompile()
    try:
        with torch.no_grad(), _quiet():
            ShapeProp(graph_module).propagate(sample[:1])  # type: ignore[no-untyped-call]
    except Exception as error:  # the user's operators on the user's tensors
        cause = error.__cause__ or error
        raise BitatlasError(f"model must run on a batch of one, not fail: {str(cause).strip().splitlines()[0][:300]}") from error
    return graph_module


def _exported(module: nn.Module, sample: Tensor) -> fx.GraphModule:
    """Export for any batch size, without operators that work in place and with contractions as the products that they are."""
    batch = torch.export.Dim("batch", min=1)
    example = sample[:1].expand(2, *sample.shape[1:]).contiguous()
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
        known = torch.export.default_decompositions()
        program = program.run_decompositions({operator: known[operator] for operator in CONTRACTIONS if operator in known})
    except Exception as error:  # torch.export fails with many types, all of them about the user's module
        raise BitatlasError(_untraceable(error)) from error
    graph_module = program.module(check_guards=False)
    assert isinstance(graph_module, fx.GraphModule)
    return graph_module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own reports to itself: what fails is raised, and said in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _untraceable(error: Exception) -> str:
    start = "model must be traceable by torch.export for any batch size, not"
    if "specialized it to be a constant" in str(error):
        return f"{start} be fixed to one: the batch axis must be read as x.shape[0], not by len(x) or as a number"
    return f"{start} fail: {str(error).strip().splitlines()[0][:300]}"


def digest(graph_module: fx.GraphModule) -> str:
    """SHA-256 over the traced operators and every tensor they read: the network's identity in caches and ledgers."""
    found = hashlib.sha256(str(graph_module.graph).encode())
    for name, tensor in sorted(graph_module.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def attribute(graph_module: fx.GraphModule, node: fx.Node) -> Tensor:
    """Return the tensor that a ``get_attr`` node reads."""
    owner, _, name = str(node.target).rpartition(".")
    tensor: Tensor = getattr(graph_module.get_submodule(owner), name)
    return tensor


def shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor for a batch of one."""
    return tuple(node.meta["tensor_meta"].shape)


def module_path(node: fx.Node) -> str:
    """Return the dotted path of the innermost module that the node came from; empty for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def is_parameter(node: Any) -> bool:
    """Whether an argument is a tensor of the model, not one that was computed."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _refuse_unsupported(graph_module: fx.GraphModule) -> None:
    for node in graph_module.graph.nodes:
        if node.target in UNSUPPORTED:
            where = module_path(node) or "the model"
            raise BitatlasError(f"layers must be convolutions, linear or matrix products, not {node.target} (in {where})")


def _set_attribute(graph_module: fx.GraphModule, node: fx.Node, tensor: Tensor) -> None:
    owner, _, name = str(node.target).rpartition(".")
    module = graph_module.get_submodule(owner)
    if name in module._parameters:
        setattr(module, name, nn.Parameter(tensor.detach().clone(), requires_grad=False))
    else:
        setattr(module, name, tensor.detach().clone())


def _fold_constants(graph_module: fx.GraphModule) -> None:
    """Compute at once what depends on the model's own tensors alone, so that a weight that is a part or a function of a
    parameter (weight norm, a slice, a transpose) is a stored weight.
    """
    graph = graph_module.graph
    lists: dict[fx.Node, Any] = {}  # what constant nodes that give several tensors come to

    def value_of(source: fx.Node) -> Any:
        return lists[source] if source in lists else attribute(graph_module, source)

    for node in list(graph.nodes):
        inputs = node.all_input_nodes
        if node.op != "call_function" or not inputs or not all(is_parameter(source) or source in lists for source in inputs):
            continue
        with torch.no_grad():
            value = node.target(*fx.map_arg(node.args, value_of), **fx.map_arg(node.kwargs, value_of))
        node.meta[ORIGIN] = inputs[0].meta.get(ORIGIN, str(inputs[0].target))
        if isinstance(value, Tensor):
            _replace_by_constant(graph_module, node, value)
        else:
            lists[node] = value
    graph.eliminate_dead_code()


def _replace_by_constant(graph_module: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    name = f"{node.name}_folded"
    graph_module.register_buffer(name, value.detach().clone())
    with graph_module.graph.inserting_before(node):
        folded = graph_module.graph.get_attr(name)
    folded.meta = dict(node.meta)
    node.replace_all_uses_with(folded)
    graph_module.graph.erase_node(node)


def _views_of_any_layout(graph_module: fx.GraphModule) -> None:
    """Let views copy where they must: channels-last tensors cannot be viewed in every shape that others can."""
    for node in graph_module.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def _products_with_weights_as_linear(graph_module: fx.GraphModule) -> None:
    """Make of every product with a stored matrix the linear layer that it is, output channels first as everywhere else."""
    for node in graph_module.graph.nodes:
        if node.target not in PRODUCTS or not is_parameter(node.args[1]):
            continue
        matrix = attribute(graph_module, node.args[1])
        if matrix.ndim != 2:
            continue
        name = f"{node.name}_transposed"
        graph_module.register_buffer(name, matrix.detach().t().contiguous())
        with graph_module.graph.inserting_before(node):
            stored = graph_module.graph.get_attr(name)
        stored.meta = dict(node.args[1].meta) | {ORIGIN: node.args[1].meta.get(ORIGIN, str(node.args[1].target))}
        node.target, node.args = aten.linear.default, (node.args[0], stored)


def _give_every_layer_a_bias(graph_module: fx.GraphModule) -> None:
    """Add zeros where a layer has no bias, so that steps that correct one find it."""
    for node in graph_module.graph.nodes:
        if node.target not in (*CONVOLUTIONS, *PADDED_CONVOLUTIONS, aten.linear.default) or not is_parameter(node.args[1]):
            continue
        given = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        if given is None:
            given = _new_bias(graph_module, node.args[1], torch.zeros(attribute(graph_module, node.args[1]).shape[0]))
        node.args = (*node.args[:2], given, *node.args[3:])
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "bias"}


def _fold_batch_norm(graph_module: fx.GraphModule) -> None:
    """Fold every batch norm into the convolution or linear layer whose only reader it is."""
    graph = graph_module.graph
    foldable = (*CONVOLUTIONS, *PADDED_CONVOLUTIONS, aten.linear.default)
    for norm in list(graph.nodes):
        if norm.target != BATCH_NORM:
            continue
        layer = norm.args[0]
        if layer.target not in foldable or len(layer.users) != 1:
            continue
        weight_node = layer.args[1]
        if not is_parameter(weight_node) or len(weight_node.users) != 1:
            continue
        if layer.target == aten.linear.default and layer.meta["val"].ndim != 2:
            continue  # the norm's channels are the second axis, the layer's the last
        _fold(graph_module, layer, norm)
        for output in list(norm.users):  # the operator returns the normalised values and two that evaluation leaves empty
            output.replace_all_uses_with(layer)
            graph.erase_node(output)
        graph.erase_node(norm)
    graph.eliminate_dead_code()


def _fold(graph_module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> None:
    """Put a batch norm's scale and shift into the weight and the bias of the layer before it."""
    weight_node: Any = layer.args[1]
    arguments: Any = norm.args
    scale, shift, mean, variance = (attribute(graph_module, arg) if is_parameter(arg) else None for arg in arguments[1:5])
    bias_node: Any = layer.args[2] if len(layer.args) > 2 else None
    bias = attribute(graph_module, bias_node) if is_parameter(bias_node) else None
    fuse: Any = fusion.fuse_linear_bn_weights if layer.target == aten.linear.default else fusion.fuse_conv_bn_weights
    with torch.no_grad():
        weight, bias = fuse(attribute(graph_module, weight_node), bias, mean, variance, arguments[6], scale, shift)
    _set_attribute(graph_module, weight_node, weight)
    layer.args = (layer.args[0], weight_node, _new_bias(graph_module, weight_node, bias), *layer.args[3:])


def _new_bias(graph_module: fx.GraphModule, weight_node: fx.Node, bias: Tensor) -> fx.Node:
    name = f"{weight_node.target}_folded_bias".replace(".", "_")
    graph_module.register_buffer(name, bias.detach().clone())
    with graph_module.graph.inserting_after(weight_node):
        return graph_module.graph.get_attr(name)


def _spell_out_attention(graph_module: fx.GraphModule) -> None:
    """Replace scaled dot-product attention by its two products, a softmax and a scale."""
    for node in list(graph_module.graph.nodes):
        if node.target == aten.scaled_dot_product_attention.default:
            _replace_attention(graph_module, node)
    graph_module.graph.eliminate_dead_code()


def _replace_attention(graph_module: fx.GraphModule, node: fx.Node) -> None:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    where = module_path(node) or "the model"
    if given.get("dropout_p", 0.0) != 0.0 or given.get("enable_gqa", False):
        raise BitatlasError(f"attention must be without dropout and grouped queries, not with them (in {where})")
    query, key, value = given["query"], given["key"], given["value"]
    features = int(query.meta["val"].shape[-1])
    factor = given.get("scale") if given.get("scale") is not None else 1.0 / math.sqrt(features)
    graph = graph_module.graph

    def call(operator: Any, *args: Any, name: str = "") -> fx.Node:
        made = graph.call_function(operator, args)
        made.meta = {"nn_module_stack": node.meta.get("nn_module_stack"), PRODUCT_NAME: name}
        return made

    with graph.inserting_before(node):
        # the factor goes to the scores, after the product: so the product's operands are the tensors that hardware would store
        product = call(aten.matmul.default, query, call(aten.transpose.int, key, -2, -1), name="scores")
        scores = call(aten.mul.Tensor, product, factor)
        mask = given.get("attn_mask")
        if given.get("is_causal", False):
            mask = _causal_mask(graph_module, node, int(query.meta["val"].shape[-2]), int(key.meta["val"].shape[-2]))
        if mask is not None:
            scores = _masked(call, scores, mask)
        mixed = call(aten.matmul.default, call(aten.softmax.int, scores, -1), value, name="mix")
    node.replace_all_uses_with(mixed)
    graph.erase_node(node)


def _masked(call: Any, scores: fx.Node, mask: fx.Node) -> fx.Node:
    value = mask.meta.get("val")
    if value is not None and value.dtype == torch.bool:
        hidden: fx.Node = call(aten.masked_fill.Scalar, scores, call(aten.logical_not.default, mask), float("-inf"))
        return hidden
    added: fx.Node = call(aten.add.Tensor, scores, mask)
    return added


def _causal_mask(graph_module: fx.GraphModule, node: fx.Node, queries: int, keys: int) -> fx.Node:
    name = f"{node.name}_causal_mask"
    mask = torch.zeros(queries, keys).masked_fill(torch.ones(queries, keys).tril().logical_not(), float("-inf"))
    graph_module.register_buffer(name, mask)
    return graph_module.graph.get_attr(name)


def _drop_unused_attributes(graph_module: fx.GraphModule) -> None:
    """Remove the guards that export leaves behind and the tensors that no node reads any more."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
