"""The scale of least squared error, and what is measured under it.

``formats.scaling`` looks for scales that put the largest level at 0.1 to 1.25 of the largest magnitude. For a code book of a few
levels, or heavy tails, the best may lie outside, so the search here is wider, and finer: with sorted values and their running
sums the error of a scale costs one binary search for each boundary between levels, however many values there are.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from formats.block import BlockFormat
from formats.boundaries import boundaries, level_codes
from formats.errors import BitatlasError
from formats.format import Format
from formats.scale_storage import LARGEST_SCALE, SMALLEST_SCALE
from formats.tensor_quantizer import TensorQuantizer

Floats = NDArray[np.float64]

#: the largest level is tried from this share of the root mean square to this multiple of the largest magnitude
LOWEST, HIGHEST = 1 / 64, 64.0
#: scales tried in every octave; then, in rounds, some around each of the best few, as far as its neighbours
PER_OCTAVE, ROUNDS, KEPT, PER_ROUND = 32, 3, 16, 13
#: decibels for every bit of the rate-distortion bound 2**(-2 R) of a Gaussian source
DECIBELS_PER_BIT = 20 * math.log10(2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ordered:
    """A tensor's values ascending, and the sums of the first 0 … n of them, float64."""

    values: Floats
    sums: Floats
    energy: float

    @property
    def rms(self) -> float:
        """Root mean square."""
        return math.sqrt(self.energy / len(self.values))


def ordered(rows: NDArray[np.float32]) -> Ordered:
    """Sort a tensor."""
    values = np.sort(rows.reshape(-1)).astype(np.float64)
    return Ordered(values=values, sums=np.concatenate([[0.0], np.cumsum(values)]), energy=float(values @ values))


@cache
def _cells(fmt: Format) -> tuple[Floats, Floats]:
    """Levels, ascending, and the boundaries between them."""
    return fmt.float32_values[level_codes(fmt)].astype(np.float64), boundaries(fmt, "nearest_even").astype(np.float64)


def squared_errors(fmt: Format, given: Ordered, scales: Floats) -> Floats:
    """Return the sum of squared errors under each of the scales, (C,), but for the rounding of float32 arithmetic."""
    levels, edges = _cells(fmt)
    cuts = np.zeros((len(scales), len(levels) + 1), np.int64)
    cuts[:, 1:-1] = np.searchsorted(given.values, scales[:, np.newaxis] * edges)
    cuts[:, -1] = len(given.values)
    decoded = scales[:, np.newaxis] * levels
    found: Floats = given.energy - (decoded * (2 * np.diff(given.sums[cuts]) - decoded * np.diff(cuts))).sum(axis=1)
    return found


def best_scale(fmt: Format, given: Ordered) -> np.float32:
    """Return the scale of least squared error: the best of a wide grid, refined around its best few."""
    levels, _ = _cells(fmt)
    absmax = max(-given.values[0], given.values[-1])
    largest, smallest = levels[-1], levels[levels > 0][0]
    highest = min(HIGHEST * absmax / largest, absmax / smallest)  # beyond which all values fall below the first level
    low, high = np.clip([LOWEST * given.rms / largest, highest], SMALLEST_SCALE, LARGEST_SCALE)
    step = 2 ** (1 / PER_OCTAVE)
    scales = low * step ** np.arange(1 + math.ceil(math.log2(high / low) * PER_OCTAVE))
    for _ in range(ROUNDS):
        _, kept = np.unique(_shares(fmt, given, scales), return_index=True)  # the lowest scale of each error, least error first
        scales = (scales[kept[:KEPT], np.newaxis] * step ** np.linspace(-1, 1, PER_ROUND)).reshape(-1)
        step **= 2 / (PER_ROUND - 1)
    best = scales[np.argmin(_shares(fmt, given, scales))]
    return np.float32(np.clip(best, SMALLEST_SCALE, LARGEST_SCALE))


def _shares(fmt: Format, given: Ordered, scales: Floats) -> Floats:
    """Errors as shares of the energy, rounded far below those of 8 bits: equal for scales an octave apart that do the same.

    A format of many octaves has the same levels under both wherever the tensor has values.
    """
    return np.round(squared_errors(fmt, given, scales) / given.energy, 12)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One format on one tensor."""

    #: bits of an element, with its share of the scales of blocks
    bits: float
    #: in root mean squares of the tensor; NaN where the format or the fit has scales of its own
    scale: float
    snr_decibels: float
    #: entropy of the codes
    entropy_bits: float


def measure(fmt: Format | BlockFormat, rows: NDArray[np.float32], given: Ordered) -> Measured:
    """Quantize a tensor with its best scale, block formats by their own rule along the last axis, and compare."""
    if isinstance(fmt, BlockFormat):
        codes, stored = fmt.encode(rows)
        bits = fmt.bits + fmt.scale_format.bits * stored.codes.size / rows.size
        return _compare(fmt.name, rows, given, fmt.decode(codes, stored), np.bincount(codes.reshape(-1)), bits, math.nan)
    scale = best_scale(fmt, given)
    codes = fmt.encode(rows, scale)
    return _compare(
        fmt.name, rows, given, fmt.decode(codes, scale), np.bincount(codes.reshape(-1)), fmt.bits, float(scale) / given.rms
    )


def measure_fitted(quantizer: TensorQuantizer, rows: NDArray[np.float32], given: Ordered) -> Measured:
    """Quantize a tensor by levels that are fitted to it, and compare."""
    decoded = quantizer.encode(rows).decode()
    return _compare(str(quantizer), rows, given, decoded, np.unique(decoded, return_counts=True)[1], quantizer.width, math.nan)


def _compare(
    name: str,
    rows: NDArray[np.float32],
    given: Ordered,
    decoded: NDArray[np.float32],
    counts: NDArray[np.int64],
    bits: float,
    scale: float,
) -> Measured:
    difference = (decoded - rows).reshape(-1).astype(np.float64)
    noise = float(difference @ difference)
    if noise == 0:
        raise BitatlasError(f"values must not all be levels of the format, which leaves no noise to compare with ({name})")
    shares = counts[counts > 0] / rows.size
    return Measured(
        bits=bits,
        scale=scale,
        snr_decibels=10 * math.log10(given.energy / noise),
        entropy_bits=abs(float((shares * np.log2(shares)).sum())),
    )
