"""Selections as parameters: one for each part of an option, and one for how the network was prepared."""

import numpy as np
import optuna
import pytest

from dse.proposals.frame import Frame
from dse.proposals.rounds import Proposal, plan, propose
from dse.proposals.sampler import FIGURES, FrontSampler, store
from dse.proposals.table import ChoiceTable
from dse.proposals.variants import Variants
from formats import InvalidValueError

OPTIONS = (("int4 uint8", "int4 uint8 gptq", "int8 uint8"), ("int4 int8", "int8 int8"))


def table(scale: float) -> ChoiceTable:
    losses = (np.array([0.2, 0.1, 0.01]) * scale, np.array([0.3, 0.02]) * scale)
    costs = {"lut": (np.array([4.0, 4.0, 8.0]), np.array([4.0, 8.0]))}
    return ChoiceTable(groups=("stem", "scores"), options=OPTIONS, losses=losses, costs=costs)


VARIANTS = Variants(tables={"none": table(1.0), "equalize": table(0.5)})
PARAMS = {
    "network steps": "equalize",
    "stem/weight": "int4",
    "stem/activation": "uint8",
    "stem/steps": "gptq",
    "scores/weight": "int8",
    "scores/activation": "int8",
}


def test_each_part_of_an_option_is_a_parameter() -> None:
    assert VARIANTS.params((1, 1, 1)) == PARAMS
    assert VARIANTS.selection(PARAMS) == (1, 1, 1)
    assert VARIANTS.params((0, 0, 0))["stem/steps"] == "none"
    assert {name: d.choices for name, d in VARIANTS.distributions().items()} == {
        "network steps": ("none", "equalize"),
        "stem/weight": ("int4", "int8"),
        "stem/activation": ("uint8",),
        "stem/steps": ("none", "gptq"),
        "scores/weight": ("int4", "int8"),
        "scores/activation": ("int8",),
    }


def test_one_way_to_prepare_the_network_and_options_of_one_part_need_no_more_than_the_groups() -> None:
    only = Variants(tables={"none": ChoiceTable(groups=("a",), options=(("int4", "int8"),), losses=(np.array([1.0, 0.0]),))})
    assert only.params((0, 1)) == {"a": "int8"}
    assert only.selection({"a": "int8"}) == (0, 1)


def test_parameters_that_are_not_all_there_are_no_selection() -> None:
    assert VARIANTS.holds(PARAMS)
    for name in PARAMS:
        assert not VARIANTS.holds({other: text for other, text in PARAMS.items() if other != name})


def test_tables_survive_being_stored() -> None:
    assert Variants.from_json(VARIANTS.to_json()).to_json() == VARIANTS.to_json()


def test_tables_of_different_choices_are_refused() -> None:
    other = ChoiceTable(groups=("stem",), options=(("int4",),), losses=(np.zeros(1),))
    with pytest.raises(InvalidValueError, match="tables must be of the same groups and options, not different ones"):
        Variants(tables={"none": table(1.0), "equalize": other})


def test_proposals_come_from_every_table_and_the_better_one_wins() -> None:
    tables = tuple(VARIANTS.tables.values())
    frame = Frame.of_all(tables, "kl", ["lut"])
    assert frame.ideals[0] == pytest.approx(0.015)
    assert frame.references[0] == pytest.approx(0.5)
    whole = plan(tables, frame, uniform=[Proposal(selection=(2, 1), origin="uniform")], points=3)
    assert {proposal.selection[0] for proposal in whole.first} == {0, 1}
    tried = {p.selection: {"kl": tables[p.selection[0]].loss(p.selection[1:]), "lut": 8.0} for p in whole.first[:2]}
    rest = propose(tables, tried, 100, whole)
    assert not {proposal.selection for proposal in rest} & set(tried)


def test_the_sampler_chooses_how_the_network_is_prepared() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=FrontSampler())
    tables = tuple(VARIANTS.tables.values())
    store(study, VARIANTS, plan(tables, Frame.of_all(tables, "kl", ["lut"])), count=3)
    for _ in range(8):
        trial = study.ask(VARIANTS.distributions())
        index, *chosen = VARIANTS.selection(trial.params)
        figures = {"kl": tables[index].loss(tuple(chosen)), "lut": tables[index].cost("lut", tuple(chosen))}
        trial.set_user_attr(FIGURES, figures)
        study.tell(trial, list(figures.values()))
    assert {trial.params["network steps"] for trial in study.trials} == {"none", "equalize"}
    assert {trial.params["network steps"] for trial in study.best_trials} == {"equalize"}
