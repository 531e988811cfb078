"""A traced network with a slot before every operand of every quantizable layer."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from dse import trace
from dse.batches import map_batches
from dse.trace import aten
from dse.workloads import workload
from formats.errors import BitatlasError
from hwmodels.workload import LayerWorkload

LayerKind = Literal["convolution", "linear", "product"]
Role = Literal["weight", "activation"]
ROLES: tuple[Role, Role] = ("weight", "activation")
#: what stands in a slot: an operand of a layer, or the bias that is added to its sums
Place = Literal["weight", "activation", "bias"]
#: where the operands stand among a node's arguments
POSITIONS: tuple[tuple[int, Role], ...] = ((0, "activation"), (1, "weight"))
BIAS_POSITION = 2

_CONVOLUTIONS = (*trace.CONVOLUTIONS, *trace.PADDED_CONVOLUTIONS)
#: operators that make a tensor of their own and never hand out a view of another
_FRESH = (
    aten.relu.default,
    aten.hardtanh.default,
    aten.gelu.default,
    aten.silu.default,
    aten.sigmoid.default,
    aten.layer_norm.default,
    aten.softmax.int,
    aten.add.Tensor,
    aten.mul.Tensor,
    aten.mean.dim,
)
BATCH = 256
#: the submodule that holds the slots; a name that no user's module will have
SLOTS = "_bitatlas_slots"


class Filling(Protocol):
    """What a slot may hold: it turns the operand into what the layer reads instead."""

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the operand as the layer shall see it."""


#: what goes into slots, by layer name and place
Fillings = Mapping[tuple[str, Place], Filling]


