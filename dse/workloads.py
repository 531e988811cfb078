"""Workloads of the layers of a traced graph: counts and shapes for one sample."""

import math
from typing import Any, Literal

from torch import fx

from dse import trace
from dse.trace import aten
from hwmodels.workload import Convolution, LayerWorkload

#: arguments of convolutions after input and weight, in order, with what they are where none is given
_ARGUMENTS: tuple[tuple[str, Any], ...] = (("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))


def workload(node: fx.Node, kind: Literal["convolution", "linear", "product"], name: str) -> LayerWorkload:
    """Return what a layer's node computes for a batch of one."""
    activation, operand = node.args[0], node.args[1]
    assert isinstance(activation, fx.Node)
    assert isinstance(operand, fx.Node)
    stored = trace.shape(operand)
    outputs = math.prod(trace.shape(node))
    if kind == "convolution":
        dot_length = math.prod(stored[1:])  # input channels of one group times the kernel
    else:
        dot_length = stored[-1] if node.target == aten.linear.default else stored[-2]
    return LayerWorkload(
        name=name,
        kind=kind,
        macs=outputs * dot_length,
        weights=0 if kind == "product" else math.prod(stored),
        output_channels=stored[-1 if kind == "product" else 0],
        activations_in=math.prod(trace.shape(activation)),
        activations_out=outputs,
        dot_length=dot_length,
        matrices=math.prod(stored[:-2]) if kind == "product" else 1,
        convolution=_convolution(node) if kind == "convolution" else None,
    )


def _convolution(node: fx.Node) -> Convolution:
    activation, weight = node.args[0], node.args[1]
    assert isinstance(activation, fx.Node)
    assert isinstance(weight, fx.Node)
    kernel, input_shape = trace.shape(weight)[2:], trace.shape(activation)
    given = dict(zip([name for name, _ in _ARGUMENTS], node.args[2:], strict=False)) | dict(node.kwargs)
    values = {name: given.get(name, default) for name, default in _ARGUMENTS}
    dilation = _for_axes(values["dilation"], len(kernel))
    return Convolution(
        input_channels=input_shape[-len(kernel) - 1],
        groups=int(values["groups"]),
        kernel=kernel,
        stride=_for_axes(values["stride"], len(kernel)),
        padding=_padding(values["padding"], kernel, dilation),
        dilation=dilation,
        input_size=input_shape[-len(kernel) :],
        output_size=trace.shape(node)[-len(kernel) :],
    )


def _for_axes(given: Any, axes: int) -> tuple[int, ...]:
    values = tuple(int(value) for value in given) if isinstance(given, (list, tuple)) else (int(given),)
    return values * axes if len(values) == 1 else values


def _padding(given: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the zeros before and after each axis; an odd number of them for ``same`` has the last one after."""
    if given == "same":
        totals = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    zeros = _for_axes(0 if given == "valid" else given, len(kernel))
    return tuple((zero, zero) for zero in zeros)
