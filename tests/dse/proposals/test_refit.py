"""Refitting a table to measured totals: as much as they say, and no more."""

from dataclasses import replace

import numpy as np
import pytest

from dse.proposals import ChoiceTable, Selection
from dse.proposals.refit import refit
from formats import InvalidValueError

GROUPS, OPTIONS = 6, 4


def table(losses: list[np.ndarray]) -> ChoiceTable:
    groups = tuple(f"g{g}" for g in range(len(losses)))
    options = tuple(tuple(f"o{o}" for o in range(len(part))) for part in losses)
    return ChoiceTable(groups=groups, options=options, losses=tuple(losses), costs={"lut": tuple(losses)})


@pytest.fixture(scope="module")
def truth() -> ChoiceTable:
    generator = np.random.default_rng(0)
    return table([10 ** generator.uniform(-4, 0, OPTIONS) for _ in range(GROUPS)])


@pytest.fixture(scope="module")
def prior(truth: ChoiceTable) -> ChoiceTable:
    """The truth, every option off by a factor of its own."""
    generator = np.random.default_rng(1)
    return replace(truth, losses=tuple(part * np.exp(generator.normal(0, 0.7, OPTIONS)) for part in truth.losses))


def selections(count: int, seed: int = 2) -> list[Selection]:
    drawn = np.random.default_rng(seed).integers(0, OPTIONS, (count, GROUPS))
    return [tuple(row) for row in drawn.tolist()]


def error(found: ChoiceTable, truth: ChoiceTable) -> float:
    """Return the mean error of totals that were not measured, in powers of e."""
    return float(np.mean([abs(np.log(found.loss(s) / truth.loss(s))) for s in selections(300, seed=9)]))


def test_without_measurements_the_prior_is_kept(prior: ChoiceTable) -> None:
    assert refit(prior, {}) is prior


def test_the_error_falls_with_measurements(prior: ChoiceTable, truth: ChoiceTable) -> None:
    errors = [error(refit(prior, {s: truth.loss(s) for s in selections(count)}), truth) for count in (0, 10, 40, 160)]
    assert errors[3] < errors[2] < errors[1] < errors[0]
    assert errors[3] < 0.1 * errors[0]


def test_an_additive_truth_is_recovered_by_enough_measurements(prior: ChoiceTable, truth: ChoiceTable) -> None:
    found = refit(prior, {s: truth.loss(s) for s in selections(400)}, ridge=1e-9)
    assert error(found, truth) < 1e-6


def test_one_measurement_moves_the_table_between_prior_and_itself(prior: ChoiceTable, truth: ChoiceTable) -> None:
    selection = (0,) * GROUPS
    found = refit(prior, {selection: 3 * prior.loss(selection)})
    assert prior.loss(selection) < found.loss(selection) < 3 * prior.loss(selection)
    barely = refit(prior, {selection: 3 * prior.loss(selection)}, ridge=1e6)
    assert [part.tolist() for part in barely.losses] == [pytest.approx(part, rel=1e-4) for part in prior.losses]


def test_a_prior_off_by_one_factor_is_corrected_for_options_never_measured(truth: ChoiceTable) -> None:
    scaled = replace(truth, losses=tuple(5 * part for part in truth.losses))
    measured = {s: truth.loss(s) for s in selections(400) if OPTIONS - 1 not in s}
    assert len(measured) > 30
    found = refit(scaled, measured)
    for before, after in zip(truth.losses, found.losses, strict=True):
        assert before[OPTIONS - 1] < after[OPTIONS - 1] < 1.5 * before[OPTIONS - 1]  # it was 5 times


def test_losses_stay_non_negative_and_costs_as_they_were(prior: ChoiceTable) -> None:
    generator = np.random.default_rng(3)
    measured = {s: float(10 ** generator.uniform(-6, 2)) for s in selections(60)}  # nothing like additive
    found = refit(prior, measured)
    assert min(part.min() for part in found.losses) == 0.0
    assert found.costs["lut"][0] is prior.costs["lut"][0] or (found.costs["lut"][0] == prior.costs["lut"][0]).all()


def test_options_whose_prior_is_zero_can_be_raised() -> None:
    prior = table([np.array([0.0, 1.0]), np.array([0.0, 1.0])])
    found = refit(prior, {(0, 0): 0.5, (1, 0): 1.5, (0, 1): 1.0}, ridge=1e-30)
    assert found.loss((0, 0)) == pytest.approx(0.5, rel=1e-3)


def test_measurements_must_be_finite_losses_of_the_table_s_selections(prior: ChoiceTable) -> None:
    with pytest.raises(InvalidValueError, match="measured loss must be finite and not negative, not nan"):
        refit(prior, {(0,) * GROUPS: float("nan")})
    with pytest.raises(InvalidValueError, match="selection must have 6 indices, not 1"):
        refit(prior, {(0,): 1.0})
    with pytest.raises(InvalidValueError, match="ridge must be positive, not 0"):
        refit(prior, {}, ridge=0)
