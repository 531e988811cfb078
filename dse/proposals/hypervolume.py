"""The volume that a set of points dominates within a reference point: how good a front is as one number.

All objectives are minimised. Two objectives are computed here, three and more by moocore (exact, dimension-sweep and WFG).
"""

import moocore  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError

Points = NDArray[np.float64]


def normalise(points: Points, ideal: Points, reference: Points) -> Points:
    """Return (N, D) points with ``ideal`` at 0 and ``reference`` at 1 in every objective: (x − ideal) / (reference − ideal).

    A figure that spans orders of magnitude is put on a logarithmic axis by the caller, ``ideal`` and ``reference`` with it.
    """
    if not (np.isfinite(ideal).all() and np.isfinite(reference).all() and (reference > ideal).all()):
        raise InvalidValueError(f"reference must be above the ideal in every objective, not {reference} for {ideal}")
    made: Points = (points - ideal) / (reference - ideal)
    return made


def non_dominated(points: Points) -> NDArray[np.bool_]:
    """Return which of (N, D) points no other dominates; of equal points the first stays."""
    if not len(points):
        return np.zeros(0, bool)
    kept: NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=False)
    return kept


def hypervolume(points: Points, reference: Points) -> float:
    """Return the volume between (N, D) points and the reference of shape (D,); points that do not lie below it add nothing."""
    points = _inside(points, reference)
    if not len(points):
        return 0.0
    if points.shape[1] != 2:
        return float(moocore.hypervolume(points, ref=reference))
    x, y = _steps(points)
    return float(((reference[0] - x) * (np.concatenate([[reference[1]], y[:-1]]) - y)).sum())


def gains(points: Points, candidates: Points, reference: Points) -> Points:
    """Return by how much each of (M, D) candidates, alone, would add to the hypervolume of (N, D) points; shape (M,)."""
    points = _inside(points, reference)
    if candidates.shape[1] == 2:
        return _gains_in_the_plane(points, candidates, reference)
    points = points[non_dominated(points)]
    return np.array([_gain(points, candidate, reference) for candidate in candidates])


def contributions(points: Points, reference: Points) -> Points:
    """Return for each of (N, D) points what the hypervolume would lose without it; shape (N,)."""
    others = [np.delete(points, row, axis=0) for row in range(len(points))]
    found = [gains(rest, points[row : row + 1], reference)[0] for row, rest in enumerate(others)]
    return np.array(found, np.float64)


def _inside(points: Points, reference: Points) -> Points:
    if points.ndim != 2 or points.shape[1] != len(reference) or len(reference) < 2:
        raise InvalidValueError(f"points must have shape (N, {len(reference)}), with two objectives or more, not {points.shape}")
    if not np.isfinite(points).all():
        raise InvalidValueError("points must be finite, not NaN or Inf")
    inside: Points = points[(points < reference).all(axis=1)]
    return inside


def _steps(points: Points) -> tuple[Points, Points]:
    """Return the coordinates of the front's points, first rising, second falling."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    x, y = points[order].T
    front = y < np.concatenate([[np.inf], np.minimum.accumulate(y)[:-1]])
    return x[front], y[front]


def _gains_in_the_plane(points: Points, candidates: Points, reference: Points) -> Points:
    x, y = _steps(points)
    edges = np.concatenate([[-np.inf], x, [reference[0]]])
    heights = np.concatenate([[reference[1]], y])  # of what is not yet dominated, between one edge and the next
    widths = np.minimum(edges[1:], reference[0]) - np.maximum(edges[:-1], candidates[:, :1])
    made: Points = (np.maximum(widths, 0) * np.maximum(heights - candidates[:, 1:], 0)).sum(axis=1)
    return made


def _gain(points: Points, candidate: Points, reference: Points) -> float:
    """Take the candidate's own box and subtract what the points cut from it."""
    if not (candidate < reference).all():
        return 0.0
    own = float(np.prod(reference - candidate))
    return max(own - hypervolume(np.maximum(points, candidate), reference), 0.0)
