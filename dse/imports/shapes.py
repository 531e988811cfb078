"""Operators on shapes: whole numbers, some of them known only when the network runs, as lists and numbers of Python."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

#: a shape, or one size of it
Sizes = list[Any] | Any


def as_sizes(value: Any) -> Sizes:
    """Return stored whole numbers, or a shape that was computed, as Python has them."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _gather(attributes: Mapping[str, Any], sizes: Sizes, index: Sizes) -> Sizes:
    return [sizes[i] for i in index] if isinstance(index, list) else sizes[index]


def _slice(
    attributes: Mapping[str, Any], sizes: Sizes, starts: Sizes, ends: Sizes, axes: Sizes = None, steps: Sizes = None
) -> Sizes:
    step = 1 if steps is None else steps[0]
    return sizes[slice(starts[0], ends[0], step)]


def _concat(attributes: Mapping[str, Any], *parts: Sizes) -> Sizes:
    return [size for part in parts for size in (part if isinstance(part, list) else [part])]


def _wrap(attributes: Mapping[str, Any], size: Sizes, axes: Sizes = None) -> Sizes:
    return size if isinstance(size, list) else [size]


def _unwrap(attributes: Mapping[str, Any], sizes: Sizes, axes: Sizes = None) -> Sizes:
    return sizes[0] if isinstance(sizes, list) and len(sizes) == 1 else sizes


def _same(attributes: Mapping[str, Any], sizes: Sizes) -> Sizes:
    return sizes


def _elementwise(combine: Callable[[Any, Any], Any]) -> Callable[..., Sizes]:
    def apply(attributes: Mapping[str, Any], first: Sizes, second: Sizes) -> Sizes:
        many = [len(one) for one in (first, second) if isinstance(one, list)]
        if not many:
            return combine(first, second)
        firsts, seconds = (_times(one, max(many)) for one in (first, second))
        return [combine(one, other) for one, other in zip(firsts, seconds, strict=True)]

    return apply


def _times(sizes: Sizes, count: int) -> Sequence[Any]:
    if not isinstance(sizes, list):
        return [sizes] * count
    return sizes * count if len(sizes) == 1 else sizes


#: by ONNX operator: from attributes and inputs
OPERATORS: Mapping[str, Callable[..., Sizes]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _wrap,
    "Reshape": _wrap,
    "Squeeze": _unwrap,
    "Cast": _same,
    "Identity": _same,
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _elementwise(lambda a, b: a // b),
}
