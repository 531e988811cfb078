"""The search: any worker asks the ledger for the next trial, measures it and writes it down, until there are enough of them."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from dse import choices
from dse.assignment import Assignment
from dse.ledger import SURPLUS, Ledger, database_message, is_database_error
from dse.objectives import Bound
from dse.problem import Problem
from dse.proposals import sampler as proposing
from dse.proposals import samplers
from dse.proposals.variants import Variants
from dse.rungs import Rungs
from formats.errors import BitatlasError

Result = TypeVar("Result")

#: user attributes of a trial
FIGURES, REMARKS, ORIGIN, DROPPED = "figures", "remarks", "origin", "dropped"
#: uniform assignments that a search by a sampler of Optuna's begins with at most
MOST_UNIFORM = 64
#: seconds between two looks at what other workers do, and until a database that does not answer is given up
POLL, PATIENCE = 0.5, 300.0


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
            finished, open_trials = self._look()
            if len(finished) != seen:
                seen = len(finished)
                report(finished)
            if len(finished) >= self.trials:
                return ""
            note = next((trial.user_attrs[proposing.NOTE] for trial in finished if proposing.NOTE in trial.user_attrs), "")
            if note:
                return f"{note}; stopped after {len(finished)} of {self.trials} trials"
            if len(finished) + open_trials >= self.trials:
                time.sleep(POLL)  # others work on what is left; should one of them be lost, this one takes over
                continue
            self.study.sampler = self._sampler(len(finished))
            waiting_for_database(self._one_trial)

    @property
    def study(self) -> optuna.Study:
        """The ledger's study."""
        return self.ledger.study

    def _look(self) -> tuple[list[FrozenTrial], int]:
        def look() -> tuple[list[FrozenTrial], int]:
            self.ledger.take_over()
            trials = self.ledger.trials()
            finished = [trial for trial in trials if trial.state.is_finished()]
            return finished, sum(trial.state == TrialState.RUNNING for trial in trials)

        return waiting_for_database(look)

    def _one_trial(self) -> None:
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # it counted as lost, and another has taken it over
            self.study.optimize(self.objective, n_trials=1)

    def _sampler(self, finished: int) -> optuna.samplers.BaseSampler:
        return self._front_sampler if self.sampler == "front" else samplers.make(self.sampler, trial_seed(self.seed, finished))

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

    def objective(self, trial: optuna.Trial) -> list[float]:
        """Measure a trial; raises ``TrialPruned`` where it was dropped early or is one too many."""
        self.ledger.sign(trial)
        params = {name: str(trial.suggest_categorical(name, d.choices)) for name, d in self.problem.space.distributions().items()}
        if sum(other.number < trial.number for other in self.ledger.trials()) >= self.trials:
            trial.set_user_attr(SURPLUS, True)
            raise optuna.TrialPruned("surplus")
        # the trial's own copy was made before the sampler wrote to the storage where its proposal comes from
        written = self.study._storage.get_trial(trial._trial_id).user_attrs
        trial.set_user_attr(ORIGIN, written.get(ORIGIN, self.sampler))
        try:
            return self._measured(trial, self.problem.assignment(params))
        except BaseException as error:
            # what was not measured is to be proposed again; after a failure of the database the trial is taken over as a lost one
            if not isinstance(error, optuna.TrialPruned) and not is_database_error(error):
                origin = str(trial.user_attrs.get(ORIGIN, self.sampler))
                self.study.enqueue_trial(params, user_attrs={ORIGIN: origin})
            raise

    def _measured(self, trial: optuna.Trial, assignment: Assignment) -> list[float]:
        experiment = self.problem.experiment
        costs = experiment.cost(assignment)
        trial.set_user_attr(REMARKS, dict(costs.remarks))
        uniform = str(trial.user_attrs.get(ORIGIN, "")).startswith("uniform")
        dropped = None if uniform else self.rungs.dropped(experiment, assignment, costs.total, self._front())
        if dropped is not None:
            figures = {"kl": dropped.kl, **costs.total}
            self._write(trial, figures)
            trial.set_user_attr(DROPPED, str(dropped))
            raise optuna.TrialPruned(str(dropped))
        measured = experiment.measure(assignment)
        figures = {"accuracy": measured.accuracy, "kl": measured.kl, **costs.total}
        self._write(trial, figures)
        for bound in self.problem.bounds:
            trial.set_constraint(str(bound), bound.violation(figures))
        return [figures[objective.name] for objective in self.problem.objectives]

    def _write(self, trial: optuna.Trial, figures: Mapping[str, float]) -> None:
        trial.set_user_attr(FIGURES, dict(figures))
        trial.set_user_attr(proposing.FIGURES, choices.figures_to_minimise(self.problem, figures))

    def _front(self) -> list[Mapping[str, float]]:
        """Return the figures of all trials that were measured in full and keep the bounds."""
        trials = [trial for trial in self.ledger.trials() if trial.state == TrialState.COMPLETE]
        kept = [trial.user_attrs[FIGURES] for trial in trials]
        return [figures for figures in kept if all(bound.violation(figures) <= 0 for bound in self.problem.bounds)]


def enqueue_uniform(problem: Problem, ledger: Ledger) -> None:
    """Put the uniform assignments first, for samplers that would not begin with them."""
    if ledger.study.get_trials(deepcopy=False):
        return
    for option in problem.space.uniform[:MOST_UNIFORM]:
        params = problem.space.params({group.name: problem.space.fitted(group, option) for group in problem.space.groups})
        ledger.study.enqueue_trial(params, user_attrs={ORIGIN: f"uniform {str(option).replace(' ', '/')}"})


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


def waiting_for_database(call: Callable[[], Result], patience: float = PATIENCE) -> Result:
    """Call until the database answers; ``BitatlasError`` where it has not for ``patience`` seconds."""
    deadline, pause = time.monotonic() + patience, 0.1
    while True:
        try:
            return call()
        except Exception as error:
            if not is_database_error(error):
                raise
            if time.monotonic() > deadline:
                raise BitatlasError(
                    f"ledger must answer within {patience:g} s, not fail ({database_message(error)}); the same command goes on"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a sampler for one trial: a search that was interrupted goes on as it would have gone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "little")
