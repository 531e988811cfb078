"""Which layers must share their formats: those that read one tensor, and those that a user's patterns tie."""

import difflib
import re
from collections.abc import Hashable, Iterable, Sequence

from torch import fx

from dse.network import Network, slot_path
from dse.trace import aten
from formats.errors import InvalidValueError

#: operators whose result holds the values of their first argument, moved or copied, and no others
MOVING = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,  # networks are traced in evaluation mode, where it does nothing
    aten.expand.default,
    aten.flatten.using_ints,
    aten.flip.default,
    aten.movedim.int,
    aten.permute.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.repeat.default,
    aten.reshape.default,
    aten.roll.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.swapaxes.default,
    aten.t.default,
    aten.transpose.int,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten._unsafe_view.default,
)


def ties(network: Network, patterns: Sequence[str] = (), automatic: bool = True) -> tuple[tuple[str, ...], ...]:
    r"""Return the layers in groups that share their formats, groups and their layers in the network's order, each layer in one.

    Automatically tied are layers whose activation is one and the same tensor, also where operators between only move or copy its
    values (``MOVING``): query, key and value of an attention, the first convolution of a residual block and the one of its
    shortcut. The hardware then stores that tensor once. The second factor of a product ties nothing.

    A pattern is a regular expression for whole layer names; layers for which its groups capture equal text are tied:
    ``blocks\.(\d+)\.(?:up|down)`` ties two layers of each block, a pattern without groups all that it matches. Raises
    ``InvalidValueError`` for a pattern that is no regular expression and for one that matches no layer.
    """
    names = [layer.name for layer in network.layers]
    leaders = {name: name for name in names}
    if automatic:
        _unite(leaders, ((name, _source(network, index)) for index, name in enumerate(names)))
    for pattern in patterns:
        _unite(leaders, _matches(pattern, names))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_leader(leaders, name), []).append(name)
    return tuple(tuple(group) for group in groups.values())


def _unite(leaders: dict[str, str], keyed: Iterable[tuple[str, Hashable]]) -> None:
    """Tie the names that have equal keys, with all that they were tied to before."""
    first: dict[Hashable, str] = {}
    for name, key in keyed:
        leaders[_leader(leaders, name)] = _leader(leaders, first.setdefault(key, name))


def _leader(leaders: dict[str, str], name: str) -> str:
    while leaders[name] != name:
        name = leaders[name]
    return name


def _source(network: Network, index: int) -> str:
    """Return the name of the node that made the values of a layer's activation."""
    path = slot_path(index, "activation")
    node = next(node for node in network.graph_module.graph.nodes if node.op == "call_module" and node.target == path)
    while node.op == "call_module" or node.target in MOVING:
        node = node.args[0]
        assert isinstance(node, fx.Node)
    return str(node.name)


def _matches(pattern: str, names: Sequence[str]) -> list[tuple[str, tuple[str | None, ...]]]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidValueError(f"pattern of ties must be a regular expression, not {pattern!r} ({error})") from None
    found = [(name, match.groups()) for name in names if (match := compiled.fullmatch(name))]
    if not found:
        near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
        raise InvalidValueError(f"pattern of ties must match a layer's whole name, not {pattern!r}; nearest: {', '.join(near)}")
    return found
