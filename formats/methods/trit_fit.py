"""The fit of two ternary planes to rows of numbers; ``formats.methods.trit_planes`` says what it does and where it comes from."""

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled
from formats.scale_storage import SMALLEST_SCALE

Floats = NDArray[np.float64]

RIDGE = 1e-9
STEPS = 50
#: (share of the largest magnitude that both scales add up to, second scale over the first)
STARTS = np.array([(share, ratio) for share in (0.4, 0.55, 0.75, 1.0) for ratio in (0.08, 0.2, 0.35, 0.5, 0.65, 0.85, 1.0)])
QUANTILES = 9
#: trits of the two planes at the levels 0, a1 - a2, a2, a1, a1 + a2
PAIRS = np.array([(0, 0), (1, -1), (0, 1), (1, 0), (1, 1)], np.int64)


@compiled
def _cuts(magnitudes: Floats, first: float, second: float, order: NDArray[np.int64], cuts: NDArray[np.int64]) -> None:
    """Sort the five levels, and find where the sorted magnitudes change from each to the next."""
    levels = np.array([0.0, first - second, second, first, first + second])
    for i in range(5):
        order[i] = i
    if levels[1] > levels[2]:
        order[1], order[2] = 2, 1
    cuts[0], cuts[5] = 0, len(magnitudes)
    for i in range(1, 5):
        cuts[i] = np.searchsorted(magnitudes, (levels[order[i - 1]] + levels[order[i]]) / 2)


@compiled
def _statistics(sums: Floats, order: NDArray[np.int64], cuts: NDArray[np.int64], pairs: NDArray[np.int64]) -> Floats:
    """Return <t1, t1>, <t2, t2>, <t1, t2>, <t1, w>, <t2, w> for the planes that the cuts stand for."""
    found = np.zeros(5)
    for i in range(5):
        first, second = pairs[order[i], 0], pairs[order[i], 1]
        count = cuts[i + 1] - cuts[i]
        total = sums[cuts[i + 1]] - sums[cuts[i]]
        found[0] += first * first * count
        found[1] += second * second * count
        found[2] += first * second * count
        found[3] += first * total
        found[4] += second * total
    return found


@compiled
def alternate(magnitudes: Floats, first: float, second: float, pairs: NDArray[np.int64], ridge: float, errors: Floats) -> Floats:
    """Alternate planes and scales from a start with first >= second >= 0; return the two scales found.

    ``magnitudes`` are ascending. ``errors`` of shape (steps + 1,) receives the squared error after each step, first for the start;
    where it stops early the last one is repeated.
    """
    sums = np.zeros(len(magnitudes) + 1)
    square = 0.0
    for i in range(len(magnitudes)):
        sums[i + 1] = sums[i] + magnitudes[i]
        square += magnitudes[i] * magnitudes[i]
    order, cuts = np.empty(5, np.int64), np.empty(6, np.int64)
    _cuts(magnitudes, first, second, order, cuts)
    s = _statistics(sums, order, cuts, pairs)
    errors[0] = square - 2 * (first * s[3] + second * s[4]) + first**2 * s[0] + second**2 * s[1] + 2 * first * second * s[2]
    for step in range(1, len(errors)):
        determinant = (s[0] + ridge) * (s[1] + ridge) - s[2] * s[2]
        new_first = abs(((s[1] + ridge) * s[3] - s[2] * s[4]) / determinant)
        new_second = abs(((s[0] + ridge) * s[4] - s[2] * s[3]) / determinant)
        if new_second > new_first:
            new_first, new_second = new_second, new_first
        _cuts(magnitudes, new_first, new_second, order, cuts)
        s = _statistics(sums, order, cuts, pairs)
        error = square - 2 * (new_first * s[3] + new_second * s[4]) + new_first**2 * s[0] + new_second**2 * s[1]
        error += 2 * new_first * new_second * s[2]
        if not error < errors[step - 1]:
            errors[step:] = errors[step - 1]
            break
        first, second, errors[step] = new_first, new_second, error
    return np.array([first, second])


@compiled
def _starts(magnitudes: Floats, starts: Floats, own: Floats) -> int:
    """Write the pairs of scales to start from, and return how many they are."""
    for i in range(len(starts)):
        own[i, 0] = magnitudes[-1] * starts[i, 0] / (1 + starts[i, 1])
        own[i, 1] = own[i, 0] * starts[i, 1]
    different = np.unique(magnitudes)
    different = different[different > 0]
    size = min(QUANTILES, len(different))
    count = len(starts)
    for i in range(size):
        for j in range(i):
            own[count, 0] = different[(2 * i + 1) * len(different) // (2 * size)]
            own[count, 1] = different[(2 * j + 1) * len(different) // (2 * size)]
            count += 1
    return count


@compiled
def _fit(rows: Floats, starts: Floats, pairs: NDArray[np.int64], ridge: float, steps: int, scales: Floats) -> None:
    """Write the best two scales of every row of ascending magnitudes; rows are (R, n), scales (2, R)."""
    errors = np.empty(steps + 1)
    own = np.empty((len(starts) + QUANTILES * (QUANTILES - 1) // 2, 2))
    for row in range(len(rows)):
        magnitudes = rows[row]
        least = np.inf
        for start in range(_starts(magnitudes, starts, own)):
            found = alternate(magnitudes, own[start, 0], own[start, 1], pairs, ridge, errors)
            if errors[-1] < least:
                least, scales[0, row], scales[1, row] = errors[-1], found[0], found[1]


def fit_scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scales a1 >= a2 of every row of (R, n), float32 of shape (2, R); both 1 for a row of zeros."""
    scales = np.ones((2, len(rows)))
    if rows.size:
        # rows are brought near 1, so that no square leaves the range of float64
        largest = np.maximum(np.abs(rows).max(axis=1), SMALLEST_SCALE).astype(np.float64)
        magnitudes = np.sort(np.abs(rows.astype(np.float64)) / largest[:, np.newaxis], axis=1)
        _fit(magnitudes, STARTS, PAIRS, RIDGE * rows.shape[1], STEPS, scales)
        scales = np.where(rows.any(axis=1), scales * largest, 1.0)
    return np.maximum(scales, SMALLEST_SCALE).astype(np.float32)


def nearest_planes(rows: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return the two planes of trits, (2, R, n), whose sum is nearest to every element; the smaller magnitude at a tie."""
    first, second = scales[0, :, np.newaxis].astype(np.float64), scales[1, :, np.newaxis].astype(np.float64)
    magnitude = np.abs(rows.astype(np.float64))
    best, least = np.zeros(rows.shape, np.int64), magnitude.copy()
    for level, (one, two) in enumerate(PAIRS[1:].tolist(), 1):
        distance = np.abs(magnitude - (one * first + two * second))
        nearer = distance < least
        best, least = np.where(nearer, level, best), np.where(nearer, distance, least)
    planes: NDArray[np.int8] = (np.moveaxis(PAIRS[best], -1, 0) * np.where(rows < 0, -1, 1)).astype(np.int8)
    return planes
