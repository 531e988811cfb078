"""A label for every element of every computed tensor: the unknown factor that the element may be multiplied by.

Elements with one label carry one factor; what an operator asks for its result to carry factors too is that some labels are the
same (a sum), the inverse of each other (a product's contraction), or that of the number one (whatever does not commute). The
solutions of these equations are the ways in which stored tensors may be changed without changing the network's function.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, fx

from dse import trace
from dse.network import SLOTS, Layer, Network, Place

#: what may be done to the channels of a space: a positive factor each, or one orthogonal map for all of them
Passes = Literal["diagonal", "orthogonal"]
#: what a stored tensor is for those that read it
Role = Literal["weight", "bias", "scale", "shift", "stored"]
#: the label of what can carry no factor but one
PINNED = 0
#: elements of stored tensors, which may be added to any channel vector
ANY_FIBRE = -1
#: zeros that were put around a tensor
PADDING_FIBRE = -2


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Labels of a computed tensor, for a batch of one: two int64 tensors of its shape, mostly expanded ones.

    ``fibre`` tells elements of one channel vector from those of another: pixels, tokens.
    """

    variable: Tensor
    fibre: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor for a batch of one."""
        return tuple(self.variable.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Touch:
    """A stored tensor, and by what each of its elements is multiplied where the labels' factors are no longer one.

    ``variable`` broadcasts against the tensor; the factor is that of the label for ``sign`` 1 and its inverse for -1.
    """

    tensor: str
    owner: str
    role: Role
    sign: int
    variable: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """A computed operand of a layer; ``variable`` broadcasts against its shape for a batch of one."""

    layer: str
    place: Place
    variable: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Channel vectors that an operator treats as wholes: ``variable`` of shape (vectors, channels)."""

    variable: Tensor
    #: the node that normalises each vector, if that is what the operator does, and whether it takes the vector's mean away
    norm: str | None = None
    mean: bool = False


class Labelling:
    """Labels of a network's tensors as they are found, and the equations between them."""

    def __init__(self, network: Network, passes: Passes) -> None:
        """Begin with the one label that is pinned."""
        self.network, self.passes = network, passes
        self.count = 1
        self.same: list[Tensor] = []
        self.inverse: list[Tensor] = []
        self.touches: list[Touch] = []
        self.reads: list[Read] = []
        self.rows: list[Rows] = []
        self.moved: list[Labels] = []
        self.values: dict[fx.Node, Any] = {}
        self._stored: dict[str, Labels] = {}
        self._last_fibre = PADDING_FIBRE
        nodes = network.graph_module.graph.nodes
        self._uses = Counter(str(node.target) for node in nodes if node.op == "get_attr" for _ in node.users)

    @property
    def orthogonal(self) -> bool:
        """Whether operators must let orthogonal maps pass, not only factors."""
        return self.passes == "orthogonal"

    def fresh(self, *shape: int) -> Tensor:
        """Return new labels."""
        made = torch.arange(self.count, self.count + math.prod(shape)).reshape(shape)
        self.count += made.numel()
        return made

    def own_fibres(self, numbers: Tensor) -> Tensor:
        """Return numbers of fibres, given from 0 on, as numbers that no other tensor's fibres have."""
        first = self._last_fibre - 1
        self._last_fibre = first - int(numbers.max())
        return first - numbers

    def tie(self, left: Tensor, right: Tensor) -> None:
        """Let labels that stand at one place be the same, broadcasting."""
        self.same.append(_pairs(left, right))

    def invert(self, left: Tensor, right: Tensor) -> None:
        """Let labels that stand at one place be inverse to each other, broadcasting."""
        self.inverse.append(_pairs(left, right))

    def pin(self, labels: Labels) -> None:
        """Let labels carry no factor but one."""
        self.tie(labels.variable, torch.tensor(PINNED))

    def pinned(self, shape: Sequence[int]) -> Labels:
        """Return labels of a tensor that carries no factor."""
        nothing = torch.tensor(PINNED).expand(tuple(shape))
        return Labels(variable=nothing, fibre=nothing)

    def constant_along(self, variable: Tensor, axes: Sequence[int]) -> Tensor:
        """Tie labels along axes, and return them with these axes of length one."""
        first = variable
        for axis in axes:
            first = first.narrow(axis, 0, 1)
        self.tie(first, variable)
        return first

    def read(self, labels: Labels, layer: str, place: Place) -> None:
        """Note a layer's computed operand."""
        self.reads.append(Read(layer=layer, place=place, variable=compact(labels.variable)))

    def touch(self, tensor: str, owner: str, role: Role, sign: int, variable: Tensor) -> None:
        """Note a stored tensor that is multiplied by the factors of ``variable``, or by their inverses."""
        self.touches.append(Touch(tensor=tensor, owner=owner, role=role, sign=sign, variable=compact(variable)))

    def stored_once(self, *parameters: fx.Node | None) -> bool:
        """Whether these stored tensors, where there are any, are each read at one place of the graph alone."""
        return all(parameter is None or self._uses[str(parameter.target)] == 1 for parameter in parameters)

    def attribute(self, parameter: fx.Node) -> Tensor:
        """Return the tensor that a ``get_attr`` node reads."""
        return trace.attribute(self.network.graph_module, parameter)

    def stored(self, parameter: fx.Node) -> Labels:
        """Return the labels of a stored tensor that one operator reads as it would a computed one: one for each element."""
        name, tensor = str(parameter.target), self.attribute(parameter)
        if not tensor.is_floating_point() or self._uses[name] != 1:
            return self.pinned(tensor.shape)
        if name not in self._stored:
            variable = self.fresh(*tensor.shape)
            self.touch(name, owner(name), "stored", 1, variable)
            self._stored[name] = Labels(variable=variable, fibre=torch.tensor(ANY_FIBRE).expand(tensor.shape))
        return self._stored[name]

    def argument(self, given: Any) -> Any:
        """Return an argument of a node with labels, or the numbers that were computed, in the place of nodes."""

        def value(node: fx.Node) -> Any:
            return self.stored(node) if node.op == "get_attr" else self.values[node]

        return fx.map_arg(given, value)

    def stop(self, node: fx.Node) -> Any:
        """Pin all that goes into an operator and all that comes out; compute what no tensor goes into."""
        given = [value for source in node.all_input_nodes for value in _listed(self.argument(source))]
        found = [value for value in given if isinstance(value, Labels)]
        if not found:
            operator: Any = node.target
            result = operator(*self.argument(node.args), **self.argument(node.kwargs))
            return self.pinned(result.shape) if isinstance(result, Tensor) else result
        for labels in found:
            self.pin(labels)
        made = node.meta.get("tensor_meta")
        if made is not None and not hasattr(made, "shape"):
            return tuple(self.pinned(part.shape) for part in made)
        return self.pinned(() if made is None else made.shape)


