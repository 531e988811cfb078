"""The search: uniform assignments first, then a sampler's proposals, every one measured and written to the ledger."""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from dse.assignment import Assignment, parse_quantizer
from dse.experiment import Experiment
from dse.ledger import Ledger
from dse.network import ROLES, Role
from dse.objectives import MEASURED_RANGES, Bound, Objective
from dse.quantize import Preparation
from formats.errors import BitatlasError
from hwmodels import cost

#: how many uniform assignments a search begins with at most
MOST_UNIFORM = 64
FIGURES = "figures"
REMARKS = "remarks"
ORIGIN = "origin"


@dataclass(frozen=True, kw_only=True)
class Space:
    """Formats to choose from for every layer, as the user named them."""

    weights: tuple[str, ...]
    activations: tuple[str, ...]

    def choices(self, role: Role) -> tuple[str, ...]:
        """Return the names to choose from for one operand."""
        return self.weights if role == "weight" else self.activations

    def distributions(self, preparation: Preparation) -> dict[str, CategoricalDistribution]:
        """Return one categorical parameter for each operand of each layer."""
        return {
            f"{layer.name}/{role}": CategoricalDistribution(self.choices(role))
            for layer in preparation.network.layers
            for role in ROLES
        }

    def uniform(self) -> list[tuple[str, str]]:
        """Return all pairs of a weight and an activation format, those with one format for both first."""
        pairs = list(itertools.product(self.weights, self.activations))
        return [pair for pair in pairs if pair[0] == pair[1]] + [pair for pair in pairs if pair[0] != pair[1]]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched: an experiment, its space, its objectives and its bounds."""

    experiment: Experiment
    space: Space
    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...]

    def assignment(self, params: Mapping[str, str]) -> Assignment:
        """Return the assignment that a trial's parameters stand for, signedness fitted to each layer."""
        preparation = self.experiment.preparation
        layers = {}
        for layer in preparation.network.layers:
            weight, activation = (parse_quantizer(params[f"{layer.name}/{role}"], role) for role in ROLES)
            layers[layer.name] = preparation.resolve(layer, weight, activation)
        return Assignment(model=self.experiment.subject.model, data=self.experiment.subject.dataset.name, layers=layers)

    def figures(self, assignment: Assignment) -> dict[str, float]:
        """Return accuracy, KL and every total cost of an assignment."""
        return self.evaluate(assignment)[0]

    def evaluate(self, assignment: Assignment) -> tuple[dict[str, float], dict[str, str]]:
        """Return the figures of an assignment and what the cost models remark on it."""
        measured, costs = self.experiment.measure(assignment), self.experiment.cost(assignment)
        return {"accuracy": measured.accuracy, "kl": measured.kl, **costs.total}, dict(costs.remarks)

    def check_reachable(self) -> None:
        """Raise where a bound on a cost cannot be kept by any assignment of the space, saying by how much.

        Costs that are settled for the network as a whole have no such bound beforehand: they are asked for once, so that what no
        assignment could change, such as a rate beyond any folding, is said before the search.
        """
        if not all(model.separable for model in self.experiment.cost_models):
            weight, activation = self.space.uniform()[0]
            first = self.experiment.preparation.uniform(
                "", "", parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
            )
            self.experiment.cost(first)
        for bound in self.bounds:
            if bound.objective.is_cost and not bound.objective.by_layer:
                continue
            if not bound.objective.is_cost:
                best = MEASURED_RANGES[bound.objective.name][bound.comparison == ">="]
                if bound.violation({bound.objective.name: best}) > 0:
                    raise BitatlasError(f"constraint {bound} must be within reach, not beyond the best there is, {best:g}")
            else:
                best, names = self._extreme(bound)
                missed = bound.violation({bound.objective.name: best})
                if missed > 0:
                    unit = bound.objective.unit
                    raise BitatlasError(
                        f"constraint {bound} must be within reach of the formats given, not missed by {missed:g} {unit}: "
                        f"the nearest is {best:g} {unit} (with {names})"
                    )

    def _extreme(self, bound: Bound) -> tuple[float, str]:
        """Return the cost nearest to the bound's good side; such costs are sums over layers, so each layer is taken by itself."""
        name, preparation = bound.objective.name, self.experiment.preparation
        models = [model for model in self.experiment.cost_models if model.separable]
        pairs = self.space.uniform()
        uniform = []
        for weight, activation in pairs:
            made = preparation.uniform("", "", parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation"))
            uniform.append(cost.evaluate(models, self.experiment.plans(made)).layers)
        pick: Callable[..., float] = min if bound.comparison == "<=" else max
        best = {layer.name: pick(costs[layer.name][name] for costs in uniform) for layer in preparation.network.layers}
        used = {
            f"{pair[0]}/{pair[1]}"
            for layer, value in best.items()
            for pair in [next(p for p, costs in zip(pairs, uniform, strict=True) if costs[layer][name] == value)]
        }
        return sum(best.values()), ", ".join(sorted(used))


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A finished trial as the rest of the program sees it."""

    number: int
    origin: str
    assignment: Assignment
    figures: Mapping[str, float]
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def uniform(self) -> bool:
        """Whether the trial gave every layer the same pair of formats."""
        return self.origin.startswith("uniform")

    def feasible(self, bounds: Sequence[Bound]) -> bool:
        """Whether the figures keep every bound."""
        return all(bound.violation(self.figures) <= 0 for bound in bounds)


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return an Optuna sampler by our name for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=20, seed=seed)


def run(problem: Problem, ledger: Ledger, *, trials: int, seed: int, sampler: str) -> Iterator[Evaluated]:
    """Yield the trials that the ledger has, then propose, measure and record until there are ``trials`` of them.

    The sampler sees a study in memory that mirrors the ledger, and is seeded anew for every trial from ``seed`` and the number
    of finished ones: so an interrupted search goes on exactly as it would have gone.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=[objective.direction for objective in problem.objectives])
    done = ledger.trials()
    study.add_trials(done)
    for number, trial in enumerate(done):
        yield _evaluated(problem, trial, number)
    distributions = problem.space.distributions(problem.experiment.preparation)
    uniform = problem.space.uniform()[:MOST_UNIFORM]
    for number in range(len(done), trials):
        study.sampler = make_sampler(sampler, _trial_seed(seed, number))
        if number < len(uniform):
            weight, activation = uniform[number]
            origin = f"uniform {weight}/{activation}"
            study.enqueue_trial({name: weight if name.endswith("/weight") else activation for name in distributions})
        else:
            origin = sampler
        finished = _one_trial(problem, study, distributions, origin)
        ledger.add(finished)
        yield _evaluated(problem, finished, number)


def _one_trial(
    problem: Problem, study: optuna.Study, distributions: dict[str, CategoricalDistribution], origin: str
) -> FrozenTrial:
    trial = study.ask(dict(distributions))
    figures, remarks = problem.evaluate(problem.assignment(trial.params))
    trial.set_user_attr(ORIGIN, origin)
    trial.set_user_attr(FIGURES, figures)
    trial.set_user_attr(REMARKS, remarks)
    for bound in problem.bounds:
        trial.set_constraint(str(bound), bound.violation(figures))
    return study.tell(trial, [figures[objective.name] for objective in problem.objectives])


def _evaluated(problem: Problem, trial: FrozenTrial, number: int) -> Evaluated:
    if not {ORIGIN, FIGURES, REMARKS} <= set(trial.user_attrs):
        raise BitatlasError(
            f"trials of the ledger must hold their origin, figures and remarks, not lack them in trial {trial.number}"
        )
    return Evaluated(
        number=number,
        origin=str(trial.user_attrs[ORIGIN]),
        assignment=problem.assignment(trial.params),
        figures=trial.user_attrs[FIGURES],
        remarks=trial.user_attrs[REMARKS],
    )


def _trial_seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "little")
