"""What a layer's output error depends on: the first and second moments of what its weights are multiplied by.

A layer with a stored weight is a matrix product for each group of its channels: ``y = W x`` with the columns of W the input
channels of the group times the kernel (one group for a linear layer) and x one patch of the operand, zeros of the padding
included. With D the error of W, the squared error of an output channel, over all samples and positions, is ``d H d`` for its row d
of D and ``H = E[x x']``: exact, and independent of how many samples there were. GPTQ (arXiv 2210.17323, section 3) and AdaRound
(arXiv 2004.10568, section 3.1) both begin there.
"""

import math
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dse.ptq.alone import alone
from dse.ptq.capture import stored
from dse.ptq.step import LayerData
from formats.errors import InvalidValueError
from hwmodels.workload import Convolution

#: float32 values of patches that are in memory at a time
PATCH_VALUES = 1 << 22

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Moments of a layer's patches.

    ``second`` is E[x x'], float64 of shape (groups, columns, columns); ``first`` is E[x], float64 of shape (groups, columns).
    """

    second: Floats
    first: Floats

    @property
    def groups(self) -> int:
        """Groups of channels."""
        return len(self.second)

    @property
    def columns(self) -> int:
        """Weights of each output channel."""
        return int(self.second.shape[2])

    def by_group(self, weight: NDArray[Any]) -> Floats:
        """Return a weight, output channels first, as float64 of shape (groups, output channels of each, columns)."""
        return weight.reshape(self.groups, len(weight) // self.groups, -1).astype(np.float64)

    def squared_errors(self, error: NDArray[Any], shift: NDArray[Any] | None = None) -> Floats:
        """Return the mean squared output error of every output channel, float64 of shape (output channels,).

        ``error`` is that of the weight, in its shape; ``shift``, of shape (output channels,), is added to every output.
        """
        rows = self.by_group(error)
        with alone():
            products = torch.bmm(torch.from_numpy(rows), torch.from_numpy(self.second)).numpy()
        squared = (products * rows).sum(axis=2).reshape(-1)
        if shift is not None:
            squared = squared + 2 * shift * self.mean_errors(error) + np.square(shift, dtype=np.float64)
        found: Floats = np.maximum(squared, 0)
        return found

    def mean_errors(self, error: NDArray[Any]) -> Floats:
        """Return the mean output error of every output channel for the weight's error, float64 of shape (output channels,)."""
        found: Floats = (self.by_group(error) * self.first[:, np.newaxis]).sum(axis=2).reshape(-1)
        return found


_known: WeakKeyDictionary[LayerData, Moments] = WeakKeyDictionary()


def moments(data: LayerData) -> Moments:
    """Return the moments of a layer's calibration operand; computed once for as long as ``data`` lives.

    Raises ``ValueError`` for a layer without a stored weight, for no samples, and for operands that are not finite.
    """
    if data not in _known:
        _known[data] = _moments(data)
    return _known[data]


def _moments(data: LayerData) -> Moments:
    layer = stored(data.layer)
    convolution = layer.workload.convolution
    columns, groups = math.prod(data.weight.shape[1:]), 1 if convolution is None else convolution.groups
    if not data.inputs.size:
        raise InvalidValueError(f"calibration operands must be at least one sample, not none (layer {layer.name!r})")
    share = max(1, PATCH_VALUES // (groups * columns * layer.workload.vectors))
    second, first, count = np.zeros((groups, columns, columns)), np.zeros((groups, columns)), 0
    with alone():
        for start in range(0, len(data.inputs), share):
            found = patches(data.inputs[start : start + share], convolution)
            second += torch.bmm(found.transpose(1, 2), found).numpy()
            first += found.sum(dim=1, dtype=torch.float64).numpy()
            count += found.shape[1]
    if not (np.isfinite(second).all() and np.isfinite(first).all()):
        raise InvalidValueError(f"calibration operands must be finite, and so their squares in float32 (layer {layer.name!r})")
    return Moments(second=second / count, first=first / count)


def patches(inputs: NDArray[np.float32], convolution: Convolution | None) -> Tensor:
    """Return what the rows of a weight are multiplied by, float32 of shape (groups, positions of all samples, columns).

    ``inputs`` are operands of shape (samples, …): those of a linear layer end in its input channels, those of a convolution in
    its channels and then as many axes as its kernel has.
    """
    x = torch.from_numpy(np.array(inputs, np.float32, order="C"))
    if convolution is None:
        return x.reshape(1, -1, x.shape[-1])
    x = x.reshape(-1, convolution.groups, convolution.input_channels // convolution.groups, *convolution.input_size)
    x = functional.pad(x, [zeros for axis in reversed(convolution.padding) for zeros in axis]).contiguous()
    axes, spatial = len(convolution.kernel), x.stride()[3:]
    steps = [stride * by for stride, by in zip(spatial, convolution.stride, strict=True)]
    taps = [stride * by for stride, by in zip(spatial, convolution.dilation, strict=True)]
    windows = x.as_strided((*x.shape[:3], *convolution.output_size, *convolution.kernel), (*x.stride()[:3], *steps, *taps))
    order = (1, 0, *range(3, 3 + axes), 2, *range(3 + axes, 3 + 2 * axes))
    columns = x.shape[2] * math.prod(convolution.kernel)
    return windows.permute(order).reshape(convolution.groups, -1, columns)
