"""What a program of whole numbers is made of: steps from int64 tensors to an int64 tensor, each of them exact.

Every step is data; ``run`` does what it says, and ``dse.export.integer`` writes the same in operators of ONNX. The first axis of
every tensor holds the samples; constants broadcast against a batch of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]


def _tensor(numbers: Numbers) -> Tensor:
    return torch.from_numpy(np.asarray(numbers))


class Step(Protocol):
    """An operation on whole numbers."""

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Add:
    """The sum of two tensors."""

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0] + operands[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subtract:
    """The difference of two tensors."""

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0] - operands[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply:
    """The product of two tensors."""

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0] * operands[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class AddConstant:
    """A stored tensor added."""

    numbers: Numbers

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0] + _tensor(self.numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiplyConstant:
    """A stored tensor times the operand."""

    numbers: Numbers

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0] * _tensor(self.numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clamp:
    """Numbers kept between two ends, either of which may be missing."""

    low: Numbers | None = None
    high: Numbers | None = None

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        low, high = (None if end is None else _tensor(end) for end in (self.low, self.high))
        return torch.clamp(operands[0], low, high)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rescale:
    """``operand * multiplier / divisor``, rounded once: the requantizer of hardware.

    Ties go to the even number where only shifts and divisions by what means are taken over are left, as in
    ``formats.requantize_by_shift``, else up, as in ``formats.requantize`` with a single rounding. The product must fit 63 bits.
    """

    #: at least 0
    multiplier: Numbers
    #: 1 to 2**62
    divisor: Numbers
    even: bool

    @property
    def shifts(self) -> bool:
        """Whether every divisor is a power of two."""
        return bool((self.divisor & (self.divisor - 1) == 0).all())

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        product, divisor = operands[0] * _tensor(self.multiplier), _tensor(self.divisor)
        if self.shifts:
            whole = product >> _tensor(np.frexp(self.divisor.astype(np.float64))[1].astype(np.int64) - 1)
        else:
            whole = torch.div(product, divisor, rounding_mode="floor")
        twice = 2 * (product - whole * divisor) + ((whole & 1) if self.even else 1)
        return whole + (twice > divisor).to(torch.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Compare:
    """The code of the level that a number reaches: how many thresholds are not above it, looked up in ``codes``."""

    #: ascending along the last axis, (..., levels - 1); what stands before it broadcasts against the operand
    thresholds: Numbers
    #: code of each level, (levels,)
    codes: Numbers

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        x, thresholds = operands[0], _tensor(self.thresholds)
        if thresholds[..., 0].numel() == 1:
            reached = torch.bucketize(x.contiguous(), thresholds.reshape(-1), right=True)
        else:
            reached = torch.zeros_like(x)
            for level in range(thresholds.shape[-1]):
                reached += x >= thresholds[..., level]
        return _tensor(self.codes)[reached]


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """An entry of a table for every number from ``first`` on; numbers beyond its ends take the entries there."""

    table: Numbers
    first: int

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return _tensor(self.table)[torch.clamp(operands[0] - self.first, 0, len(self.table) - 1)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sum:
    """The sum over some axes, which stay with length 1."""

    axes: tuple[int, ...]

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0].sum(dim=self.axes, keepdim=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Largest:
    """The maximum over one axis, which stays with length 1."""

    axis: int

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return operands[0].amax(dim=self.axis, keepdim=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class FloorDivide:
    """The first operand divided by the second, or by a stored number, which is above zero; rounded down."""

    by: int | None = None

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return torch.div(operands[0], operands[1] if self.by is None else self.by, rounding_mode="floor")


@dataclass(frozen=True, kw_only=True, eq=False)
class SquareRoot:
    """The integer square root of numbers from 0 to 2**62 - 1: the largest number whose square is not above them."""

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        root = torch.sqrt(operands[0].to(torch.float64)).to(torch.int64)  # off by one at most: 53 bits hold roots of 31
        root = root - (root * root > operands[0]).to(torch.int64)
        return root + ((root + 1) * (root + 1) <= operands[0]).to(torch.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class LargestWindow:
    """The maximum of every window of (N, C, H, W)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    #: what the edges are filled up with: no number of the operand is below it
    lowest: int
    #: height and width of the operand
    size: tuple[int, int]

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        vertical, horizontal = self.padding
        padded = torch.nn.functional.pad(operands[0], (horizontal, horizontal, vertical, vertical), value=self.lowest)
        found: Tensor | None = None
        for rows, columns in self.offsets(padded.shape[2], padded.shape[3]):
            part = padded[:, :, rows, columns]
            found = part if found is None else torch.maximum(found, part)
        assert found is not None
        return found

    def offsets(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Return, for every place in a window, which rows and columns of a padded image stand there."""
        reach = [self.dilation[axis] * (self.kernel[axis] - 1) for axis in (0, 1)]
        ends = [(size - reach[axis] - 1) // self.stride[axis] * self.stride[axis] + 1 for axis, size in enumerate((height, width))]
        return [
            (slice(top, top + ends[0], self.stride[0]), slice(left, left + ends[1], self.stride[1]))
            for top in range(0, reach[0] + 1, self.dilation[0])
            for left in range(0, reach[1] + 1, self.dilation[1])
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rearrange:
    """Another order or shape of the same numbers: ``reshape``, ``permute``, ``expand`` or ``slice``."""

    kind: str
    #: reshape and expand: lengths, -1 for the samples; permute: axes; slice: axis, first, end, step
    arguments: tuple[int, ...]

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        moved: Tensor = REARRANGEMENTS[self.kind](operands[0], self.arguments)
        return moved


def _slice(x: Tensor, arguments: tuple[int, ...]) -> Tensor:
    axis, first, end, step = arguments
    return x[(slice(None),) * axis + (slice(first, end, step),)]


def _expand(x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    return x.expand(*lengths)


REARRANGEMENTS: Mapping[str, Callable[[Any, tuple[int, ...]], Any]] = {
    "reshape": lambda x, lengths: x.reshape(lengths),
    "permute": lambda x, axes: x.permute(axes),
    "expand": _expand,
    "slice": _slice,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Join:
    """Tensors one after the other along an axis."""

    axis: int

    def run(self, *operands: Tensor) -> Tensor:
        """Return the result, int64."""
        return torch.cat(operands, dim=self.axis)
