"""The table: ONNX operator to torch function.

Every function takes the node's attributes and its inputs in order, None where one is left out. Inputs at the positions in
``Operator.tensors`` are tensors; the others are stored numbers (numpy arrays) or shapes (lists of Python). Semantics are those of
the operator sets from 13 on; what a set moved from attributes to inputs is read from either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dse.imports.shapes import as_sizes
from formats.errors import BitatlasError

Attributes = Mapping[str, Any]
ALL = tuple(range(64))


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A torch function in the place of an ONNX operator."""

    function: Callable[..., Any]
    tensors: tuple[int, ...] = (0,)


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return Operator(function=lambda attributes, x: function(x))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return Operator(function=lambda attributes, x, y: function(x, y), tensors=(0, 1))


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def apply(attributes: Attributes, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return Operator(function=apply, tensors=ALL)


def _number(value: Any, default: float | None = None) -> float | None:
    return default if value is None else float(np.asarray(value).reshape(()))


def _ints(attributes: Attributes, name: str, value: Any) -> list[int] | None:
    """Return whole numbers that are an input or, in earlier sets, an attribute."""
    found = attributes.get(name) if value is None else as_sizes(value)
    if found is None:
        return None
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _clip(attributes: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    return torch.clamp(x, _number(low), _number(high)) if low is not None or high is not None else x


def _gelu(attributes: Attributes, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=attributes.get("approximate", "none"))


def _softmax(attributes: Attributes, x: Tensor) -> Tensor:
    return torch.softmax(x, int(attributes.get("axis", -1)))


def _layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = int(attributes.get("axis", -1)) % x.ndim
    return functional.layer_norm(x, [int(size) for size in x.shape[axis:]], scale, bias, float(attributes.get("epsilon", 1e-5)))


def _batch_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, eps=float(attributes.get("epsilon", 1e-5)))


def _flatten(attributes: Attributes, x: Tensor) -> Tensor:
    axis = int(attributes.get("axis", 1)) % (x.ndim + 1)
    if axis == 1:
        return torch.flatten(x, 1)
    if axis == 0:
        return x.reshape(1, -1)
    return x.reshape(int(np.prod([int(size) for size in x.shape[:axis]])), -1)


def _reshape(attributes: Attributes, x: Tensor, shape: Any) -> Tensor:
    sizes = as_sizes(shape)
    if not attributes.get("allowzero"):
        sizes = [x.shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _transpose(attributes: Attributes, x: Tensor) -> Tensor:
    return x.permute(list(attributes.get("perm", range(x.ndim)[::-1])))


def _squeeze(attributes: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    found = _ints(attributes, "axes", axes)
    return torch.squeeze(x) if found is None else torch.squeeze(x, found)


def _unsqueeze(attributes: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    found = _ints(attributes, "axes", axes) or []
    for axis in sorted(number % (x.ndim + len(found)) for number in found):
        x = torch.unsqueeze(x, axis)
    return x


def _slice(attributes: Attributes, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    firsts, lasts = as_sizes(starts), as_sizes(ends)
    chosen = as_sizes(axes) if axes is not None else range(len(firsts))
    strides = as_sizes(steps) if steps is not None else [1] * len(firsts)
    for axis, first, last, stride in zip(chosen, firsts, lasts, strides, strict=True):
        if stride < 1:
            raise BitatlasError(f"steps of Slice must be 1 or more, not {stride}")
        x = x[tuple(slice(first, last, stride) if number == axis % x.ndim else slice(None) for number in range(x.ndim))]
    return x


def _gather(attributes: Attributes, x: Tensor, index: Any) -> Tensor:
    axis, found = int(attributes.get("axis", 0)), as_sizes(index)
    if isinstance(found, list):
        kept = torch.tensor(found)
        if kept.ndim != 1:
            raise BitatlasError(f"indices of Gather must be a number or a list, not of {kept.ndim} axes")
        return torch.index_select(x, axis, kept % x.shape[axis])
    return torch.select(x, axis, found)


def _split(attributes: Attributes, x: Tensor, sizes: Any = None) -> tuple[Tensor, ...]:
    axis, parts = int(attributes.get("axis", 0)), _ints(attributes, "split", sizes)
    if parts is None:
        count = int(attributes.get("num_outputs", 0))
        if not count:
            raise BitatlasError("Split must give sizes or num_outputs, not neither")
        return x.split(-(-int(x.shape[axis]) // count), axis)  # type: ignore[no-any-return,no-untyped-call]
    return x.split(parts, axis)  # type: ignore[no-any-return,no-untyped-call]


def _concat(attributes: Attributes, *parts: Tensor) -> Tensor:
    return torch.cat(parts, int(attributes["axis"]))


def _expand(attributes: Attributes, x: Tensor, shape: Any) -> Tensor:
    sizes = as_sizes(shape)
    own = [1] * (len(sizes) - x.ndim) + list(x.shape)
    sizes = [1] * (len(own) - len(sizes)) + sizes
    return x.expand([size if isinstance(mine, int) and mine == 1 else mine for mine, size in zip(own, sizes, strict=True)])


def _pad(attributes: Attributes, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    if attributes.get("mode", "constant") != "constant":
        raise BitatlasError(f"mode of Pad must be constant, not {attributes['mode']}")
    given = _ints(attributes, "pads", pads) or []
    chosen = as_sizes(axes) if axes is not None else list(range(x.ndim))
    ends = {axis % x.ndim: (given[i], given[i + len(chosen)]) for i, axis in enumerate(chosen)}
    flat = [size for axis in reversed(range(x.ndim)) for size in ends.get(axis, (0, 0))]
    return functional.pad(x, flat, value=_number(value, float(attributes.get("value", 0.0))) or 0.0)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def apply(attributes: Attributes, x: Tensor, axes: Any = None) -> Tensor:
        found = _ints(attributes, "axes", axes)
        if not found and attributes.get("noop_with_empty_axes"):
            return x
        return function(x, dim=found or list(range(x.ndim)), keepdim=bool(attributes.get("keepdims", 1)))

    return Operator(function=apply)


def _cast(attributes: Attributes, x: Tensor) -> Tensor:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float32}
    if attributes["to"] not in kinds:
        raise BitatlasError(f"type of Cast must be float32, int32, int64 or bool, not number {attributes['to']}")
    return x.to(kinds[attributes["to"]])


def _global_pool(function: Callable[[Tensor, list[int]], Tensor]) -> Operator:
    return Operator(function=lambda attributes, x: function(x, list(range(2, x.ndim))))


def padding(attributes: Attributes, sizes: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Return what a window operator pads each axis with, before and after; ``sizes`` are those of its input."""
    mode, count = attributes.get("auto_pad", "NOTSET"), len(kernel)
    if mode == "VALID":
        return [(0, 0)] * count
    strides, dilations = attributes.get("strides", [1] * count), attributes.get("dilations", [1] * count)
    if mode == "NOTSET":
        pads = list(attributes.get("pads", [0] * 2 * count))
        return list(zip(pads[:count], pads[count:], strict=True))
    found = []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + dilation * (window - 1) + 1 - size, 0)
        half = total // 2
        found.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
    return found


def padded(x: Tensor, ends: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Pad the last axes of a tensor."""
    flat = [size for pair in reversed(ends) for size in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


def _max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    kernel = list(attributes["kernel_shape"])
    ends = padding(attributes, [int(size) for size in x.shape[2:]], kernel)
    function = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[len(kernel)]
    even = all(before == after and 2 * before <= window for (before, after), window in zip(ends, kernel, strict=True))
    x = x if even else padded(x, ends, float("-inf"))
    return function(
        x,
        kernel,
        list(attributes.get("strides", [1] * len(kernel))),
        [before for before, _ in ends] if even else 0,
        list(attributes.get("dilations", [1] * len(kernel))),
        bool(attributes.get("ceil_mode", 0)),
    )


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    kernel = list(attributes["kernel_shape"])
    ends, counted = padding(attributes, [int(size) for size in x.shape[2:]], kernel), bool(attributes.get("count_include_pad", 0))
    function: Callable[..., Tensor] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(kernel)]
    if any(step != 1 for step in attributes.get("dilations", [])):
        raise BitatlasError("dilations of AveragePool must be 1, not more")
    if any(before != after for before, after in ends):
        if not counted:
            raise BitatlasError("padding of AveragePool must be the same on both sides, or be counted, not differ")
        x, ends = padded(x, ends, 0.0), [(0, 0)] * len(kernel)
    strides, before = list(attributes.get("strides", [1] * len(kernel))), [first for first, _ in ends]
    return function(x, kernel, strides, before, bool(attributes.get("ceil_mode", 0)), counted)


def _where(attributes: Attributes, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


#: layers, which ``dse.imports.module`` makes
LAYERS = ("Conv", "Gemm", "MatMul")

OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": Operator(function=_average_pool),
    "BatchNormalization": Operator(function=_batch_norm, tensors=ALL),
    "Cast": Operator(function=_cast),
    "Clip": Operator(function=_clip),
    "Concat": Operator(function=_concat, tensors=ALL),
    "Cos": _unary(torch.cos),
    "Div": _binary(torch.div),
    "Dropout": Operator(function=lambda attributes, x, *others: x),
    "Elu": Operator(function=lambda attributes, x: functional.elu(x, float(attributes.get("alpha", 1.0)))),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": Operator(function=_expand),
    "Flatten": Operator(function=_flatten),
    "Gather": Operator(function=_gather),
    "Gelu": Operator(function=_gelu),
    "GlobalAveragePool": _global_pool(lambda x, axes: torch.mean(x, axes, keepdim=True)),
    "GlobalMaxPool": _global_pool(lambda x, axes: torch.amax(x, axes, keepdim=True)),
    "HardSigmoid": Operator(
        function=lambda attributes, x: torch.clamp(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0, 1)
    ),
    "HardSwish": _unary(functional.hardswish),
    "Identity": Operator(function=lambda attributes, x: x),
    "LayerNormalization": Operator(function=_layer_norm, tensors=ALL),
    "LeakyRelu": Operator(function=lambda attributes, x: functional.leaky_relu(x, float(attributes.get("alpha", 0.01)))),
    "Log": _unary(torch.log),
    "Max": _variadic(torch.maximum),
    "MaxPool": Operator(function=_max_pool),
    "Min": _variadic(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pad": Operator(function=_pad),
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": Operator(function=_reshape),
    "Shape": Operator(function=lambda attributes, x: list(x.shape)[attributes.get("start", 0) : attributes.get("end")]),
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "Slice": Operator(function=_slice),
    "Softmax": Operator(function=_softmax),
    "Softplus": _unary(functional.softplus),
    "Split": Operator(function=_split),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": Operator(function=_squeeze),
    "Sub": _binary(torch.sub),
    "Swish": Operator(function=lambda attributes, x: x * torch.sigmoid(float(attributes.get("alpha", 1.0)) * x)),
    "Tanh": _unary(torch.tanh),
    "Transpose": Operator(function=_transpose),
    "Unsqueeze": Operator(function=_unsqueeze),
    "Where": Operator(function=_where, tensors=ALL),
}
