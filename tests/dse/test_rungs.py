"""What is far behind the front on few samples is not measured on all; what could belong to it is."""

from dataclasses import replace

import pytest

from dse.assignment import Assignment, parse_quantizer
from dse.experiment import Experiment
from dse.objectives import available
from dse.rungs import DEFAULT, Rung, Rungs


def assignment(experiment: Experiment, weight: str) -> Assignment:
    return experiment.preparation.uniform("m", "d", parse_quantizer(weight, "weight"), parse_quantizer("int8", "activation"))


@pytest.fixture
def rungs(resnet8: Experiment) -> Rungs:
    return Rungs(costs=(available(resnet8.cost_models)["lut"],))


def test_a_poor_assignment_is_dropped_on_the_first_rung_that_shows_it(resnet8: Experiment, rungs: Rungs) -> None:
    poor, good = assignment(resnet8, "ternary"), assignment(resnet8, "int8")
    front = [{"kl": resnet8.measure(good).kl, "lut": 100.0}]
    dropped = rungs.dropped(resnet8, poor, {"lut": 100.0}, front)
    assert dropped is not None
    assert dropped.rung == DEFAULT[0]
    assert dropped.kl == resnet8.measure(poor, samples=16).kl > 4 * front[0]["kl"]
    assert str(dropped) == f"KL {dropped.kl:.3g} on 16 samples, where the front has {front[0]['kl']:.3g} for no more"


def test_what_costs_less_than_anything_better_comes_through(resnet8: Experiment, rungs: Rungs) -> None:
    poor, good = assignment(resnet8, "ternary"), assignment(resnet8, "int8")
    front = [{"kl": resnet8.measure(good).kl, "lut": 100.0}]
    assert rungs.dropped(resnet8, poor, {"lut": 99.0}, front) is None
    assert rungs.dropped(resnet8, poor, {"lut": 100.0}, []) is None


def test_what_is_as_good_as_the_front_comes_through(resnet8: Experiment, rungs: Rungs) -> None:
    good = assignment(resnet8, "int8")
    assert rungs.dropped(resnet8, good, {"lut": 100.0}, [{"kl": resnet8.measure(good).kl, "lut": 100.0}]) is None


def test_without_rungs_and_on_small_splits_everything_comes_through(resnet8: Experiment, rungs: Rungs) -> None:
    poor, front = assignment(resnet8, "ternary"), [{"kl": 1e-9, "lut": 1.0}]
    assert replace(rungs, rungs=()).dropped(resnet8, poor, {"lut": 2.0}, front) is None
    half = len(resnet8.split("validation")) // 2
    too_many = replace(rungs, rungs=(Rung(samples=half + 1, margin=1.0),))
    assert too_many.dropped(resnet8, poor, {"lut": 2.0}, front) is None


def test_few_samples_are_measured_by_themselves(resnet8: Experiment) -> None:
    poor = assignment(resnet8, "ternary")
    assert resnet8.measure(poor, samples=16) != resnet8.measure(poor)
    assert resnet8.measure(poor, samples=len(resnet8.split("validation"))) == resnet8.measure(poor)
