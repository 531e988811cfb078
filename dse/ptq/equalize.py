"""Cross-layer equalization of weight ranges (Nagel et al., arXiv 1906.04721, section 4.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dse.network import Network
from dse.ptq.channel_classes import OUTSIDE
from dse.ptq.rewrite import Change, Floats, factors, require, rewritten, stored_tensor
from dse.ptq.spaces import Member, Space, spaces
from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class Equalize:
    """Give a channel the same range where it is written as where it is read.

    For one writer and one reader with ranges r1 and r2 of a channel, what is written is multiplied by ``sqrt(r2 / r1)`` and what is
    read divided by it (their equation 11; their s is the inverse of this factor): both ranges become ``sqrt(r1 r2)``. Several
    writers or readers of one channel count by the widest, each range as a share of its tensor's: no tensor's own range grows for
    a channel that another one hardly uses. Layers that stand between two spaces tie these, so rounds are repeated until no factor
    moves by more than ``tolerance``, or ``iterations`` times. Channels whose range is zero on either side are left alone.
    """

    name: ClassVar[str] = "equalize"
    summary: ClassVar[str] = "equal weight ranges of channels across layers"
    iterations: int = 50
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse less than one round."""
        if self.iterations < 1:
            raise InvalidValueError(f"iterations of equalize must be at least 1, not {self.iterations}")
        if not 0 <= self.tolerance < np.inf:
            raise InvalidValueError(f"tolerance of equalize must be finite and not negative, not {self.tolerance}")

    def apply(self, network: Network, images: NDArray[np.float32]) -> Network:
        """Return the network with equalized weights; ``images`` serve to look that its function is the same."""
        found = [space for space in spaces(network, "diagonal") if space.weights(1) and space.weights(-1)]
        require(found, network, self.name, "channels that a weight writes, a weight reads and only scalable operators lie between")
        names = {member.tensor for space in found for sign in (1, -1) for member in space.weights(sign)}
        magnitudes = {name: np.abs(stored_tensor(network, name).numpy()).astype(np.float64) for name in sorted(names)}
        scales = [np.ones(space.size) for space in found]
        for _ in range(self.iterations):
            if not _round(found, magnitudes, scales) > np.log1p(self.tolerance):
                break
        return rewritten(network, [Change(space=space, map=scale) for space, scale in zip(found, scales, strict=True)], images)


def _round(found: Sequence[Space], magnitudes: dict[str, Floats], scales: list[Floats]) -> float:
    """Equalize every space once, in place, and return the greatest logarithm of a factor."""
    greatest = 0.0
    for number, space in enumerate(found):
        step = _scales(space, magnitudes)
        for sign in (1, -1):
            for member in space.weights(sign):
                magnitudes[member.tensor] = magnitudes[member.tensor] * factors(member, step)
        scales[number] = scales[number] * step
        greatest = max(greatest, float(np.abs(np.log(step)).max()))
    return greatest


def _scales(space: Space, magnitudes: dict[str, Floats]) -> Floats:
    """Return what is written into each channel of a space is to be multiplied by."""
    written, read = (_ranges(space.weights(sign), magnitudes, space.size) for sign in (1, -1))
    alive = (written > 0) & (read > 0)
    ratios = np.ones(space.size)
    ratios[alive] = read[alive] / written[alive]
    return np.sqrt(ratios)


def _ranges(members: Sequence[Member], magnitudes: dict[str, Floats], size: int) -> Floats:
    """Return the range of every channel: the widest share that it has of a member's range, times the mean of these (geometric)."""
    each = [channel_maxima(magnitudes[member.tensor], member.index, size) for member in members]
    peaks = np.array([ranges.max() for ranges in each])
    if not peaks.any():
        return np.zeros(size)
    shares = [ranges / peak for ranges, peak in zip(each, peaks, strict=True) if peak > 0]
    ranges: Floats = np.max(shares, axis=0) * np.exp(np.log(peaks[peaks > 0]).mean())
    return ranges


def channel_maxima(magnitude: Floats, index: NDArray[np.int64], size: int) -> Floats:
    """Return the greatest of a tensor's magnitudes in every channel of a space, 0 where it has none, float64 of shape (size,)."""
    for axis in range(index.ndim):
        if index.shape[axis] == 1:
            magnitude = magnitude.max(axis=axis, keepdims=True)
    found, inside = np.zeros(size), index != OUTSIDE
    np.maximum.at(found, index[inside], np.broadcast_to(magnitude, index.shape)[inside])
    return found
