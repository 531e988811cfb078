"""Hypervolumes against counting the cells of a grid."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.proposals.hypervolume import contributions, gains, hypervolume, non_dominated, normalise
from formats import InvalidValueError

SIDE = 4


@st.composite
def grids(draw: st.DrawFn, rows: int = 6) -> np.ndarray:
    dimensions = draw(st.integers(2, 4))
    count = draw(st.integers(0, rows))
    cells = draw(st.lists(st.tuples(*[st.integers(0, SIDE + 1)] * dimensions), min_size=count, max_size=count))
    return np.array(cells, np.float64).reshape(-1, dimensions)


def counted(points: np.ndarray) -> float:
    """Count the unit cells below the reference that some point dominates."""
    cells = itertools.product(range(SIDE), repeat=points.shape[1])
    return float(sum(any((point <= cell).all() for point in points) for cell in cells))


@settings(deadline=None)
@given(grids())
def test_hypervolume_is_the_number_of_cells_dominated(points: np.ndarray) -> None:
    assert hypervolume(points, np.full(points.shape[1], float(SIDE))) == pytest.approx(counted(points), abs=1e-9)


@settings(deadline=None)
@given(grids())
def test_gains_and_contributions_are_differences_of_hypervolumes(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], float(SIDE))
    split = len(points) // 2
    known, candidates = points[:split], points[split:]
    wanted = [counted(np.vstack([known, candidate[None]])) - counted(known) for candidate in candidates]
    assert gains(known, candidates, reference) == pytest.approx(wanted, abs=1e-9)
    lost = [counted(points) - counted(np.delete(points, row, axis=0)) for row in range(len(points))]
    assert contributions(points, reference) == pytest.approx(lost, abs=1e-9)


@settings(deadline=None)
@given(grids())
def test_of_equal_points_the_first_is_not_dominated(points: np.ndarray) -> None:
    wanted = [
        not any((q <= p).all() and ((q < p).any() or j < i) for j, q in enumerate(points) if j != i) for i, p in enumerate(points)
    ]
    assert non_dominated(points).tolist() == wanted


def test_normalise_puts_ideal_and_reference_on_zero_and_one() -> None:
    points = np.array([[1.0, 10.0], [3.0, 20.0], [2.0, 15.0]])
    assert normalise(points, points[0], points[1]).tolist() == [[0, 0], [1, 1], [0.5, 0.5]]
    with pytest.raises(InvalidValueError, match="reference must be above the ideal in every objective"):
        normalise(points, points[0], np.array([3.0, 10.0]))


def test_points_must_fit_the_reference_and_be_finite() -> None:
    with pytest.raises(InvalidValueError, match=r"points must have shape \(N, 2\), with two objectives or more, not \(1, 3\)"):
        hypervolume(np.zeros((1, 3)), np.ones(2))
    with pytest.raises(InvalidValueError, match="points must be finite"):
        hypervolume(np.array([[np.nan, 0.0]]), np.ones(2))
