"""Operators that only move numbers about."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from dse import trace
from dse.hardware.builder import finest
from dse.hardware.compiling import Compiler, arguments, lowers
from dse.hardware.program import Value
from dse.hardware.steps import REARRANGEMENTS, Join, MultiplyConstant, Rearrange
from dse.trace import aten
from formats.errors import BitatlasError

_RESHAPES = (
    aten.reshape.default,
    aten.view.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.unsqueeze.default,
    aten.unflatten.int,
    aten._unsafe_view.default,
    aten.select.int,
)
_PERMUTATIONS = (aten.permute.default, aten.transpose.int, aten.t.default)
_SAME = (
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.dropout.default,
)
#: an end of a slice from which on it means all there is, whatever the length
ALL = 2**31
#: operators that may stand between the network's input and its quantizer
REARRANGING = (*_RESHAPES, *_PERMUTATIONS, *_SAME, aten.slice.Tensor)


@lowers(*_SAME)
def _same(made: Compiler, node: fx.Node) -> Value:
    return made.value(node.args[0])


@lowers(*(target for target in _RESHAPES if target is not aten.select.int))
def _reshape(made: Compiler, node: fx.Node) -> Value:
    (source,) = arguments(node)[:1]
    return reshape(made, made.value(source), trace.shape(source), trace.shape(node), made.sample_axes(node))


@lowers(*_PERMUTATIONS)
def _permute(made: Compiler, node: fx.Node) -> Value:
    given = arguments(node, None, 0, 1)
    source = trace.shape(given[0])
    axes = list(range(len(source)))
    if node.target is aten.permute.default:
        axes = [axis % len(source) for axis in given[1]]
    else:
        first, second = given[1] % len(source), given[2] % len(source)
        axes[first], axes[second] = axes[second], axes[first]
    return rearrange(made, made.value(given[0]), "permute", tuple(axes), source, made.sample_axes(node))


@lowers(aten.slice.Tensor)
def _slice(made: Compiler, node: fx.Node) -> Value:
    given, axis, first, end, step = arguments(node, None, 0, 0, None, 1)
    axis %= len(trace.shape(given))
    if first in (None, 0) and step == 1 and (end is None or end >= ALL):
        return made.value(given)
    return _cut(made, given, axis, slice(*slice(first, end, step).indices(trace.shape(given)[axis])))


@lowers(aten.select.int)
def _select(made: Compiler, node: fx.Node) -> Value:
    given, axis, index = arguments(node)
    source = trace.shape(given)
    axis %= len(source)
    value = _cut(made, given, axis, slice(index % source[axis], index % source[axis] + 1, 1))
    one = (*source[:axis], 1, *source[axis + 1 :])
    return reshape(made, value, one, trace.shape(node), made.sample_axes(node))


def _cut(made: Compiler, source: fx.Node, axis: int, part: slice) -> Value:
    if axis in made.sample_axes(source):
        raise BitatlasError(f"samples must stay together in whole-number arithmetic ({made.builder.where})")
    given = (axis, part.start, part.stop, part.step)
    return rearrange(made, made.value(source), "slice", given, trace.shape(source), made.sample_axes(source))


@lowers(aten.expand.default)
def _expand(made: Compiler, node: fx.Node) -> Value:
    (source,) = arguments(node)[:1]
    axes = made.sample_axes(node)
    lengths = tuple(-1 if axis in axes else length for axis, length in enumerate(trace.shape(node)))
    return rearrange(made, made.value(source), "expand", lengths, trace.shape(source), axes)


@lowers(aten.cat.default, aten.stack.default)
def _cat(made: Compiler, node: fx.Node) -> Value:
    parts, axis = arguments(node, None, 0)
    shape = trace.shape(node)
    axis %= len(shape)
    if axis in made.sample_axes(node):
        raise BitatlasError(f"samples must stay apart in whole-number arithmetic ({node.name})")
    if node.target is aten.stack.default:
        one = (*shape[:axis], 1, *shape[axis + 1 :])
        values = [reshape(made, made.value(part), trace.shape(part), one, made.sample_axes(node)) for part in parts]
    else:
        beside = next(part for part in parts if isinstance(made.made[part], Value))
        values = [_computed(made, part, beside, axis) for part in parts]
    unit = finest(np.concatenate([value.unit.reshape(-1) for value in values]), (0,)).item()
    same = [made.builder.rescale(value, np.full((1,) * value.unit.ndim, unit)) for value in values]
    ends = min(each.low for each in same), max(each.high for each in same)
    return made.builder.emit(Join(axis=axis), same, same[0].unit, *ends)


def _computed(made: Compiler, part: fx.Node, beside: fx.Node, axis: int) -> Value:
    """Return what is joined; something stored, such as a class token, once for each sample of what it stands beside."""
    found = made.made[part]
    if isinstance(found, Value):
        return found
    value = _cut(made, beside, axis, slice(0, 1, 1))
    nothing = made.builder.emit(MultiplyConstant(numbers=np.array(0)), [value], value.unit, 0, 0)
    return made.builder.add_constant(made.builder.unify(nothing), np.asarray(found, np.float64))


def reshape(made: Compiler, value: Value, source: tuple[int, ...], wanted: tuple[int, ...], samples: tuple[int, ...]) -> Value:
    """Return the value in another shape; shapes are for one sample, and ``samples`` the axes that are longer for more."""
    if len(samples) != 1:
        raise BitatlasError(f"one axis must hold the samples, not {len(samples)} ({made.builder.where})")
    lengths = tuple(-1 if axis in samples else length for axis, length in enumerate(wanted))
    return rearrange(made, value, "reshape", lengths, source, samples)


def rearrange(
    made: Compiler, value: Value, kind: str, given: tuple[int, ...], source: tuple[int, ...], samples: tuple[int, ...]
) -> Value:
    """Return the rearranged value; its units go the same way, or become one where they would differ along an axis of samples."""
    unit = np.full((1,) * (len(given) if kind != "slice" else value.unit.ndim), value.unit.flat[0])
    if value.unit.size > 1:
        spread = torch.from_numpy(np.broadcast_to(value.unit, source).copy())
        moved: NDArray[np.float64] = REARRANGEMENTS[kind](spread, given).numpy()
        if any(moved.shape[axis] > 1 for axis in samples):
            return rearrange(made, made.builder.unify(value), kind, given, source, samples)
        unit = moved
    return made.builder.emit(Rearrange(kind=kind, arguments=given), [value], unit, value.low, value.high)
