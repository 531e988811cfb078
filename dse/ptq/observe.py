"""Statistics of the channels of a space over calibration samples, taken where layers read them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.network import Filling, Network, Place
from dse.ptq.capture import samples_first
from dse.ptq.channel_classes import OUTSIDE, Index
from dse.ptq.spaces import Reading, Space, vector_axis

Floats = NDArray[np.float64]
#: an operand of shape (samples, …), the index of its channels and their number -> the statistic of a batch
Statistic = Callable[[NDArray[np.float32], Index, int], Floats]
BATCH = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class _Observer:
    """A filling that takes statistics of the operand and passes it on."""

    #: of the operand for a batch of one, and how many samples are still to come
    shape: tuple[int, ...]
    left: list[int]
    wanted: list[tuple[tuple[int, int], Index, int, Statistic]] = field(default_factory=list)
    found: dict[tuple[int, int], list[Floats]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, operand: Tensor) -> Tensor:
        count = min(BATCH, self.left[0])
        self.left[0] -= count
        values = np.array(samples_first(operand.numpy(), self.shape, count), order="C")
        for key, index, size, statistic in self.wanted:
            # an axis of samples that stands by itself has none in the index, which is of one sample
            own = index if values.ndim == index.ndim else index[np.newaxis]
            self.found[key].append(statistic(values, own, size))
        return operand


def observe(
    network: Network, found: Sequence[Space], images: NDArray[np.float32], statistic: Statistic
) -> list[list[tuple[Reading, Floats]]]:
    """Return for every space and each of its readings the statistics of all batches, stacked along a first axis."""
    observers: dict[tuple[str, Place], Any] = {}
    for number, space in enumerate(found):
        for part, reading in enumerate(space.readings):
            shape = network.operand_shape(reading.layer, reading.place)
            observer = observers.setdefault((reading.layer, reading.place), _Observer(shape=shape, left=[len(images)]))
            observer.wanted.append(((number, part), reading.index, space.size, statistic))
    fillings: dict[tuple[str, Place], Filling] = dict(observers)
    with network.filled(fillings):
        network.logits(images, BATCH, workers=1)  # one after the other, so that the sums are the same every time
    results = {key: np.stack(parts) for observer in observers.values() for key, parts in observer.found.items()}
    return [[(reading, results[number, part]) for part, reading in enumerate(space.readings)] for number, space in enumerate(found)]


def maxima(operand: NDArray[np.float32], index: Index, size: int) -> Floats:
    """Return the greatest magnitude of every channel, of shape (size,)."""
    found = np.zeros(size)
    folded = _folded(np.abs(operand).max(axis=0, keepdims=True), index, np.max)
    np.maximum.at(found, index[index != OUTSIDE], folded[index != OUTSIDE])
    return found


def magnitudes(operand: NDArray[np.float32], index: Index, size: int) -> Floats:
    """Return the sums of the magnitudes of every channel and how many values they are of, of shape (2, size)."""
    inside = index != OUTSIDE
    folded = _folded(np.abs(operand).sum(axis=0, keepdims=True, dtype=np.float64), index, np.sum)
    values = np.bincount(index[inside], minlength=size) * (operand.size / index.size)
    return np.stack([np.bincount(index[inside], folded[inside], size), values])


def second_moments(operand: NDArray[np.float32], index: Index, size: int) -> Floats:
    """Return the sum of x x' over all channel vectors x, of shape (size, size); the index must have an axis of vectors."""
    axis = vector_axis(index, size)
    assert axis is not None
    rows = np.moveaxis(np.broadcast_to(index, (1, *operand.shape[1:])), axis, -1).reshape(-1, index.shape[axis])
    vectors = np.moveaxis(operand, axis, -1).reshape(len(operand), *rows.shape)
    inside = np.flatnonzero((rows != OUTSIDE).any(axis=1))
    order = np.argsort(rows[inside], axis=1, kind="stable")[:, -size:]
    kept = np.take_along_axis(vectors[:, inside], order[np.newaxis], axis=2).reshape(-1, size)
    x = torch.from_numpy(np.ascontiguousarray(kept)).to(torch.float64)
    return (x.T @ x).numpy()


def _folded(values: NDArray[Any], index: Index, reduce: Callable[..., Any]) -> NDArray[Any]:
    """Reduce values of shape (1, …) along the axes that the index does not tell apart."""
    axes = tuple(axis for axis, size in enumerate(index.shape) if size == 1)
    reduced: NDArray[Any] = reduce(values, axis=axes, keepdims=True)
    return reduced
