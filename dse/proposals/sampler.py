"""Our proposer as an Optuna sampler: any worker that opens the study proposes from what it finds there, and from nothing else.

The coordinator stores the table and the plan in the study; workers read them and the trials. Two workers never try the same
selection: a worker that is to propose waits until every trial begun before its own has said what it tries, so that proposals are
made in the order of the trials' numbers, which the storage gives out one by one. On SQLite the storage must be ``serialised``.
"""

import json
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from dse.proposals.frame import Frame
from dse.proposals.pool import Figures, TrueCost
from dse.proposals.rounds import EPSILON, Plan, Proposal, Stall, propose, stalled
from dse.proposals.table import Selection
from dse.proposals.transactions import together
from dse.proposals.variants import Variants
from formats.errors import BitatlasError

#: user attributes of trials: measured figures by name, where the proposal comes from, its round, options by group, what to know
FIGURES = "losses"
ORIGIN = "origin"
ROUND = "round"
CLAIM = "claim"
NOTE = "note"
#: user attributes of the study; text columns in every database, with no limit that a table could come near
TABLE = "table"
PLAN = "plan"
#: proposals made at a time; seconds after which a trial that has not said what it tries counts as dead
COUNT = 12
PATIENCE = 60.0


def store(
    study: optuna.Study, variants: Variants, plan: Plan, *, seed: int = 0, count: int = COUNT, epsilon: float = EPSILON
) -> None:
    """Put into the study what every worker needs: tables, the plan, proposals for each round, and when a search has stalled.

    The plan, which workers wait for, comes last.
    """
    content = {
        "names": plan.frame.names,
        "ideals": plan.frame.ideals,
        "references": plan.frame.references,
        "budgets": dict(plan.budgets),
        "first": [[proposal.selection, proposal.origin] for proposal in plan.first],
        "refitted_points": plan.refitted_points,
        "seed": seed,
        "count": count,
        "epsilon": epsilon,
    }
    study.set_user_attr(TABLE, variants.to_json())
    study.set_user_attr(PLAN, json.dumps(content))


class Stored:
    """What ``store`` put into a study."""

    def __init__(self, study: optuna.Study) -> None:
        """Read it; ``BitatlasError`` where nothing is stored."""
        attributes = study.user_attrs
        if TABLE not in attributes or PLAN not in attributes:
            raise BitatlasError(f"study must hold a table of choices and a plan, not lack them ({study.study_name})")
        self.variants = Variants.from_json(attributes[TABLE])
        content = json.loads(attributes[PLAN])
        frame = Frame(**{name: tuple(content[name]) for name in ("names", "ideals", "references")})
        first = tuple(Proposal(selection=tuple(selection), origin=origin) for selection, origin in content["first"])
        self.plan = Plan(frame=frame, budgets=content["budgets"], first=first, refitted_points=int(content["refitted_points"]))
        self.seed, self.count, self.epsilon = int(content["seed"]), int(content["count"]), float(content["epsilon"])

    def selection(self, trial: FrozenTrial) -> Selection | None:
        """Return what a trial tries; None while it has not said."""
        for found in (trial.user_attrs.get(CLAIM), trial.system_attrs.get("fixed_params"), trial.params):
            if found and self.variants.holds(found):
                return self.variants.selection(found)
        return None

    def figures(self, trial: FrozenTrial) -> Figures | None:
        """Return the figures of a trial that was measured, if only on few samples; None for one that runs, waits or failed."""
        if not measured(trial):
            return None
        figures: Figures = trial.user_attrs.get(FIGURES, {})
        missing = [name for name in (*self.plan.frame.names, *self.plan.budgets) if name not in figures]
        if missing:
            raise BitatlasError(f"trials must hold the figure {missing[0]!r}, not lack it (trial {trial.number})")
        return figures


def measured(trial: FrozenTrial) -> bool:
    """Whether a trial has figures: it is complete, or was dropped on few samples."""
    return trial.state == TrialState.COMPLETE or (trial.state == TrialState.PRUNED and FIGURES in trial.user_attrs)


def stall(study: optuna.Study) -> Stall | None:
    """Return the stall of a study's rounds of refits and exchanges, None where they still gain."""
    return _stall(Stored(study), study.get_trials(deepcopy=False))


def _stall(stored: Stored, trials: list[FrozenTrial]) -> Stall | None:
    done = [trial for trial in trials if measured(trial)]
    rounds = {trial.number: int(trial.user_attrs.get(ROUND, 0)) for trial in trials}
    if any(trial.state in (TrialState.RUNNING, TrialState.WAITING) and rounds[trial.number] for trial in trials):
        ended = max(rounds.values()) - 1
    else:
        ended = max(rounds.values(), default=0)
    history = []
    for number in range(ended + 1):
        within = [figures for trial in done if rounds[trial.number] <= number and (figures := stored.figures(trial))]
        kept = [figures for figures in within if all(figures[n] <= limit for n, limit in stored.plan.budgets.items())]
        history.append(stored.plan.frame.hypervolume(kept))
    return stalled(history, stored.epsilon)


class FrontSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Proposes what ``dse.proposals.rounds`` does, reading table, plan and trials from the study it is asked about.

    Where a round's proposals are due, the first becomes the trial that asks and the others are enqueued, each with its origin.
    Where nothing new promises to add to the front, or the search has stalled, it takes a seeded random selection that was not
    tried (origin ``random``), and the trial's note says why; where nothing is left untried, it repeats one, and says so.
    """

    def __init__(self, cost: TrueCost | None = None, patience: float = PATIENCE) -> None:
        """Take true costs where they are not sums over groups, and after how many seconds a silent trial is dead."""
        self._cost = cost
        self._patience = patience
        self._stored: dict[int, Stored] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return one categorical parameter for each group."""
        return dict(self._of(study).variants.distributions())

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return the parameters of the next selection to try, having told every other worker of it."""
        stored = self._of(study)
        while True:
            trials = self._settled(study, trial, stored)
            tried = _tried(stored, trials)
            waiting = any(other.state == TrialState.WAITING for other in trials)
            found = self._next(stored, trials, tried, trial.number, 1 if waiting else stored.count)
            params = together(study, partial(_claim, study, trial, stored, tried, *found))
            if params is not None:
                return params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Refuse parameters that are not of the table."""
        raise BitatlasError(f"parameter must be a group of the study's table, not {param_name!r}")

    def _of(self, study: optuna.Study) -> Stored:
        if study._study_id not in self._stored:
            self._stored = {study._study_id: Stored(study)}
        return self._stored[study._study_id]

    def _settled(self, study: optuna.Study, trial: FrozenTrial, stored: Stored) -> list[FrozenTrial]:
        """Wait until every earlier trial has said what it tries or counts as dead, and return all other trials."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            begun = datetime.now() - timedelta(seconds=self._patience)
            if not any(
                other.number < trial.number
                and other.state == TrialState.RUNNING
                and stored.selection(other) is None
                and (other.datetime_start is None or other.datetime_start > begun)
                for other in study._storage.get_all_trials(study._study_id, deepcopy=False)
            ):
                break
            time.sleep(0.05)
        # read once more: databases give trials first and their attributes later, so that a claim may have been seen without the
        # trials that were enqueued before it
        return [other for other in study._storage.get_all_trials(study._study_id, deepcopy=False) if other.number != trial.number]

    def _next(
        self, stored: Stored, trials: list[FrozenTrial], tried: Mapping[Selection, Figures | None], number: int, count: int
    ) -> tuple[Proposal, list[Proposal], str, int]:
        """Return the trial's own proposal, those to enqueue, a note, and the round, 0 for what the plan began with."""
        stall = _stall(stored, trials)
        if stall is None:
            tables = tuple(stored.variants.tables.values())
            found = propose(tables, tried, count, stored.plan, self._cost)
            if found:
                opening = {proposal.selection for proposal in stored.plan.first}
                return found[0], found[1:], "", 0 if found[0].selection in opening else _round(trials, count)
        note = str(stall) if stall else "nothing new promises to add to the front"
        selection, repeats = _random(stored, tried, number)
        if repeats:
            note = "no selection is left untried: this one is a repetition"
        return Proposal(selection=selection, origin="random"), [], note, _round(trials, 1)


def _claim(
    study: optuna.Study,
    trial: FrozenTrial,
    stored: Stored,
    tried: Mapping[Selection, Figures | None],
    proposal: Proposal,
    rest: list[Proposal],
    note: str,
    number: int,
) -> dict[str, Any] | None:
    """Write down what a trial tries, and enqueue the rest of its round; None where another worker claimed the same meanwhile.

    A trial whose worker was lost tries what it was to try.
    """
    claimed: dict[str, Any] | None = study._storage.get_trial(trial._trial_id).user_attrs.get(CLAIM)
    if claimed is not None:
        return claimed
    others = [other for other in study._storage.get_all_trials(study._study_id, deepcopy=False) if other.number != trial.number]
    if proposal.selection in _tried(stored, others).keys() - tried.keys():
        return None
    for other in rest:
        attributes = {ORIGIN: other.origin, ROUND: number}
        study.enqueue_trial(stored.variants.params(other.selection), user_attrs=attributes, skip_if_exists=True)
    params = stored.variants.params(proposal.selection)
    attributes = {ORIGIN: proposal.origin, ROUND: number} | ({NOTE: note} if note else {}) | {CLAIM: params}
    for name, value in attributes.items():  # the claim last: it is what other workers wait for
        study._storage.set_trial_user_attr(trial._trial_id, name, value)
    return params


def _tried(stored: Stored, trials: list[FrozenTrial]) -> dict[Selection, Figures | None]:
    tried: dict[Selection, Figures | None] = {}
    for trial in trials:
        selection = stored.selection(trial)
        if selection is not None and tried.get(selection) is None:
            tried[selection] = stored.figures(trial)
    return tried


def _round(trials: list[FrozenTrial], count: int) -> int:
    """Return the number of a new round, or of the one that a single proposal joins."""
    latest = max((int(trial.user_attrs.get(ROUND, 0)) for trial in trials), default=0)
    return latest + 1 if count > 1 else max(latest, 1)


def _random(stored: Stored, tried: Mapping[Selection, Figures | None], number: int) -> tuple[Selection, bool]:
    """Return a selection drawn by seed and trial number, and whether it was tried before."""
    sizes = np.array(stored.variants.sizes)
    generator = np.random.default_rng([stored.seed, number])
    if float(np.prod(sizes, dtype=np.float64)) <= 2 * len(tried) + 64:  # few are left: list them all
        every = np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=1)
        left = [selection for selection in map(tuple, every.tolist()) if selection not in tried]
        if left:
            return left[int(generator.integers(len(left)))], False
        return tuple(generator.integers(sizes).tolist()), True
    while True:
        selection: Selection = tuple(generator.integers(sizes).tolist())
        if selection not in tried:
            return selection, False
