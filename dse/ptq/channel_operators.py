"""What every operator asks of the labels of its operands, and which labels its result has.

Only what is listed here passes factors or orthogonal maps on: an operator that is not known lets nothing pass. An orthogonal map
of the channels passes what acts on every channel alike; a layer norm passes it where it keeps the vector of ones, and with it every
mean and variance, and where its scale is the same for all channels.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from dse import trace
from dse.network import Network
from dse.ptq.channel_labels import (
    ANY_FIBRE,
    PADDING_FIBRE,
    PINNED,
    Labelling,
    Labels,
    Passes,
    is_slot,
    owner,
    parameter_of,
    spread,
)
from dse.ptq.channel_layers import convolution, linear, norm, product
from dse.trace import aten

Rule = Callable[[Labelling, fx.Node], Any]

#: hand their first operand on as it is
_SAME = (aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default, aten.dropout.default)
#: put elements in other places, and leave them as they are
MOVES = (
    aten.reshape.default,
    aten.transpose.int,
    aten.permute.default,
    aten.t.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.expand.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.narrow.default,
    aten.cat.default,
    aten.stack.default,
    aten.chunk.default,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    aten.flip.default,
    aten.roll.default,
    aten.repeat.default,
    aten.repeat_interleave.self_int,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
)
#: multiply their result by whatever positive factor their operand is multiplied by
_HOMOGENEOUS = (aten.relu.default, aten.leaky_relu.default, aten.prelu.default, aten.abs.default)
#: are linear besides, and the same for all channels
_LINEAR = (aten.neg.default,)
#: by the number of their last axes that they work along, each channel by itself: the greatest of a window
_GREATEST = {aten.max_pool1d.default: 1, aten.max_pool2d.default: 2, aten.max_pool3d.default: 3}
#: the same for sums with equal weights for all channels
_SMOOTH = {
    aten.avg_pool1d.default: 1,
    aten.avg_pool2d.default: 2,
    aten.avg_pool3d.default: 3,
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
    aten.upsample_nearest1d.vec: 1,
    aten.upsample_nearest2d.vec: 2,
    aten.upsample_bilinear2d.vec: 2,
}
MEANS = (aten.mean.dim, aten.sum.dim_IntList)
_EXTREMES = (aten.amax.default, aten.amin.default)


def labelled(network: Network, passes: Passes) -> Labelling:
    """Label every tensor of a network and gather the equations between labels."""
    labelling = Labelling(network, passes)
    for node in network.graph_module.graph.nodes:
        if node.op == "placeholder":
            labelling.values[node] = labelling.pinned(trace.shape(node))
        elif is_slot(node) and parameter_of(node) is None:
            labelling.values[node] = labelling.values[node.args[0]]
        elif node.op == "output":
            fx.map_arg(node.args, lambda given: labelling.pin(labelling.argument(given)))
        elif node.op == "call_function":
            labelling.values[node] = _RULES.get(node.target, Labelling.stop)(labelling, node)
    return labelling


def _same(labelling: Labelling, node: fx.Node) -> Any:
    return labelling.argument(node.args[0])


def _homogeneous(labelling: Labelling, node: fx.Node) -> Any:
    return labelling.stop(node) if labelling.orthogonal else _same(labelling, node)


def _clamped(labelling: Labelling, node: fx.Node) -> Any:
    bounds = [*node.args[1:], *node.kwargs.values()]
    return _homogeneous(labelling, node) if bounds in ([0], [0, None]) else labelling.stop(node)


def _size(labelling: Labelling, node: fx.Node) -> int:
    labels, axis = labelling.argument(node.args)
    return int(labels.shape[axis])


def _item(labelling: Labelling, node: fx.Node) -> Any:
    values, index = labelling.argument(node.args)
    return values[index]


def _moved(labelling: Labelling, node: fx.Node) -> Any:
    """Move labels as the operator moves the elements."""
    given: Any = (labelling.argument(node.args), labelling.argument(node.kwargs))
    if node.target == aten.cat.default:
        given = fx.node.map_aggregate(given, lambda value: _settled(labelling, value) if isinstance(value, Labels) else value)
    loose = labelling.orthogonal and any(bool((labels.fibre == ANY_FIBRE).any()) for labels in _labels_in(given))
    if loose and node.target != aten.expand.default:
        return labelling.stop(node)  # one could no longer tell which elements of a stored tensor make up a vector
    variable, fibre = (_called(node.target, given, part) for part in ("variable", "fibre"))
    if isinstance(variable, Tensor):
        labelling.moved.append(Labels(variable=variable, fibre=fibre))
        return labelling.moved[-1]
    made = tuple(Labels(variable=one, fibre=other) for one, other in zip(variable, fibre, strict=True))
    labelling.moved += made
    return made


def _settled(labelling: Labelling, labels: Labels) -> Labels:
    """Take a stored tensor's last axis for its channels, so that its vectors have numbers; where it is not, no map will pass."""
    if not labelling.orthogonal or not bool((labels.fibre == ANY_FIBRE).all()):
        return labels
    numbers = spread(labels.shape, range(len(labels.shape) - 1))
    return Labels(variable=labels.variable, fibre=labelling.own_fibres(numbers))


