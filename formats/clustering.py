"""The best few levels for weighted samples on a line: k-means, exactly.

The cells of the best quantizer are runs of the sorted samples, so the best cost of the first j samples in k cells follows from that
of fewer samples in k - 1 cells (Fisher, J. Am. Stat. Assoc. 53(284), 1958). The last cell's best beginning moves one way as j
grows, which halves the search at every step: O(k n log n) (as in Grønlund et al., arXiv 1701.07204).
"""

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled

Floats = NDArray[np.float64]

#: different samples for which the best levels are found exactly, and steps of Lloyd's iteration on more
EXACT_SAMPLES, LLOYD_STEPS = 1 << 13, 200


@compiled
def _cost(first: int, last: int, mass: Floats, sums: Floats, squares: Floats) -> float:
    """Squared error of samples ``first`` … ``last`` - 1 around their mean, by running sums."""
    weight = mass[last] - mass[first]
    total = sums[last] - sums[first]
    cost: float = squares[last] - squares[first] - total * total / weight
    return cost


@compiled
def _extend(
    before: Floats, after: Floats, begin: NDArray[np.int32], mass: Floats, sums: Floats, squares: Floats, stack: NDArray[np.int64]
) -> None:
    """Fill in the best cost of every number of samples with one cell more, and where its last cell begins."""
    count = len(mass) - 1
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = 1, count, 0, count - 1
    depth = 1
    while depth > 0:
        depth -= 1
        low, high, first, last = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        middle = (low + high) // 2
        best, least = first, np.inf
        for start in range(first, min(last, middle - 1) + 1):
            cost = before[start] + _cost(start, middle, mass, sums, squares)
            if cost < least:
                best, least = start, cost
        after[middle], begin[middle] = least, best
        if low < middle:
            stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = low, middle - 1, first, best
            depth += 1
        if middle < high:
            stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = middle + 1, high, best, last
            depth += 1


def best_cells(x: Floats, weights: Floats, count: int) -> NDArray[np.int64]:
    """Return where each of ``count`` cells of the ascending samples begins, and the number of samples: shape (count + 1,).

    Weights are positive, samples all different and at least ``count``.
    """
    centred = x - np.average(x, weights=weights)  # running sums lose less
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    sums = np.concatenate([[0.0], np.cumsum(weights * centred)])
    squares = np.concatenate([[0.0], np.cumsum(weights * centred**2)])
    size = len(x)
    begins = np.zeros((count, size + 1), np.int32)
    before = np.full(size + 1, np.inf)
    before[0] = 0.0
    stack = np.empty((2 * int(np.ceil(np.log2(size + 2))) + 2, 4), np.int64)
    for cells in range(count):
        after = np.full(size + 1, np.inf)
        _extend(before, after, begins[cells], mass, sums, squares, stack)
        before = after
    cuts = np.empty(count + 1, np.int64)
    cuts[count] = size
    for cells in range(count, 0, -1):
        cuts[cells - 1] = begins[cells - 1, cuts[cells]]
    return cuts


def of_samples(x: NDArray[np.floating], count: int, weights: NDArray[np.floating] | None = None) -> Floats:
    """Return at most ``count`` distinct levels of least weighted squared error for the samples ``x``, ascending.

    The best there are for up to ``EXACT_SAMPLES`` different samples. More are first gathered into as many points, half of
    them cut at equal weights and half at equal distances, and the best levels of those improved on all samples by Lloyd's
    iteration (k-means). Values of weight 0 are left out.
    """
    flat = x.reshape(-1).astype(np.float64)
    given = np.ones_like(flat) if weights is None else weights.reshape(-1).astype(np.float64)
    flat, given = flat[given > 0], given[given > 0]
    if len(flat) == 0:
        return np.zeros(1)
    flat, inverse = np.unique(flat, return_inverse=True)
    given = np.bincount(inverse, weights=given).astype(np.float64)
    if len(flat) <= count:
        return flat
    points, mass = flat, given
    if len(flat) > EXACT_SAMPLES:
        half = EXACT_SAMPLES // 2
        by_mass = np.floor(np.cumsum(given) / given.sum() * (half - 1))
        by_place = np.floor((flat - flat[0]) / (flat[-1] - flat[0]) * (half - 1))
        place = np.concatenate([[0], np.cumsum(np.diff(by_mass + by_place) > 0)])
        mass = np.bincount(place, weights=given).astype(np.float64)
        points = np.bincount(place, weights=given * flat) / mass
    cuts = best_cells(points, mass, count)
    levels = np.add.reduceat(points * mass, cuts[:-1]) / np.add.reduceat(mass, cuts[:-1])
    return _improved(flat, given, levels)


def _improved(flat: Floats, weights: Floats, levels: Floats) -> Floats:
    """Move levels to the means of their cells until no sample changes its cell."""
    sums = np.concatenate([[0.0], np.cumsum(weights * flat)])
    totals = np.concatenate([[0.0], np.cumsum(weights)])
    before = np.empty(0, np.int64)
    for _ in range(LLOYD_STEPS):
        cuts = np.concatenate([[0], np.searchsorted(flat, (levels[1:] + levels[:-1]) / 2), [len(flat)]])
        if np.array_equal(cuts, before):
            break
        mass = np.diff(totals[cuts])
        levels = np.divide(np.diff(sums[cuts]), mass, out=levels.copy(), where=mass > 0)
        before = cuts
    return np.unique(levels)