def parameter_of(given: Any) -> fx.Node | None:
    """Return the ``get_attr`` node that an argument comes from, through a slot or directly; None where it is computed."""
    if isinstance(given, fx.Node) and is_slot(given):
        given = given.args[0]
    return given if trace.is_parameter(given) else None


def is_slot(node: fx.Node) -> bool:
    """Whether a node is one of the slots before a layer."""
    return node.op == "call_module" and str(node.target).startswith(f"{SLOTS}.")


def layer_of(network: Network, node: fx.Node) -> Layer:
    """Return the layer that a node computes, by the number of the slot of its activation."""
    slot: Any = node.args[0]
    return network.layers[int(str(slot.target).rpartition("_")[2])]


def owner(tensor: str) -> str:
    """Return the module that a stored tensor belongs to, or its own name where that is the model itself."""
    return tensor.rpartition(".")[0] or tensor


def compact(variable: Tensor) -> Tensor:
    """Return labels with the axes that they were only expanded along cut to length one."""
    for axis, stride in enumerate(variable.stride()):
        if stride == 0 and variable.shape[axis] > 1:
            variable = variable.narrow(axis, 0, 1)
    return variable


def spread(shape: Sequence[int], axes: Sequence[int]) -> Tensor:
    """Return a number for every place along ``axes``, expanded to ``shape``: the fibres of a tensor."""
    kept = [size if axis in [a % len(shape) for a in axes] else 1 for axis, size in enumerate(shape)]
    return torch.arange(math.prod(kept)).reshape(kept).expand(tuple(shape))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _pairs(left: Tensor, right: Tensor) -> Tensor:
    """Return the different pairs of labels at one place, int64 of shape (2, n)."""
    shape = np.broadcast_shapes(left.shape, right.shape)
    left, right = left.expand(shape), right.expand(shape)
    for axis in range(left.ndim):
        if left.stride(axis) == right.stride(axis) == 0 and left.shape[axis] > 1:
            left, right = left.narrow(axis, 0, 1), right.narrow(axis, 0, 1)
    if left.numel() == 0:
        return torch.empty(2, 0, dtype=torch.int64)
    base = int(right.max()) + 1
    packed = torch.unique(left * base + right)
    return torch.stack([packed // base, packed % base])