class Slot(nn.Module):
    """A place in the graph through which one operand of a layer, or its bias, passes; empty, it passes it on unchanged."""

    def __init__(self) -> None:
        """Build an empty slot."""
        super().__init__()
        self.filling: Filling | None = None

    def fill(self, filling: Filling | None) -> None:
        """Put a filling in, or take it out with None; one that is a module does not become a part of the network."""
        object.__setattr__(self, "filling", filling)

    def forward(self, operand: Tensor) -> Tensor:
        """Return the operand, as the filling turns it."""
        return operand if self.filling is None else self.filling(operand)


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A computed tensor that a layer reads."""

    #: the graph node that makes it; layers that read one tensor share its statistics and, for equal quantizers, its quantization
    source: str
    #: how many slots read it
    readers: int
    #: whether nothing else reads it, so that it may be quantized where it lies
    overwritable: bool
    #: the layer that it was computed from last; None where it is the network's own input
    producer: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One quantizable layer: a convolution, a linear layer, or a product of two activations.

    The weight's first axis holds the output channels. A product has no stored weight: its second operand stands in the weight's
    place, the first in the activation's; nor has it a bias, which every other layer has.
    """

    name: str
    kind: LayerKind
    workload: LayerWorkload
    #: the float weight after batch-norm folding, float32; None for a product
    weight: NDArray[np.float32] | None
    #: the operands that are computed: the activation, and the second factor of a product as the weight
    operands: Mapping[Role, Operand]


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A float network ready to be quantized layer by layer, and its identity: operators and weights."""

    name: str
    layers: tuple[Layer, ...]
    digest: str
    graph_module: fx.GraphModule

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``."""
        return next(layer for layer in self.layers if layer.name == name)

    def node(self, layer: str) -> fx.Node:
        """Return the operator of the layer called ``layer``; its operands and its bias stand behind slots."""
        index = [known.name for known in self.layers].index(layer)
        slot: fx.Node = next(node for node in self.graph_module.graph.nodes if node.target == slot_path(index, "weight"))
        return next(iter(slot.users))

    def operand_shape(self, layer: str, place: Place) -> tuple[int, ...]:
        """Return the shape that an operand has for a batch of one."""
        index = [known.name for known in self.layers].index(layer)
        slot = next(node for node in self.graph_module.graph.nodes if node.target == slot_path(index, place))
        return trace.shape(slot.args[0])

    def bias(self, layer: str) -> NDArray[np.float32]:
        """Return the float bias of a layer with a stored weight, float32 of shape (output channels,)."""
        slot = self.node(layer).args[BIAS_POSITION]
        assert isinstance(slot, fx.Node)
        source = slot.args[0]
        if not isinstance(source, fx.Node) or not trace.is_parameter(source):
            raise BitatlasError(f"bias must be stored, not computed by the network (layer {layer!r})")
        return trace.attribute(self.graph_module, source).detach().numpy().astype(np.float32)

    @contextmanager
    def filled(self, fillings: Fillings) -> Iterator[None]:
        """Put the fillings into their slots, by layer name and place, for as long as the context lasts."""
        index = {layer.name: number for number, layer in enumerate(self.layers)}
        slots = {key: self._slot(index[key[0]], key[1]) for key in fillings}
        try:
            for key, slot in slots.items():
                slot.fill(fillings[key])
            yield
        finally:
            for slot in slots.values():
                slot.fill(None)

    def _slot(self, index: int, place: Place) -> Slot:
        slot = self.graph_module.get_submodule(slot_path(index, place))
        assert isinstance(slot, Slot)
        return slot

    def logits(self, images: NDArray[np.float32], batch: int = BATCH, workers: int | None = None) -> NDArray[np.float32]:
        """Run the network on (N, …) samples and return its outputs, float32 of shape (N, classes).

        ``workers`` batches run at a time, by default one for each processor.
        """

        def run(part: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(self.graph_module(channels_last(torch.from_numpy(part))).numpy(), dtype=np.float32)

        return np.concatenate(map_batches(run, [images[i : i + batch] for i in range(0, len(images), batch)], workers))


def slot_path(index: int, place: Place) -> str:
    """Return the name of a slot's module in the graph: by number, since layer names hold dots."""
    return f"{SLOTS}.{place}_{index}"


def channels_last(tensor: Tensor) -> Tensor:
    """Return image batches in the memory layout that convolutions run fastest in, other tensors as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def build(name: str, module: nn.Module, sample_shape: tuple[int, ...]) -> Network:
    """Trace ``module`` for samples of one shape and put slots before its layers."""
    graph_module = trace.trace(module, torch.zeros(1, *sample_shape))
    digest = trace.digest(graph_module)
    layers: list[Layer] = []
    slots = nn.Module()
    graph_module.add_module(SLOTS, slots)
    names: set[str] = set()
    found = [(node, kind) for node in graph_module.graph.nodes if (kind := _kind(node)) is not None]
    layer_names = {node: _unique(_name(node, kind), names) for node, kind in found}
    operands = {node: _operands(node, layer_names) for node, _ in found}
    for node, kind in found:
        layers.append(_layer(graph_module, node, kind, layer_names[node], operands[node]))
        for position, place in _places(kind):
            path = slot_path(len(layers) - 1, place)
            slots.add_module(path.removeprefix(f"{SLOTS}."), Slot())
            with graph_module.graph.inserting_before(node):
                call = graph_module.graph.call_module(path, (node.args[position],))
            node.update_arg(position, call)
    if not layers:
        raise BitatlasError(f"model must have at least one convolution, linear layer or matrix product, not none: {name}")
    _weights_channels_last(graph_module)
    graph_module.recompile()
    return Network(name=name, layers=tuple(layers), digest=digest, graph_module=graph_module)


def _places(kind: LayerKind) -> tuple[tuple[int, Place], ...]:
    return POSITIONS if kind == "product" else (*POSITIONS, (BIAS_POSITION, "bias"))


def _kind(node: fx.Node) -> LayerKind | None:
    if node.target in _CONVOLUTIONS:
        return "convolution"
    if node.target == aten.linear.default:
        return "linear"
    return "product" if node.target in trace.PRODUCTS else None


def _name(node: fx.Node, kind: LayerKind) -> str:
    operand = node.args[1]
    if kind != "product" and trace.is_parameter(operand):
        assert isinstance(operand, fx.Node)
        target = str(operand.meta.get(trace.ORIGIN, operand.target))
        return re.sub(r"(parametrizations\.)?weight(\.original\d*)?$", "", target).rstrip("._") or "weight"
    path = trace.module_path(node)
    if kind != "product":
        raise BitatlasError(f"weight of a {kind} must be stored, not computed by the network (in {path or 'the model'})")
    purpose = node.meta.get(trace.PRODUCT_NAME) or "product"
    return f"{path}.{purpose}" if path else purpose


def _unique(name: str, taken: set[str]) -> str:
    chosen, number = name, 2
    while chosen in taken:
        chosen, number = f"{name}_{number}", number + 1
    taken.add(chosen)
    return chosen


def _refuse_odd_factors(activation: fx.Node, operand: fx.Node, kind: LayerKind, name: str) -> None:
    if trace.is_parameter(activation):
        raise BitatlasError(f"first factor of a product must be computed, not stored; transpose the product (layer {name!r})")
    axes = len(trace.shape(operand))
    if kind != "convolution" and (axes < 2 or (axes != 2 and trace.is_parameter(operand))):
        raise BitatlasError(f"second factor of a product must have two axes, or more where computed, not {axes} (layer {name!r})")


def _operands(node: fx.Node, layer_names: Mapping[fx.Node, str]) -> dict[Role, Operand]:
    """Describe the computed operands of a layer's node, before any slot is put in."""
    made: dict[Role, Operand] = {}
    for position, role in POSITIONS:
        source = node.args[position]
        assert isinstance(source, fx.Node)
        if not trace.is_parameter(source):
            slots = sum(reader.args[:2].count(source) for reader in layer_names)
            made[role] = Operand(
                source=source.name,
                readers=slots,
                overwritable=slots == 1 and len(source.users) == 1 and source.target in _FRESH,
                producer=_producer(source, layer_names),
            )
    return made


def _producer(source: fx.Node, layer_names: Mapping[fx.Node, str]) -> str | None:
    """Return the last layer, in the graph's order, that reaches ``source`` through no other layer."""
    seen: set[fx.Node] = set()
    waiting = [source]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [] if node in layer_names else node.all_input_nodes
    return next((layer_names[node] for node in reversed(list(layer_names)) if node in seen), None)


def _layer(graph_module: fx.GraphModule, node: fx.Node, kind: LayerKind, name: str, operands: Mapping[Role, Operand]) -> Layer:
    activation, operand = node.args[0], node.args[1]
    assert isinstance(activation, fx.Node)
    assert isinstance(operand, fx.Node)
    _refuse_odd_factors(activation, operand, kind, name)
    weight = None
    if kind != "product" and trace.is_parameter(operand):
        weight = trace.attribute(graph_module, operand).detach().to(torch.float32).numpy().copy()
    return Layer(name=name, kind=kind, workload=workload(node, kind, name), weight=weight, operands=operands)


def _weights_channels_last(graph_module: fx.GraphModule) -> None:
    """Lay weights out for speed, in parameters of the graph's own: the traced ones are still the user's module's."""
    for name, parameter in list(graph_module.named_parameters()):
        owner, _, last = name.rpartition(".")
        own = nn.Parameter(channels_last(parameter.detach()), requires_grad=False)
        setattr(graph_module.get_submodule(owner), last, own)
