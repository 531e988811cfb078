"""What layers, products and norms ask of the labels of their operands: these are where channels begin and end."""

from typing import Any

import torch
from torch import fx

from dse import trace
from dse.ptq.channel_labels import PINNED, Labelling, Labels, Rows, layer_of, owner, parameter_of, spread
from dse.trace import aten


def convolution(labelling: Labelling, node: fx.Node) -> Any:
    """Label the channels of a convolution of any number of axes."""
    weight = parameter_of(node.args[1])
    assert weight is not None
    axes = labelling.attribute(weight).ndim - 2
    given: Any = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return _layer(labelling, node, channel_axis=-axes - 1, groups=int(given))


def linear(labelling: Labelling, node: fx.Node) -> Any:
    """Label the features of a linear layer."""
    return _layer(labelling, node, channel_axis=-1, groups=1)


def _layer(labelling: Labelling, node: fx.Node, *, channel_axis: int, groups: int) -> Any:
    """Part the labels of a layer's input channels from new ones of its output channels; zeros around an image carry any factor."""
    weight, bias = parameter_of(node.args[1]), parameter_of(node.args[2])
    assert weight is not None
    assert bias is not None
    labels: Labels = labelling.argument(node.args[0])
    name = layer_of(labelling.network, node).name
    labelling.read(labels, name, "activation")
    if not labelling.stored_once(weight, bias):
        labelling.pin(labels)
        return labelling.pinned(trace.shape(node))
    shape, stored = trace.shape(node), labelling.attribute(weight).shape
    others = [axis for axis in range(len(shape)) if axis != channel_axis % len(shape)]
    inputs, outputs = labelling.constant_along(labels.variable, others).reshape(-1), labelling.fresh(stored[0])
    trailing = (1,) * (len(stored) - 2)
    columns = inputs.reshape(groups, 1, stored[1]).expand(groups, stored[0] // groups, stored[1])
    labelling.touch(str(weight.target), name, "weight", -1, columns.reshape(stored[0], stored[1], *trailing))
    labelling.touch(str(weight.target), name, "weight", 1, outputs.reshape(stored[0], 1, *trailing))
    labelling.touch(str(bias.target), name, "bias", 1, outputs)
    labelling.rows += [Rows(variable=inputs.reshape(groups, -1)), Rows(variable=outputs.reshape(groups, -1))]
    along = [stored[0] if axis == channel_axis % len(shape) else 1 for axis in range(len(shape))]
    return Labels(variable=outputs.reshape(along).expand(shape), fibre=spread(shape, others))


def product(labelling: Labelling, node: fx.Node) -> Any:
    """Let the second factor's columns pass where what mixes its rows is pinned; else tie the two inversely where they contract."""
    left, right = labelling.argument(node.args[:2])
    layer, shape = layer_of(labelling.network, node).name, trace.shape(node)
    if len(left.shape) < 2 or len(right.shape) < 2:
        return labelling.stop(node)
    labelling.read(left, layer, "activation")
    labelling.read(right, layer, "weight")
    if bool((left.variable == PINNED).all()):
        channels = labelling.constant_along(right.variable, [-2])
        labelling.rows.append(Rows(variable=channels.reshape(-1, channels.shape[-1])))
        return Labels(variable=channels.expand(shape), fibre=spread(shape, [-2]))
    rows = labelling.constant_along(left.variable, [-2])
    columns = labelling.constant_along(right.variable, [-1]).transpose(-1, -2)
    labelling.invert(rows, columns)
    labelling.rows += [Rows(variable=part.reshape(-1, part.shape[-1])) for part in (rows, columns)]
    return labelling.pinned(shape)


def norm(labelling: Labelling, node: fx.Node) -> Any:
    """Part the labels before a norm, which are pinned, from those of its scale and shift; or let an orthogonal map through."""
    normalised: Any = node.args[1]
    given = [argument for argument in (*node.args[2:4], None, None) if argument is None or isinstance(argument, fx.Node)]
    scale, shift = (parameter_of(argument) for argument in given[:2])
    computed = [argument for argument in given[:2] if argument is not None and parameter_of(argument) is None]
    if computed or (scale is None and shift is not None) or not labelling.stored_once(scale, shift):
        return labelling.stop(node)
    if labelling.orthogonal:
        return _norm_of_vectors(labelling, node, scale, shift)
    labels, shape = labelling.argument(node.args[0]), trace.shape(node)
    labelling.pin(labels)
    if scale is None:
        return labelling.pinned(shape)
    variable = labelling.fresh(*normalised)
    labelling.touch(str(scale.target), owner(str(scale.target)), "scale", 1, variable)
    if shift is not None:
        labelling.touch(str(shift.target), owner(str(shift.target)), "shift", 1, variable)
    return Labels(variable=variable.expand(shape), fibre=spread(shape, range(len(shape) - len(normalised))))


def _norm_of_vectors(labelling: Labelling, node: fx.Node, scale: fx.Node | None, shift: fx.Node | None) -> Any:
    normalised: Any = node.args[1]
    labels: Labels = labelling.argument(node.args[0])
    factors = torch.ones(1) if scale is None else labelling.attribute(scale)
    if len(normalised) != 1 or bool((factors != factors.reshape(-1)[0]).any()):
        return labelling.stop(node)
    labelling.rows.append(
        Rows(variable=labels.variable.reshape(-1, normalised[0]), norm=node.name, mean=node.target == aten.layer_norm.default)
    )
    if shift is not None:
        channels = labelling.constant_along(labels.variable, range(len(labels.shape) - 1)).reshape(-1)
        labelling.touch(str(shift.target), owner(str(shift.target)), "shift", 1, channels)
    return labels
