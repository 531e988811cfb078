"""The search: any worker asks the ledger for the next trial, measures it and writes it down, until there are enough of them."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from dse import choices
from dse.assignment import Assignment
from dse.ledger import Ledger
from dse.objectives import Bound
from dse.patience import LedgerAwayError
from dse.problem import Problem
from dse.proposals import sampler as proposing
from dse.proposals import samplers
from dse.proposals.variants import Variants
from dse.rungs import Rungs
from formats.errors import BitatlasError

#: user attributes of a trial
FIGURES, REMARKS, ORIGIN, DROPPED = "figures", "remarks", "origin", "dropped"
#: uniform assignments that a search by a sampler of Optuna's begins with at most
MOST_UNIFORM = 64
#: user attribute of a study: its uniform assignments wait in it
UNIFORM = "uniform"
#: seconds between two looks at what other workers do
POLL = 0.25


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A finished trial as the rest of the program sees it."""

    number: int
    #: its number in the ledger, where lost trials have numbers too
    ledger_number: int
    origin: str
    assignment: Assignment
    figures: Mapping[str, float]
    remarks: Mapping[str, str] = field(default_factory=dict)
    #: why it was not measured in full; its divergence is then of few samples, and it has no accuracy
    dropped: str = ""

    @property
    def uniform(self) -> bool:
        """Whether the trial gave every layer the same pair of formats."""
        return self.origin.startswith("uniform")

    def feasible(self, bounds: Sequence[Bound]) -> bool:
        """Whether the trial was measured in full and its figures keep every bound."""
        return not self.dropped and all(bound.violation(self.figures) <= 0 for bound in bounds)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of a trial, and why it was not measured in full, if it was not."""

    figures: Mapping[str, float]
    remarks: Mapping[str, str]
    dropped: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Worker:
    """What a worker of a search needs: the problem, the ledger, and how many trials there are to be."""

    problem: Problem
    ledger: Ledger
    trials: int
    sampler: str
    seed: int
    rungs: Rungs

    def work(self, report: Callable[[list[FrozenTrial]], None] = lambda finished: None) -> str:
        """Work until the ledger has enough finished trials; ``report`` is told of all of them after each, whoever made it.

        Lost workers' trials are taken over. A database that does not answer is waited for. Returns why it ended before there
        were enough, which is where the sampler ``front`` has nothing left to gain; empty where there are enough.
        """
        seen = -1
        while True:
            self.ledger.take_over()
            finished = self.ledger.finished()
            if len(finished) != seen:
                seen = len(finished)
                report(finished)
            if len(finished) >= self.trials:
                return ""
            note = next((trial.user_attrs[proposing.NOTE] for trial in finished if proposing.NOTE in trial.user_attrs), "")
            if note:
                return f"{note}; stopped after {len(finished)} of {self.trials} trials"
            trial = self.ledger.take(self.trials, self._sampler, in_turn=self.sampler == "front")
            if trial is None:
                time.sleep(POLL)  # others work on what is left; should one of them be lost, this one takes over
            else:
                self._work_on(trial)

    @property
    def study(self) -> optuna.Study:
        """The ledger's study."""
        return self.ledger.study

    def _work_on(self, trial: optuna.Trial) -> None:
        try:
            with self.ledger.beating(trial):
                assignment = self._assignment(trial)
                if assignment is None:
                    return
                measured = self._measured(assignment, str(trial.user_attrs[ORIGIN]))
            self._finish(trial, measured)
        except LedgerAwayError:
            raise  # the trial counts as lost
        except BaseException:
            self.ledger.give_back(trial)
            raise

    def _sampler(self, before: int) -> optuna.samplers.BaseSampler:
        return self._front_sampler if self.sampler == "front" else samplers.make(self.sampler, trial_seed(self.seed, before))

    @cached_property
    def _front_sampler(self) -> proposing.FrontSampler:
        return proposing.FrontSampler(cost=self.true_cost)

    @cached_property
    def _variants(self) -> Variants:
        return proposing.Stored(self.study).variants

    def true_cost(self, chosen: tuple[int, ...]) -> dict[str, float]:
        """Return the costs of a selection as they are, for proposals."""
        assignment = self.problem.assignment(self._variants.params(chosen))
        total = self.problem.experiment.cost(assignment).total
        return {o.name: choices.minimised(o, total[o.name]) for o in choices.cost_objectives(self.problem)}

    def _assignment(self, trial: optuna.Trial) -> Assignment | None:
        """Return what a trial tries; None where it counted as lost meanwhile, and is another worker's."""
        known = self.study._storage.get_trial(trial._trial_id)
        params = self._params(trial, known)  # the sampler may think for a while: not while the ledger is held to write
        return self.ledger.write(trial, lambda: self._written(trial, params, known.params))

    def _params(self, trial: optuna.Trial, known: FrozenTrial) -> dict[str, str]:
        """Return what a trial tries: what is known of it, as its worker was lost or it was enqueued, or what the sampler says."""
        given = known.params or known.system_attrs.get("fixed_params") or self.ledger.patiently(lambda: trial.relative_params)

        def drawn(name: str, distribution: CategoricalDistribution) -> str:
            if distribution.single():
                return str(distribution.choices[0])
            return str(self.study.sampler.sample_independent(self.study, known, name, distribution))

        distributions = self.problem.space.distributions().items()
        return {name: given[name] if given.get(name) in d.choices else drawn(name, d) for name, d in distributions}

    def _written(self, trial: optuna.Trial, params: Mapping[str, str], known: Mapping[str, str]) -> Assignment:
        new = {name: value for name, value in params.items() if name not in known}
        self.ledger.set_params(trial, new, self.problem.space.distributions())
        written = self.study._storage.get_trial(trial._trial_id).user_attrs
        trial.set_user_attr(ORIGIN, written.get(ORIGIN, self.sampler))
        return self.problem.assignment(params)

    def _measured(self, assignment: Assignment, origin: str) -> Measured:
        experiment = self.problem.experiment
        costs = experiment.cost(assignment)
        front = [] if origin.startswith("uniform") else self._front()
        dropped = None if origin.startswith("uniform") else self.rungs.dropped(experiment, assignment, costs.total, front)
        if dropped is not None:
            return Measured(figures={"kl": dropped.kl, **costs.total}, remarks=costs.remarks, dropped=str(dropped))
        found = experiment.measure(assignment)
        return Measured(figures={"accuracy": found.accuracy, "kl": found.kl, **costs.total}, remarks=costs.remarks)

    def _finish(self, trial: optuna.Trial, measured: Measured) -> None:
        figures, dropped = measured.figures, measured.dropped

        def write() -> None:
            trial.set_user_attr(REMARKS, dict(measured.remarks))
            trial.set_user_attr(FIGURES, dict(figures))
            trial.set_user_attr(proposing.FIGURES, choices.figures_to_minimise(self.problem, figures))
            if dropped:
                trial.set_user_attr(DROPPED, dropped)
                return
            for bound in self.problem.bounds:
                trial.set_constraint(str(bound), bound.violation(figures))

        values = None if dropped else [figures[objective.name] for objective in self.problem.objectives]
        self.ledger.finish(trial, write, values)

    def _front(self) -> list[Mapping[str, float]]:
        """Return the figures of all trials that were measured in full and keep the bounds."""
        trials = [trial for trial in self.ledger.trials() if trial.state == TrialState.COMPLETE]
        kept = [trial.user_attrs[FIGURES] for trial in trials]
        return [figures for figures in kept if all(bound.violation(figures) <= 0 for bound in self.problem.bounds)]


