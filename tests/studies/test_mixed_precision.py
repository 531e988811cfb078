"""The study of mixed precision runs four searches of each network and says what each finds beyond the others."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest

from dse import experiment
from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.evaluate import Figures
from dse.experiment import Experiment
from studies import mixed_precision
from studies.mixed_precision_data import (
    COST,
    KL,
    MIXED,
    MIXED_STEPS,
    QUICK,
    UNIFORM,
    UNIFORM_STEPS,
    VARIANTS,
    Chosen,
    Found,
    Point,
    choose,
    front,
    restricted,
    shortened,
    stated,
)
from studies.mixed_precision_page import gain, held_out

TINY = replace(
    QUICK,
    models=("resnet8",),
    weights=("int3", "int4"),
    activations=("int4", "int6"),
    trials=8,
    step_trials=20,
    images=60,
    scored=8,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_precision, "QUICK", TINY)
        patch.setattr(mixed_precision, "RESULTS", folder / "results")
        mixed_precision.main(["--quick", "--out", str(folder / "report")])
        yield folder / "report"


def test_a_tiny_run_leaves_a_report_and_the_next_one_looks_everything_up(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, lines = (report / "README.md").read_text(), pd.read_csv(report / "mixed_precision.csv", keep_default_na=False)
    assert "Made by `python -m studies.mixed_precision --quick`" in page
    assert (report / "fronts.png").read_bytes().startswith(b"\x89PNG")
    assert "nan" not in page
    counts = lines["search"].value_counts()
    # every pair of formats, with both rows of either kind of steps
    assert (counts[UNIFORM.name], counts[UNIFORM_STEPS.name]) == (4, 16)
    assert 4 <= counts[MIXED.name] <= TINY.trials
    assert 8 <= counts[MIXED_STEPS.name] <= TINY.step_trials
    written = json.loads((report / "assignments" / "resnet8-uniform.json").read_text())
    assert written["model"] == "resnet8"
    monkeypatch.setattr(experiment, "measure", lambda *_: pytest.fail("what was measured must be looked up"))
    before = {path: path.read_bytes() for path in (report / "mixed_precision.csv", *(report / "assignments").iterdir())}
    mixed_precision.main(["--quick", "--out", str(report)])
    assert {path: path.read_bytes() for path in before} == before


def test_each_search_may_choose_what_its_name_says(report: Path) -> None:
    lines = pd.read_csv(report / "mixed_precision.csv", keep_default_na=False)
    for variant in VARIANTS:
        some = lines[lines["search"] == variant.name]
        assert some["layers"].str.contains("gptq").any() == variant.steps
        assert (some["origin"].str.startswith("uniform").all()) == (not variant.mixed)
    assert set(lines[lines["search"] == UNIFORM_STEPS.name]["network steps"]) == {"none", "equalize"}


def test_searches_measure_on_the_first_images_alone() -> None:
    whole = stated(TINY, "resnet8")
    statement = shortened(whole, TINY)
    few, all_of_them = statement.problem.experiment, whole.problem.experiment
    assert len(few.split("validation")) == TINY.images < len(all_of_them.split("validation"))
    assert few.preparation is all_of_them.preparation
    assignment = whole.problem.uniform(whole.problem.space.uniform[0])
    assert few.measure(assignment) == all_of_them.measure(assignment, samples=TINY.images)
    one = restricted(statement, TINY, UNIFORM, Path("x"))
    assert one.problem.space.steps == one.problem.space.network_steps == ("none",)
    assert one.problem.experiment is few
    assert one.fingerprint.differences(statement.fingerprint)


class Measured:
    """Stands for an experiment whose float network has accuracy 0.9; assignments have the accuracy that they are named by."""

    def float_figures(self, split: str) -> Figures:
        return Figures(accuracy=0.9, kl=0.0)

    def measure(self, assignment: Assignment, split: str = "validation") -> Figures:
        return Figures(accuracy=float(assignment.data), kl=0.0)


def point(accuracy: float, divergence: float, lut: float, truly: float = 0.9) -> Point:
    """Return a point by its figures on few images, and its accuracy on all of them."""
    layer = LayerAssignment(weight=parse_quantizer("int4", "weight"), activation=parse_quantizer("int4", "activation"))
    assignment = Assignment(model="m", data=str(truly), layers={"layer": layer})
    return Point(
        origin="made", assignment=assignment, figures={"accuracy": accuracy, KL: divergence, COST: lut, "weight_bits": 8.0}
    )


def test_the_front_is_what_no_other_point_beats() -> None:
    draws = np.random.default_rng(5)
    points = [point(0.9, *map(float, draws.integers(1, 12, 2))) for _ in range(40)]
    kept = front(points)
    for one in points:
        figures = (one.figures[KL], one.figures[COST])
        beaten = any(
            other.figures[KL] <= figures[0]
            and other.figures[COST] <= figures[1]
            and (other.figures[KL], other.figures[COST]) != figures
            for other in points
        )
        assert (figures in {(p.figures[KL], p.figures[COST]) for p in kept}) != beaten
    assert len({(p.figures[KL], p.figures[COST]) for p in kept}) == len(kept)


def test_what_is_chosen_is_good_on_all_images() -> None:
    experiment = cast(Experiment, Measured())
    bad, lucky, good, dear = (
        point(0.87, 0.4, 1.0),  # too far from float on few images to be looked at
        point(0.90, 0.3, 2.0, truly=0.89),  # more than one percent below on all of them
        point(0.885, 0.2, 3.0, truly=0.8911),
        point(0.90, 0.1, 4.0),
    )
    beaten = point(0.90, 0.35, 2.5)
    chosen = choose([dear, good, lucky, beaten, bad], experiment, 0.9)
    assert chosen == Chosen(point=good, accuracy=0.8911, test=0.8911)
    assert choose([bad, lucky], experiment, 0.9) is None


def found(**points: tuple[Point, ...]) -> Found:
    """Return a network of float accuracy 0.9 with the points of the searches, uniform ones for those that are not named."""
    uniform = (point(0.7, 0.5, 10.0), point(0.9, 0.01, 100.0))
    by_name = {variant.name: points.get(variant.slug.replace("-", "_"), uniform) for variant in VARIANTS}
    return Found(
        model="resnet8",
        float_accuracy=0.9,
        float_validation=0.9,
        float_test=0.9,
        points=by_name,
        trials={name: len(some) for name, some in by_name.items()},
        chosen={name: choose(some, cast(Experiment, Measured()), 0.9) for name, some in by_name.items()},
    )


def test_what_a_search_gains_is_said_whichever_way_it_goes() -> None:
    better = found(mixed_formats=(point(0.895, 0.02, 80.0),))
    said = gain([better], UNIFORM, MIXED)
    assert "cheaper on every network" in said
    assert "resnet8 -20.0 % LUT" in said
    worse = found(mixed_formats=(point(0.895, 0.02, 150.0),))
    assert "cheaper on no network" in gain([worse], UNIFORM, MIXED)
    assert "resnet8 +50.0 % LUT" in gain([worse], UNIFORM, MIXED)
    assert "cheaper on 1 of 2" in gain([better, worse], UNIFORM, MIXED)
    nothing = found(mixed_formats=(point(0.5, 0.02, 1.0),))
    assert "resnet8 no point within 1 %" in gain([nothing], UNIFORM, MIXED)


def test_hypervolumes_share_one_box() -> None:
    network = found(mixed_formats=(point(0.9, 0.01, 10.0),))
    assert network.hypervolume(MIXED) == pytest.approx(1.0)  # the best of both: the whole box
    assert network.hypervolume(UNIFORM) == 0.0  # its points are the ends of the box
    halfway = found(mixed_formats=(point(0.9, (0.5 * 0.01) ** 0.5, (10.0 * 100.0) ** 0.5),))
    assert halfway.hypervolume(MIXED) == pytest.approx(0.25)  # the middle of both logarithmic axes


def test_points_that_fall_short_on_test_images_are_named() -> None:
    network = found()
    assert "4 of the 4 chosen points are within 1 % of float too" in held_out([network])
    chosen = network.chosen[MIXED.name]
    assert chosen is not None
    short = replace(network, chosen={**network.chosen, MIXED.name: replace(chosen, test=0.88)})
    assert "3 of the 4" in held_out([short])
    assert "not resnet8, mixed formats: 2.2 % below." in held_out([short])
