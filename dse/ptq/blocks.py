"""Blocks of a network: the parts between the tensors that everything passes through.

A tensor is a cut point where every path from the network's input to its output leads through it: no edge of the graph, in its
order, leads past it. Between two cut points lies a residual block, a transformer block's attention or its perceptron; a chain of
layers comes apart into single ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from dse.batches import map_batches
from dse.network import Layer, Network, channels_last
from dse.trace import aten
from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """The layers with a stored weight between two cut points, and what computes the second of these from the first."""

    layers: tuple[str, ...]
    entry: fx.Node
    exit: fx.Node


def blocks(network: Network) -> tuple[tuple[str, ...], ...]:
    """Return the names of the layers with a stored weight, block by block, both in the network's order."""
    return tuple(block.layers for block in _blocks(network))


def block_of(network: Network, names: Sequence[str]) -> Block:
    """Return the block whose layers these are, in any order. Raises ``ValueError``, naming the block nearest to it, for others."""
    found = _blocks(network)
    for block in found:
        if set(block.layers) == set(names):
            return block
    nearest = max(found, key=lambda block: len(set(block.layers) & set(names)) - len(set(block.layers) ^ set(names)) / 1e6)
    raise InvalidValueError(f"layers must be those of one block, not {', '.join(names)}; nearest: {', '.join(nearest.layers)}")


def nodes_by_layer(network: Network) -> Mapping[str, fx.Node]:
    """Return every layer's operator in the graph."""
    return {layer.name: node for node, layer in _layers_by_node(network).items()}


def _blocks(network: Network) -> list[Block]:
    computed = _computed(network.graph_module.graph)
    cuts = _cut_points(computed)
    layer_of = _layers_by_node(network)
    found: list[Block] = []
    names: list[str] = []
    places = {node: number for number, node in enumerate(computed)}
    inside = {node: layer for node, layer in layer_of.items() if layer.weight is not None}
    entry = cuts[0]
    for before, after in pairwise(cuts):
        between = computed[places[before] + 1 : places[after] + 1]
        here = [inside[node].name for node in between if node in inside]
        if here and names:
            # what follows a block's last layer without a layer of its own, such as an activation function, is part of it
            found.append(Block(layers=tuple(names), entry=entry, exit=before))
            names, entry = [], before
        names += here
    if names:
        found.append(Block(layers=tuple(names), entry=entry, exit=cuts[-1]))
    return found


def _layers_by_node(network: Network) -> dict[fx.Node, Layer]:
    """Return every layer by its operator in the graph: the reader of its slots."""
    numbers = {f"activation_{number}": layer for number, layer in enumerate(network.layers)}
    found: dict[fx.Node, Layer] = {}
    for node in network.graph_module.graph.nodes:
        if node.op == "call_module" and (layer := numbers.get(str(node.target).rpartition(".")[2])) is not None:
            found[next(iter(node.users))] = layer
    return found


def _computed(graph: fx.Graph) -> list[fx.Node]:
    """Return the nodes on paths from the input to the output, in the graph's order, sizes and the output itself left out."""
    reached: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (not _is_size(node) and any(source in reached for source in node.all_input_nodes)):
            reached.add(node)
    needed: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        if node.op == "output" or (node in reached and any(user in needed for user in node.users)):
            needed.add(node)
    return [node for node in graph.nodes if node in reached and node in needed and node.op != "output"]


def _is_size(node: fx.Node) -> bool:
    """Whether a node is the number of samples."""
    return bool(node.target == aten.sym_size.int and node.args[1] == 0 and node.all_input_nodes[0].op == "placeholder")


def _cut_points(computed: Sequence[fx.Node]) -> list[fx.Node]:
    """Return the nodes that no edge leads past and that hold a tensor with the samples along its first axis."""
    places = {node: number for number, node in enumerate(computed)}
    found: list[fx.Node] = []
    furthest = 0  # how far edges from nodes so far lead
    for number, node in enumerate(computed):
        readers = [places[user] for user in node.users if user in places]
        if furthest <= number and _has_samples(node):
            found.append(node)
        furthest = max(furthest, *readers, 0) if readers else furthest
    return found


def _has_samples(node: fx.Node) -> bool:
    if node.op == "call_module":  # a slot: what it passes on is a cut point already
        return False
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return isinstance(shape, torch.Size) and len(shape) > 1 and shape[0] == 1


def part(network: Network, entry: fx.Node, exit_node: fx.Node) -> fx.GraphModule:
    """Return the module that computes one cut point from another before it; its slots are those of the network.

    It takes the tensor and the number of samples.
    """
    graph = fx.Graph()
    copies = {entry: graph.placeholder("entry")}
    samples = graph.placeholder("samples")
    needed: set[fx.Node] = set()
    waiting = [exit_node]
    while waiting:
        node = waiting.pop()
        if node not in needed and node is not entry:
            needed.add(node)
            waiting += [] if _is_size(node) else node.all_input_nodes
    for node in network.graph_module.graph.nodes:
        if node in needed:
            copies[node] = samples if _is_size(node) else graph.node_copy(node, lambda source: copies[source])
    graph.output(copies[exit_node])
    return fx.GraphModule(network.graph_module, graph)


def run(module: nn.Module, inputs: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Run a part of a network over (samples, …), in batches, and return its tensor, float32 with the samples first."""

    def one(values: NDArray[np.float32]) -> NDArray[np.float32]:
        found: Tensor = module(channels_last(torch.from_numpy(values)), len(values))
        return np.array(found.numpy(), dtype=np.float32, order="C")

    return np.concatenate(map_batches(one, [inputs[i : i + batch] for i in range(0, len(inputs), batch)], workers=1))
