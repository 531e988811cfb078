"""One number for a front: the share of a box that it dominates."""

from collections.abc import Callable

import numpy as np
import pytest

from dse.objectives import MEASURED, Objective
from dse.report import Outcome
from dse.search import Evaluated
from dse.volume import REFERENCE, Box

MakeTrial = Callable[..., Evaluated]
MakeOutcome = Callable[..., Outcome]
ACCURACY, KL = MEASURED
LUT = Objective(name="lut", unit="LUT", model="finn-formula")


def box_of(found: Outcome) -> Box:
    box = Box.of(found)
    assert box is not None
    return box


def test_the_share_is_that_of_random_points_which_the_front_dominates(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    generator = np.random.default_rng(0)
    trials = [make_trial(i, "int4/int4", *10.0 ** generator.uniform(-3, 0, 2)) for i in range(12)]
    box = box_of(make_outcome(*trials))
    points = box.place(trials)
    assert points.min(axis=0) == pytest.approx([0, 0])
    assert points.max(axis=0) == pytest.approx([1, 1])
    drawn = generator.uniform(0, REFERENCE, (40000, 1, 2))
    dominated = (points <= drawn).all(axis=2).any(axis=1).mean()
    assert box.share(points) == pytest.approx(dominated, abs=0.01)


def test_figures_above_zero_are_on_logarithmic_axes_and_shares_are_not(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    trials = [make_trial(0, "int4/int4", 0.1, 10), make_trial(1, "int8/int8", 0.2, 100), make_trial(2, "int4/int8", 0.4, 1000)]
    box = box_of(make_outcome(*trials, objectives=(ACCURACY, LUT)))
    assert box.place(trials) == pytest.approx(np.array([[0, 0], [1 / 3, 0.5], [1, 1]]))
    assert str(box) == "share of the box that all feasible trials span in accuracy, lut (logarithmic), reference 1.1 of its extent"
    with_zero = [*trials, make_trial(3, "int4/e2m1", 0.0, 5)]
    assert box_of(make_outcome(*with_zero)).logarithmic == (False, True)


def test_an_objective_that_is_equal_for_all_takes_no_part(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    same = [make_trial(0, "int4/int4", 0.1, 10), make_trial(1, "int8/int8", 0.2, 10)]
    assert Box.of(make_outcome(*same)) is None
    assert box_of(make_outcome(*same, objectives=(KL, ACCURACY, LUT))).objectives == (KL, ACCURACY)


def test_the_ends_of_a_front_count_and_no_point_is_nothing(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    ends = [make_trial(0, "int4/int4", 1.0, 10), make_trial(1, "int8/int8", 0.1, 100)]
    box = box_of(make_outcome(*ends))
    assert box.share(box.place(ends)) == pytest.approx((2 * 0.1 * 1.1 - 0.1 * 0.1) / 1.1**2)
    assert box.share(box.place(ends)[:0]) == 0
