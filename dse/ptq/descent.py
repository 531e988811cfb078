"""Exchange of levels, one or two at a time, for as long as a quadratic error falls."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: rows of more columns than this change one level at a time only: looking at all pairs takes the square of the columns
PAIRED_COLUMNS = 1024
#: share of a row's error that an exchange must gain, so that rounding errors of float64 do not count
LEAST_GAIN = 1e-9


def descend(error: Floats, second: Floats, steps: Floats, flipped: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which values of each row are best flipped, from ``flipped`` on: no other one or two would lower ``d H d``.

    A row's error is ``d = error + flipped * steps``. ``error``, ``steps`` and ``flipped`` have the shape (rows, columns),
    ``second`` is H, (columns, columns). The best exchange of all is made each time, a single one before pairs.
    """
    found = np.array(flipped)
    _descend(error, np.ascontiguousarray(second), steps, found, error.shape[1] <= PAIRED_COLUMNS)
    return found


def _compiled(function: Any) -> Any:
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)


@_compiled
def _descend(error, second, steps, flipped, paired):  # type: ignore[no-untyped-def]
    diagonal = np.diag(second)
    for row in range(len(error)):
        distance = error[row] + flipped[row] * steps[row]
        slope = _times(second, distance)
        step = np.where(flipped[row], -steps[row], steps[row])
        least = -LEAST_GAIN * np.sum(distance * slope)
        while True:
            alone = step * (2 * slope + step * diagonal)
            first, other = int(np.argmin(alone)), -1
            if alone[first] >= least and paired:
                first, other = _best_pair(alone, step, second, least)
            elif alone[first] >= least:
                first = -1
            if first < 0:
                break
            _flip(first, step, slope, second, flipped[row])
            if other >= 0:
                _flip(other, step, slope, second, flipped[row])


@_compiled
def _times(second, distance):  # type: ignore[no-untyped-def]
    product = np.zeros(len(distance))
    for i in range(len(distance)):
        if distance[i] != 0:
            product += distance[i] * second[i]
    return product


@_compiled
def _best_pair(alone, step, second, least):  # type: ignore[no-untyped-def]
    first, other = -1, -1
    for i in range(len(alone)):
        line, twice = second[i], 2 * step[i]
        for j in range(i):
            gain = alone[i] + alone[j] + twice * step[j] * line[j]
            if gain < least:
                first, other, least = i, j, gain
    return first, other


@_compiled
def _flip(i, step, slope, second, flipped):  # type: ignore[no-untyped-def]
    slope += step[i] * second[i]
    step[i] = -step[i]
    flipped[i] = not flipped[i]
