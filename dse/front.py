"""Non-dominated points, and the one to take."""

import math
from collections.abc import Mapping, Sequence

from dse.objectives import Objective

Point = Mapping[str, float]


def non_dominated(points: Sequence[Point], objectives: Sequence[Objective]) -> list[int]:
    """Return the indices of the points that no other point is at least as good as in everything and better in something.

    Of points with equal figures the first stays.
    """
    losses = [tuple(objective.loss(point) for objective in objectives) for point in points]
    order = sorted(range(len(points)), key=lambda i: (losses[i], i))
    kept: list[int] = []
    for i in order:  # a point can only be dominated by one that sorts before it
        if not any(all(a <= b for a, b in zip(losses[j], losses[i], strict=True)) for j in kept):
            kept.append(i)
    return sorted(kept)


def knee(points: Sequence[Point], objectives: Sequence[Objective]) -> int:
    """Return the index of the point nearest to the best of everything.

    Every objective is put on [0, 1] between its best and worst on the front, positive figures that are minimised on a
    logarithmic axis; the distance is Euclidean, ties go to the first.
    """
    columns = [_normalised([_axis(objective, point) for point in points]) for objective in objectives]
    distances = [math.hypot(*row) for row in zip(*columns, strict=True)]
    return distances.index(min(distances))


def _axis(objective: Objective, point: Point) -> float:
    loss = objective.loss(point)
    return math.log(max(loss, 1e-9)) if objective.direction == "minimize" else loss


def _normalised(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]
