"""Networks with other stored tensors, and maps of channel spaces put into them; the function stays, and is looked at afterwards."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from dse import trace
from dse.network import Layer, Network, channels_last
from dse.ptq.alone import alone
from dse.ptq.channel_classes import OUTSIDE
from dse.ptq.channel_labels import is_slot, layer_of, parameter_of
from dse.ptq.spaces import Member, Space, vector_axis
from formats.errors import BitatlasError, InvalidValueError

Floats = NDArray[np.float64]
#: calibration samples that two networks must agree on
CHECKED = 64
#: greatest difference of two logits, as a share of the greatest logit, that is taken for float32's rounding errors
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What is done to a space: float64 factors of shape (size,), or an orthogonal matrix of shape (size, size)."""

    space: Space
    map: Floats


def layer_nodes(network: Network) -> dict[str, fx.Node]:
    """Return the graph's nodes of the layers, by layer."""
    nodes = [node for node in network.graph_module.graph.nodes if node.op == "call_function" and node.args]
    return {layer_of(network, node).name: node for node in nodes if isinstance(node.args[0], fx.Node) and is_slot(node.args[0])}


def stored_operand(node: fx.Node, position: int) -> str | None:
    """Return the name of the stored tensor that a layer's node reads at a position of its arguments; None for a computed one."""
    stored = parameter_of(node.args[position])
    return None if stored is None else str(stored.target)


def stored_tensor(network: Network, name: str) -> Tensor:
    """Return a stored tensor of the network's graph by name; ``ValueError`` where there is none."""
    owner, _, last = name.rpartition(".")
    try:
        tensor = getattr(network.graph_module.get_submodule(owner), last)
    except AttributeError:
        tensor = None
    if not isinstance(tensor, Tensor):
        raise InvalidValueError(f"tensor must be stored in network {network.name!r}, not {name!r}")
    return tensor.detach()


def with_tensors(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    """Return a copy of the network with some of its stored tensors replaced: the same graph, slots and layers.

    Tensors are float32 and have the shapes of those that they replace, else ``ValueError``. The copy shares no memory with the
    network; its digest is that of its own tensors.
    """
    for name, tensor in tensors.items():
        before = stored_tensor(network, name)
        if tensor.shape != before.shape or tensor.dtype != before.dtype:
            wanted, found = f"{tuple(before.shape)} {before.dtype}", f"{tuple(tensor.shape)} {tensor.dtype}"
            raise InvalidValueError(f"tensor {name!r} must be {wanted}, not {found}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own trees in a way that it advises against
        graph_module = copy.deepcopy(network.graph_module)
    for name, tensor in tensors.items():
        _put(graph_module, name, tensor)
    nodes = layer_nodes(network)
    layers = tuple(_layer(layer, tensors.get(stored_operand(nodes[layer.name], 1) or "")) for layer in network.layers)
    return Network(name=network.name, layers=layers, digest=trace.digest(graph_module), graph_module=graph_module)


def _put(graph_module: fx.GraphModule, name: str, tensor: Tensor) -> None:
    owner, _, last = name.rpartition(".")
    module, own = graph_module.get_submodule(owner), channels_last(tensor.detach().clone())
    parameter = last in module._parameters
    delattr(module, last)  # a buffer that was not to be saved is one from now on: the digest shall hold it
    if parameter:
        module.register_parameter(last, nn.Parameter(own, requires_grad=False))
    else:
        module.register_buffer(last, own)


def _layer(layer: Layer, weight: Tensor | None) -> Layer:
    return layer if weight is None else replace(layer, weight=weight.numpy().copy())


def changed_tensors(network: Network, changes: Sequence[Change], base: Mapping[str, Floats] | None = None) -> dict[str, Floats]:
    """Return the stored tensors that changes bear on, float64 by name; those in ``base`` take the place of the network's own."""
    tensors = dict(base or {})
    with alone():
        for change in changes:
            for member in change.space.members:
                before = tensors.get(member.tensor)
                if before is None:
                    before = stored_tensor(network, member.tensor).to(torch.float64).contiguous().numpy()
                tensors[member.tensor] = _changed(before, member, change)
    return tensors


def _changed(tensor: Floats, member: Member, change: Change) -> Floats:
    if change.space.passes == "diagonal":
        return tensor * factors(member, change.map)
    # index and tensor have as many axes; the map for what is written is the map for what is read
    axis = vector_axis(member.index, change.space.size)
    assert axis is not None
    index = np.moveaxis(np.broadcast_to(member.index, tensor.shape), axis, -1)
    moved = np.array(np.moveaxis(tensor, axis, -1), order="C")
    flat, rows = moved.reshape(-1, moved.shape[-1]), index.reshape(-1, moved.shape[-1])
    inside = np.flatnonzero((rows != OUTSIDE).any(axis=1))
    order = np.argsort(rows[inside], axis=1, kind="stable")[:, -change.space.size :]  # where each channel stands
    vectors = torch.from_numpy(np.take_along_axis(flat[inside], order, axis=1))
    mapped = (vectors @ torch.from_numpy(change.map).T).numpy()
    flat[inside[:, np.newaxis], order] = mapped
    return np.ascontiguousarray(np.moveaxis(flat.reshape(moved.shape), -1, axis))


def factors(member: Member, scales: Floats) -> Floats:
    """Return what a member's elements are multiplied by for the factors of its space, float64, broadcasting against the tensor."""
    found: Floats = np.where(member.index == OUTSIDE, 1.0, scales[member.index] ** float(member.sign))
    return found


def rewritten(
    network: Network, changes: Sequence[Change], images: NDArray[np.float32], base: Mapping[str, Floats] | None = None
) -> Network:
    """Return the network with its spaces changed, each tensor rounded to float32 once.

    Raises ``BitatlasError`` where its logits on the first of ``images`` are not the same, naming the space that is at fault.
    """
    result = with_tensors(network, rounded(changed_tensors(network, changes, base)))
    if not same_function(network, result, images):
        _raise_for_culprit(network, changes, images, base)
    return result


def rounded(tensors: Mapping[str, Floats]) -> dict[str, Tensor]:
    """Return float64 tensors rounded to float32."""
    return {name: torch.from_numpy(values).to(torch.float32) for name, values in tensors.items()}


def same_function(before: Network, after: Network, images: NDArray[np.float32]) -> bool:
    """Whether two networks give the same logits on the first ``CHECKED`` images, up to ``TOLERANCE``."""
    if not len(images):
        raise InvalidValueError("images to compare networks on must be at least one, not none")
    expected, found = before.logits(images[:CHECKED]), after.logits(images[:CHECKED])
    return bool(np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max())


def _raise_for_culprit(
    network: Network, changes: Sequence[Change], images: NDArray[np.float32], base: Mapping[str, Floats] | None
) -> None:
    """Name the first space that changes the function by itself, or say that only all of them together do."""
    start = with_tensors(network, rounded(base or {}))
    for change in changes:
        alone_changed = with_tensors(network, rounded(changed_tensors(network, [change], base)))
        if not same_function(start, alone_changed, images):
            raise BitatlasError(f"logits must be the same after a change of channels, not differ (space {change.space})")
    raise BitatlasError(f"logits must be the same after a change of channels, not differ (all spaces of {network.name!r} together)")


def require(found: Sequence[Space], network: Network, step: str, wanted: str) -> None:
    """Refuse a network without a space that a step could change."""
    if not found:
        raise BitatlasError(f"step {step} must find {wanted} in the network, not none: {network.name!r}")