def _called(target: Any, given: Any, part: str) -> Any:
    args, kwargs = fx.node.map_aggregate(given, lambda value: getattr(value, part) if isinstance(value, Labels) else value)
    return target(*args, **kwargs)


def _labels_in(given: Any) -> list[Labels]:
    found: list[Labels] = []
    fx.node.map_aggregate(given, lambda value: found.append(value) if isinstance(value, Labels) else None)
    return found


def _padded(labelling: Labelling, node: fx.Node) -> Any:
    """Give zeros around a tensor labels of their own: they are what any factor leaves them."""
    sizes: Any = labelling.argument(node.args[1])
    rest = [value for value in (*node.args[2:], *node.kwargs.values()) if value not in ("constant", None)]
    if any(value != 0 for value in rest):
        return labelling.stop(node)
    labels = labelling.argument(node.args[0])
    variable = aten.constant_pad_nd(labels.variable, sizes, -1)
    around = variable == -1
    variable[around] = labelling.fresh(int(around.sum()))
    return Labels(variable=variable, fibre=aten.constant_pad_nd(labels.fibre, sizes, PADDING_FIBRE))


def _windows(labelling: Labelling, node: fx.Node) -> Labels:
    """Tie labels along the axes that windows slide over."""
    labels: Labels = labelling.argument(node.args[0])
    axes = range(-{**_GREATEST, **_SMOOTH}[node.target], 0)  # type: ignore[index]
    shape = trace.shape(node)
    return Labels(variable=labelling.constant_along(labels.variable, axes).expand(shape), fibre=spread(shape, axes))


def _greatest(labelling: Labelling, node: fx.Node) -> Any:
    return labelling.stop(node) if labelling.orthogonal else _windows(labelling, node)


def _reduced(labelling: Labelling, node: fx.Node) -> Any:
    """Tie labels along the axes that are summed over, or the greatest along them is taken of."""
    labels: Labels = labelling.argument(node.args[0])
    if labelling.orthogonal and node.target in _EXTREMES:
        return labelling.stop(node)
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    listed = [given] if isinstance(given, int) else given
    axes = sorted(axis % len(labels.shape) for axis in (listed or range(len(labels.shape))))
    variable, fibre = labelling.constant_along(labels.variable, axes), labels.fibre
    for axis in axes:
        fibre = fibre.narrow(axis, 0, 1)
    shape = trace.shape(node)
    return Labels(variable=variable.reshape(shape), fibre=fibre.reshape(shape))


