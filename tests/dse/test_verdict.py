"""Never worse than the obvious: the chosen point is set beside the best uniform assignment at its cost, and plainly so."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from dse.objectives import MEASURED, Bound, Objective
from dse.report import Outcome
from dse.search import Evaluated
from dse.verdict import judge, lines

MakeTrial = Callable[..., Evaluated]
MakeOutcome = Callable[..., Outcome]
ACCURACY, KL = MEASURED
LUT = Objective(name="lut", unit="LUT", model="finn-formula", by_layer=True)
MIXED = {"first": "int8/uint8", "second": "int4/uint4"}


def test_mixed_precision_that_wins_is_said_to(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    cheap, dear = make_trial(0, "int4/int4", 0.5, 100), make_trial(1, "int8/int8", 0.01, 400)
    mixed = make_trial(2, MIXED, 0.02, 200)
    found = make_outcome(cheap, dear, mixed)
    verdict = judge(found, mixed)
    assert (verdict.at_cost, verdict.as_good, verdict.same, verdict.beaten) == (cheap, dear, None, True)
    first, second, third = lines(verdict)
    assert first == (
        "mixed precision beats uniform int4/int4 here: trial 2 has kl 0.02 nat, accuracy 0.98, lut 200 LUT; the best uniform "
        "assignment at no higher cost (trial 0), kl 0.5 nat, accuracy 0.5, lut 100 LUT"
    )
    assert second == (
        "the cheapest uniform assignment with a kl as good is uniform int8/int8, kl 0.01 nat, accuracy 0.99, lut 400 LUT: 2 times "
        "the lut"
    )
    assert third.startswith("1 of 3 points of the front are mixed; its hypervolume is ")


def test_a_uniform_assignment_as_good_at_the_same_cost_is_not_beaten(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    uniform, mixed = make_trial(0, "int4/int4", 0.02, 200), make_trial(1, MIXED, 0.02, 200)
    found = make_outcome(mixed, uniform)  # of equal points the first is on the front
    verdict = judge(found, mixed)
    assert not verdict.beaten
    assert lines(verdict)[0].startswith("mixed precision does not beat uniform int4/int4 here: trial 1 has kl 0.02 nat")
    assert len(lines(verdict)) == 2


def test_a_uniform_choice_is_named_as_such_whoever_proposed_it(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    uniform, again = make_trial(0, "int4/int4", 0.02, 200), make_trial(1, "int4/int4", 0.02, 200, origin="refit:lut")
    verdict = judge(make_outcome(uniform, again), again)
    assert verdict.same == uniform
    assert verdict.mixed_front == 0
    assert lines(verdict)[0] == (
        "mixed precision does not beat uniform int4/int4 here, which is what is chosen: kl 0.02 nat, accuracy 0.98, lut 200 LUT"
    )
    alone = lines(judge(make_outcome(uniform), uniform))[0]
    assert "which is what is chosen, and no other assignment that keeps the bounds was measured: kl" in alone


def test_where_no_uniform_assignment_costs_as_little_it_is_said(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    uniform, mixed = make_trial(0, "int4/int4", 0.02, 200), make_trial(1, MIXED, 0.3, 199)
    first = lines(judge(make_outcome(uniform, mixed), mixed))[0]
    assert first.startswith("no uniform assignment costs as little: trial 1 has ")
    assert "the cheapest, uniform int4/int4, kl 0.02 nat" in first


def test_uniform_assignments_beyond_a_bound_or_dropped_do_not_count(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    bound = Bound.parse("kl<=0.4", {"kl": KL})
    beyond = make_trial(0, "ternary/int8", 0.5, 100)
    dropped = make_trial(1, "int4/int4", 0.1, 100, dropped="KL 0.1 on 16 samples, where the front has 0.01 for no more")
    mixed = make_trial(2, MIXED, 0.3, 200)
    verdict = judge(make_outcome(beyond, dropped, mixed, bounds=(bound,)), mixed)
    assert verdict.at_cost is verdict.cheapest is None
    assert lines(verdict)[0].startswith("no uniform assignment that keeps the bounds was measured, so none is compared; trial 2")


def test_at_the_same_cost_means_at_no_more_of_any(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    bram = Objective(name="bram", unit="BRAM", model="dataflow")
    trials = [make_trial(0, "int4/int4", 0.1, 100), make_trial(1, "int4/int8", 0.2, 100), make_trial(2, MIXED, 0.05, 150)]
    trials = [
        replace(trial, figures={**trial.figures, "bram": blocks}) for trial, blocks in zip(trials, (9.0, 3.0, 3.0), strict=True)
    ]
    found = make_outcome(*trials, objectives=(KL, LUT, bram))
    assert judge(found, trials[2]).at_cost == trials[1]


@pytest.mark.parametrize(("objectives", "best"), [((KL, LUT), 0), ((ACCURACY, LUT), 1), ((LUT,), 0)])
def test_compared_is_the_first_measured_objective_and_kl_where_there_is_none(
    make_trial: MakeTrial, make_outcome: MakeOutcome, objectives: tuple[Objective, ...], best: int
) -> None:
    by_kl, by_accuracy, mixed = (make_trial(i, p, 0.1, 100) for i, p in enumerate(("int4/int4", "int8/int8", MIXED)))
    by_kl = replace(by_kl, figures={"accuracy": 0.8, "kl": 0.05, "lut": 100.0})
    by_accuracy = replace(by_accuracy, figures={"accuracy": 0.9, "kl": 0.2, "lut": 100.0})
    verdict = judge(make_outcome(by_kl, by_accuracy, mixed, objectives=objectives), mixed)
    assert verdict.at_cost == (by_kl, by_accuracy)[best]


def test_an_accuracy_that_is_worse_all_the_same_is_said(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    uniform, mixed = make_trial(0, "int4/int4", 0.1, 100), make_trial(1, MIXED, 0.05, 100)
    mixed = replace(mixed, figures={**mixed.figures, "accuracy": 0.5})
    assert lines(judge(make_outcome(uniform, mixed), mixed))[0].endswith("lut 100 LUT; not in accuracy")


def test_without_costs_every_uniform_assignment_is_compared(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    uniform, mixed = make_trial(0, "int8/int8", 0.01, 900), make_trial(1, MIXED, 0.2, 100)
    said = lines(judge(make_outcome(uniform, mixed, objectives=(KL,)), mixed))
    assert said[0].startswith("mixed precision does not beat uniform int8/int8 here")
    assert "the best uniform assignment (trial 0)" in said[0]
    assert said[1] == (
        "0 of 1 points of the front are mixed; fewer than two objectives differ among the feasible trials, so there is no "
        "hypervolume to compare"
    )


def test_nothing_chosen_is_nothing_compared(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    found = make_outcome(make_trial(0, "int4/int4", 0.1, 100))
    assert lines(judge(found, None)) == ["no point is chosen, so there is nothing to compare with uniform assignments"]
