"""How far the histogram of values is from that of their quantized form: what the scale choice ``kl`` compares.

TensorRT's entropy calibration (Migacz, "8-bit inference with TensorRT", GTC 2017) cuts a histogram of magnitudes off at a
threshold, gives what lies beyond to the last bin kept, P, and compares it by its Kullback-Leibler divergence to Q: the bins kept,
without what lay beyond, merged to as many as there are levels, each level's count spread evenly over its bins that are not empty.
Here for any format:

- Bins are ``BINS`` of equal width from 0 to the largest magnitude of a row, or fewer for few values: one for each
  ``VALUES_PER_BIN`` of them, at least ``LEAST_BINS``. Values that are zero count for a format with a level of zero neither in P nor
  in Q: every scale keeps them as they are.
- The bins that merge are those whose middles round to the same level under the scale, by the format's own rounding.
- Beyond is every bin whose middle exceeds the largest level times the scale.
- A level whose bins hold only what lay beyond has Q = 0 where P is not: the divergence is infinite.

Counts are weighted where values are. A format without negative values sees magnitudes of positive values alone, as in every choice.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled
from formats.format import Format

BINS, LEAST_BINS, VALUES_PER_BIN = 2048, 128, 8

Floats = NDArray[np.float32]


class Histograms:
    """Histograms of the magnitudes of rows, float32 of shape (R, n), each from 0 to its own largest."""

    def __init__(self, fmt: Format, magnitudes: Floats, weights: Floats | None) -> None:
        """Count the magnitudes, each by its weight, float32 in the same shape, where there are any."""
        rows, length = magnitudes.shape
        bins = min(BINS, max(LEAST_BINS, length // VALUES_PER_BIN))
        self.fmt = fmt
        largest = magnitudes.max(axis=1, initial=0).astype(np.float64)
        width = np.where(largest > 0, largest, 1) / bins
        self.middles = ((np.arange(bins) + 0.5) * width[:, np.newaxis]).astype(np.float32)
        self.counts = np.zeros((rows, bins))
        keeps_zero = bool((fmt.values == 0).any())
        given = np.ones((1, 1), np.float32) if weights is None else weights
        _count(magnitudes, np.broadcast_to(given, magnitudes.shape), width, keeps_zero, self.counts)

    def divergences(self, scales: Floats) -> NDArray[np.float64]:
        """Return the divergence of every row under its scale, in nats; infinite where some level holds clipped values alone."""
        codes = self.fmt.encode(self.middles, scales[:, np.newaxis]).astype(np.int64)
        found = np.empty(len(scales))
        with np.errstate(over="ignore"):
            reach = scales.astype(np.float64) * float(self.fmt.largest)
        _divergences(self.counts, codes, self.middles, reach, found)
        return found


@compiled
def _count(magnitudes: Any, weights: Any, width: Any, keeps_zero: Any, counts: Any) -> None:
    bins = counts.shape[1]
    for row in range(len(magnitudes)):
        for i in range(magnitudes.shape[1]):
            if magnitudes[row, i] > 0 or not keeps_zero:
                counts[row, min(int(magnitudes[row, i] / width[row]), bins - 1)] += weights[row, i]


@compiled
def _divergences(counts: Any, codes: Any, middles: Any, reach: Any, found: Any) -> None:
    for row in range(len(counts)):
        kept = np.searchsorted(middles[row].astype(np.float64), reach[row], side="right")
        found[row] = _divergence(counts[row], codes[row], kept)


@compiled
def _divergence(counts: Any, codes: Any, kept: Any) -> Any:
    """Sum p log(p / q) over the first ``kept`` bins, the last of which takes what lies beyond."""
    inside, total = counts[:kept].sum(), counts.sum()
    if total == 0:
        return 0.0
    if inside == 0:
        return np.inf
    beyond, divergence, first = total - inside, 0.0, 0
    while first < kept:
        stop, mass, filled = first, 0.0, 0
        while stop < kept and codes[stop] == codes[first]:
            mass += counts[stop]
            filled += counts[stop] > 0 or (stop == kept - 1 and beyond > 0)
            stop += 1
        for i in range(first, stop):
            reference = counts[i] + (beyond if i == kept - 1 else 0.0)
            if reference > 0 and mass == 0:
                return np.inf
            if reference > 0:
                divergence += reference / total * np.log(reference / total * filled / mass * inside)
        first = stop
    return max(divergence, 0.0)