def _sum(labelling: Labelling, node: fx.Node) -> Any:
    """Tie the labels of the terms."""
    left, right = labelling.argument(node.args[:2])
    if not (isinstance(left, Labels) and isinstance(right, Labels)):
        return labelling.stop(node)
    shape = trace.shape(node)
    fibres = [term.fibre.expand(shape) for term in (left, right)]
    loose = [fibre == ANY_FIBRE for fibre in fibres]
    if labelling.orthogonal and not _aligned(*(fibre[~loose[0] & ~loose[1]] for fibre in fibres)):
        return labelling.stop(node)
    labelling.tie(left.variable, right.variable)
    fibre = fibres[0] if not loose[0].any() else fibres[1] if loose[0].all() else torch.where(loose[0], fibres[1], fibres[0])
    return Labels(variable=left.variable.expand(shape), fibre=fibre)


def _aligned(left: Tensor, right: Tensor) -> bool:
    """Whether elements that lie in one vector on one side do so on the other, whatever the numbers of the vectors."""
    pairs = torch.unique(torch.stack([left, right]), dim=1)
    return all(len(torch.unique(numbers)) == pairs.shape[1] for numbers in pairs)


def _scaled(labelling: Labelling, node: fx.Node) -> Any:
    """Let a number pass; let a stored factor of every channel part the labels before it from those after it."""
    arguments: tuple[Any, ...] = node.args[:2]
    # a divisor is the second argument
    for one, other in (arguments, arguments[::-1])[: 2 if node.target == aten.mul.Tensor else 1]:
        labels, stored = labelling.argument(one) if isinstance(one, fx.Node) else one, parameter_of(other)
        if not isinstance(labels, Labels):
            continue
        if not isinstance(other, fx.Node) or (stored is not None and labelling.attribute(stored).numel() == 1):
            return _stretched(labels, node)
        if labelling.orthogonal or node.target != aten.mul.Tensor:
            continue
        if stored is not None and parameter_of(one) is None:
            return _scaled_by_channel(labelling, node, labels, stored)
        gate = labelling.argument(other)
        if isinstance(gate, Labels) and bool((gate.variable == PINNED).all()):
            return _stretched(labels, node)
    return labelling.stop(node)


def _stretched(labels: Labels, node: fx.Node) -> Labels:
    shape = trace.shape(node)
    return Labels(variable=labels.variable.expand(shape), fibre=labels.fibre.expand(shape))


def _scaled_by_channel(labelling: Labelling, node: fx.Node, labels: Labels, stored: fx.Node) -> Any:
    if not labelling.stored_once(stored):
        return labelling.stop(node)
    name, shape = str(stored.target), trace.shape(node)
    factors = labelling.attribute(stored)
    aligned = (1,) * (len(shape) - factors.ndim) + tuple(factors.shape)
    axes = [axis for axis, size in enumerate(aligned) if size == 1]
    before = labelling.constant_along(labels.variable.expand(shape), axes).reshape(factors.shape)
    after = labelling.fresh(*factors.shape)
    labelling.touch(name, owner(name), "scale", 1, after)
    labelling.touch(name, owner(name), "scale", -1, before)
    return Labels(variable=after.reshape(aligned).expand(shape), fibre=labels.fibre.expand(shape))


_RULES: Mapping[Any, Rule] = {
    **dict.fromkeys(_SAME + _LINEAR, _same),
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(_HOMOGENEOUS, _homogeneous),
    aten.clamp.default: _clamped,
    aten.sym_size.int: _size,
    operator.getitem: _item,
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), _padded),
    **dict.fromkeys(_GREATEST, _greatest),
    **dict.fromkeys(_SMOOTH, _windows),
    **dict.fromkeys(MEANS + _EXTREMES, _reduced),
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor), _sum),
    **dict.fromkeys((aten.mul.Tensor, aten.div.Tensor), _scaled),
    **dict.fromkeys((*trace.CONVOLUTIONS, *trace.PADDED_CONVOLUTIONS), convolution),
    aten.linear.default: linear,
    **dict.fromkeys(trace.PRODUCTS, product),
    **dict.fromkeys((aten.layer_norm.default, aten.rms_norm.default), norm),
}
