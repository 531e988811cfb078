"""Scales and shifts of norms, put into the linear layers that read them: what is left is a norm that treats all channels alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import fx

from dse.network import Network
from dse.ptq.channel_classes import OUTSIDE
from dse.ptq.channel_labels import is_slot, parameter_of
from dse.ptq.channel_operators import MOVES
from dse.ptq.rewrite import Floats, layer_nodes, stored_operand, stored_tensor
from dse.ptq.spaces import Space, spaces
from dse.trace import aten

NORMS = (aten.layer_norm.default, aten.rms_norm.default)
#: hand a tensor's elements on, or means of them, and no others: a shift of a channel stays the same shift
_PLAIN = (*(move for move in MOVES if move not in (aten.cat.default, aten.stack.default)), aten.mean.dim, aten.clone.default)


def folded_norms(network: Network) -> Mapping[str, Mapping[str, Floats]]:
    """Return for the node of every norm that can be folded the tensors that change, float64 by name: ``fold`` puts them together.

    With a scale g and a shift b, a linear layer W x + c that reads a norm becomes ``(W diag(g)) x + (c + W b)``, and the norm's own
    scale and shift become ones and zeros (as in SliceGPT, arXiv 2401.15024). A norm can be folded if all that reads it are
    linear layers, with nothing between that is more than a move of elements or a mean.
    """
    diagonal = spaces(network, "diagonal")
    made: dict[str, Mapping[str, Floats]] = {}
    for node in network.graph_module.graph.nodes:
        if node.target not in NORMS or not _read_by_linear_layers_alone(node):
            continue
        affine = (argument for argument in node.args[2:4] if isinstance(argument, fx.Node))
        names = {str(stored.target) for stored in map(parameter_of, affine) if stored is not None}
        for space in diagonal:
            if {member.tensor for member in space.members if member.sign > 0} == names:
                made[node.name] = _folded(network, space)
    return {name: tensors for name, tensors in made.items() if tensors}


def _read_by_linear_layers_alone(norm: fx.Node) -> bool:
    waiting: list[fx.Node] = list(norm.users)
    while waiting:
        node = waiting.pop()
        if is_slot(node) and all(user.target == aten.linear.default and user.args[0] is node for user in node.users):
            continue
        if node.target not in _PLAIN:
            return False
        waiting += node.users
    return True


def _folded(network: Network, space: Space) -> Mapping[str, Floats]:
    """Return the tensors of a norm's space with its scale and shift in the readers; none where not all are in it."""
    values = {member.tensor: _stored(network, member.tensor) for member in space.members}
    neutral = {"scale": 1.0, "shift": 0.0}
    by_channel = {role: np.full(space.size, value) for role, value in neutral.items()}
    made: dict[str, Floats] = {}
    for member in (member for member in space.members if member.sign > 0):
        if sorted(member.index.ravel()) != list(range(values[member.tensor].size)):
            return {}
        by_channel[member.role][member.index] = values[member.tensor]
        made[member.tensor] = np.full_like(values[member.tensor], neutral[member.role])
    nodes = layer_nodes(network)
    for member in (member for member in space.members if member.sign < 0):
        weight, index, inside = values[member.tensor], np.maximum(member.index, 0), member.index != OUTSIDE
        bias = str(stored_operand(nodes[member.owner], 2))
        made[member.tensor] = weight * np.where(inside, by_channel["scale"][index], 1)
        made[bias] = _stored(network, bias) + (weight * np.where(inside, by_channel["shift"][index], 0)).sum(axis=1)
    return made


def _stored(network: Network, name: str) -> Floats:
    values: Any = stored_tensor(network, name).numpy().astype(np.float64)
    return values  # type: ignore[no-any-return]
