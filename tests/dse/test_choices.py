"""The table that proposals are made from: scored once, priced for what is asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import choices
from dse.experiment import Experiment, cost_models
from dse.objectives import Bound, available
from dse.problem import Problem, groups_of
from dse.space import Option, Space
from formats import BitatlasError
from hwmodels.fpga import devices
from hwmodels.fpga.pipeline import Target

SPACE = {"weights": ("int8", "int4", "ternary"), "activations": ("int8", "e2m1")}


def problem(experiment: Experiment, *names: str, bounds: tuple[str, ...] = (), **space: tuple[str, ...]) -> Problem:
    objectives = available(experiment.cost_models)
    return Problem(
        experiment=experiment,
        space=Space(groups=groups_of(experiment, (), automatic=True), **{**SPACE, **space}),  # type: ignore[arg-type]
        objectives=tuple(objectives[name] for name in names or ("kl", "lut")),
        bounds=tuple(Bound.parse(text, objectives) for text in bounds),
    )


def test_losses_are_those_of_the_option_alone_in_the_float_network(resnet8: Experiment, tmp_path: Path) -> None:
    stated = problem(resnet8)
    table = choices.losses(stated, "solo", tmp_path, "none", samples=64)
    group = next(group for group in stated.space.groups if len(group.layers) > 1)
    chosen = stated.layer_assignments(group, Option("int4", "e2m1"))
    preparation = resnet8.preparation
    images = preparation.calibration.images[:64]
    exact = preparation.network.logits(images).astype(np.float64)
    with preparation.network.filled(preparation.layer_fillings(chosen)):
        found = preparation.network.logits(images).astype(np.float64)
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (exact, found))
    index = table.groups.index(group.name)
    loss = table.losses[index][table.options[index].index("int4 e2m1")]
    assert loss == pytest.approx(float((np.exp(p) * (p - q)).sum(axis=1).mean()), rel=1e-3, abs=1e-7)


def test_what_was_scored_is_priced_anew_for_another_search(
    resnet8: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    first = choices.losses(problem(resnet8), "gradient", tmp_path / "first", "none", samples=32)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(choices, "score", refuse)
    other = problem(resnet8, "kl", "weight_bits", bounds=("lut<=30000",))
    second = choices.losses(other, "gradient", tmp_path / "second", "none", samples=32)
    assert second.to_json() == first.to_json()
    assert set(choices.with_costs(other, second).costs) == {"weight_bits", "lut"}
    with pytest.raises(AssertionError, match="scored again"):
        choices.losses(problem(resnet8, weights=("int8",)), "gradient", tmp_path / "third", "none", samples=32)


def test_stale_losses_are_refused(resnet8: Experiment, tmp_path: Path) -> None:
    choices.losses(problem(resnet8), "gradient", tmp_path, "none", samples=32)
    with pytest.raises(
        BitatlasError, match=r"sensitivities must be of what they are asked for, not stale \(samples was 32, is 16\)"
    ):
        choices.losses(problem(resnet8), "gradient", tmp_path, "none", samples=16)


def test_sums_over_layers_are_exact_costs(resnet8: Experiment, tmp_path: Path) -> None:
    stated = problem(resnet8, "kl", "lut", "weight_bits")
    table = choices.with_costs(stated, choices.losses(stated, "gradient", tmp_path, "none", samples=32))
    generator = np.random.default_rng(0)
    for _ in range(10):
        chosen = tuple(int(generator.integers(size)) for size in table.sizes)
        assignment = stated.assigned({name: Option.parse(text) for name, text in table.names(chosen).items()}, "none")
        true = resnet8.cost(assignment).total
        for name in ("lut", "weight_bits"):
            assert table.cost(name, chosen) == pytest.approx(true[name])


def test_costs_of_a_pipeline_have_stand_ins_and_rates_are_turned_round(resnet8: Experiment, tmp_path: Path) -> None:
    target = Target(device=devices.get("zynq7020"), budget=0.5)
    device = replace(resnet8, cost_models=cost_models(1024, target))
    stated = problem(device, "kl", "lut", "fps")
    table = choices.with_costs(stated, choices.losses(stated, "gradient", tmp_path, "none", samples=32))
    slow, quick = (stated.uniform_cost(Option(weight, "int8")).total["fps"] for weight in ("int8", "ternary"))
    index = [table.options[0].index(f"{weight} int8") for weight in ("int8", "ternary")]
    assert (table.column("fps")[0][index[0]] > table.column("fps")[0][index[1]]) == (slow < quick)
    figures = {"kl": 0.5, "lut": 10.0, "fps": 4.0, "accuracy": 1.0}
    assert choices.figures_to_minimise(stated, figures) == {"kl": 0.5, "lut": 10.0, "fps": 0.25}


def test_the_plan_holds_the_front_within_budgets_and_all_uniform_assignments(resnet8: Experiment, tmp_path: Path) -> None:
    limit = 25000.0
    stated = problem(resnet8, bounds=(f"lut<={limit}",))
    variants = choices.variants(stated, "gradient", tmp_path)
    plan = choices.proposal_plan(stated, variants)
    assert sum(proposal.origin.startswith("uniform") for proposal in plan.first) == len(stated.space.uniform)
    fronts = [proposal for proposal in plan.first if proposal.origin.startswith("front")]
    assert fronts
    assert all(variants.first.cost("lut", proposal.selection[1:]) <= limit for proposal in fronts)


def test_a_sampler_that_needs_a_cost_says_so(resnet8: Experiment, tmp_path: Path) -> None:
    stated = problem(resnet8, "kl")
    with pytest.raises(
        BitatlasError, match=r"objectives must hold a cost that depends on the formats for the sampler front, not only kl"
    ):
        choices.proposal_plan(stated, choices.variants(stated, "gradient", tmp_path))


def test_the_network_s_steps_have_a_table_each(resnet8: Experiment, tmp_path: Path) -> None:
    stated = problem(resnet8, network_steps=("none", "equalize"), steps=("none", "correct_bias"))
    variants = choices.variants(stated, "gradient", tmp_path)
    assert variants.names == ("none", "equalize")
    assert variants.tables["none"].to_json() != variants.tables["equalize"].to_json()
    assert dict(variants.distributions()) == stated.space.distributions()
    params = variants.params((1, *(0 for _ in variants.first.groups)))
    assert stated.assignment(params).steps == ("equalize",)