def enqueue_uniform(problem: Problem, ledger: Ledger) -> None:
    """Put the uniform assignments first, for samplers that would not begin with them: all of them, once."""
    study = ledger.study

    def enqueue() -> None:
        if UNIFORM in study.user_attrs:
            return
        for option in problem.space.uniform[:MOST_UNIFORM] if not study.get_trials(deepcopy=False) else ():
            params = problem.space.params({group.name: problem.space.fitted(group, option) for group in problem.space.groups})
            study.enqueue_trial(params, user_attrs={ORIGIN: f"uniform {str(option).replace(' ', '/')}"})
        study.set_user_attr(UNIFORM, True)

    ledger.together(enqueue)


def evaluated(problem: Problem, finished: Sequence[FrozenTrial], known: Sequence[Evaluated] = ()) -> list[Evaluated]:
    """Return finished trials as the rest of the program sees them, numbered from 0; those already ``known`` are taken over."""
    before = {trial.ledger_number: trial for trial in known}
    made = []
    for number, trial in enumerate(finished):
        old = before.get(trial.number)
        made.append(_evaluated(problem, trial, number) if old is None else replace(old, number=number))
    return made


def _evaluated(problem: Problem, trial: FrozenTrial, number: int) -> Evaluated:
    if not {ORIGIN, FIGURES, REMARKS} <= set(trial.user_attrs):
        raise BitatlasError(
            f"trials of the ledger must hold their origin, figures and remarks, not lack them in trial {trial.number}"
        )
    return Evaluated(
        number=number,
        ledger_number=trial.number,
        origin=str(trial.user_attrs[ORIGIN]),
        assignment=problem.assignment(trial.params),
        figures=trial.user_attrs[FIGURES],
        remarks=trial.user_attrs[REMARKS],
        dropped=str(trial.user_attrs.get(DROPPED, "")),
    )


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a sampler for one trial: a search that was interrupted goes on as it would have gone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "little")
