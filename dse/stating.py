"""From the settings of a search to the problem that it is about: what a coordinator and its workers must agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dse import gpus
from dse.assignment import parse_quantizer
from dse.experiment import cost_models, prepare
from dse.models import loading
from dse.network import ROLES
from dse.objectives import Bound, Objective, available, find
from dse.problem import Problem, groups_of
from dse.ptq import steps as stepping
from dse.ptq.steps import Scope
from dse.results import code_version
from dse.rungs import Rung, Rungs
from dse.settings import Fingerprint, SearchSettings
from dse.space import Space
from formats.errors import BitatlasError, InvalidValueError
from hwmodels.fpga.dataflow_model import SHARE
from hwmodels.fpga.devices import RESOURCES
from hwmodels.fpga.pipeline import Target

#: margins of a rung by whether it has few samples
FEW, FEW_MARGIN, MARGIN = 32, 4.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A problem with the settings that it was stated by."""

    settings: SearchSettings
    problem: Problem
    #: every figure that there is, by name
    objectives: Mapping[str, Objective]

    @property
    def fingerprint(self) -> Fingerprint:
        """What two workers must share."""
        identity = {**self.problem.experiment.identity, "formats": self.problem.definitions}
        return Fingerprint.of(self.settings, identity, code_version())

    @property
    def sampler(self) -> str:
        """The sampler's name: where there is one choice alone, there is nothing to propose by sensitivities."""
        only = all(len(distribution.choices) == 1 for distribution in self.problem.space.distributions().values())
        return "random" if only else self.settings.sampler

    @property
    def rungs(self) -> Rungs:
        """The cheap rungs of the settings."""
        costs = tuple(objective for objective in self.problem.objectives if objective.is_cost)
        rungs = tuple(Rung(samples=n, margin=FEW_MARGIN if n < FEW else MARGIN) for n in self.settings.rung_samples)
        return Rungs(rungs=rungs if costs else (), costs=costs)


def state(settings: SearchSettings) -> Statement:
    """Load the model and the data, trace and calibrate; raises ``BitatlasError`` for settings that cannot be met."""
    subject = loading.load(settings.model, settings.data, Path(settings.data_dir) if settings.data_dir else None)
    settings = _normalised(replace(settings, data=subject.dataset.name))  # after the user's module is imported: it may register
    graphics = gpus.models(gpus.named((*settings.objectives, *settings.constraint, settings.choose or "")), settings.batch)
    experiment = prepare(subject, settings.cycles, target=settings.target, gpus=graphics)
    objectives = available(experiment.cost_models)
    bounds = tuple(Bound.parse(text, objectives) for text in settings.constraint)
    if settings.target is not None:
        models = cost_models(settings.cycles, _limited(settings.target, bounds), graphics)
        experiment = replace(experiment, cost_models=models)
        bounds = (*bounds, Bound.parse(f"{SHARE}<=1", objectives))
    chosen = tuple(find(name, objectives) for name in settings.objectives)
    if settings.sampler == "front" and not any(objective.is_cost for objective in chosen):
        given = ", ".join(settings.objectives)
        raise InvalidValueError(f"objectives must hold a cost for the sampler front, not only {given}; nearest: --sampler tpe")
    problem = Problem(
        experiment=experiment,
        space=Space(
            groups=groups_of(experiment, settings.tie, automatic=settings.ties == "auto"),
            weights=settings.weights,
            activations=settings.activations,
            steps=settings.layer_steps,
            network_steps=settings.network_steps,
        ),
        objectives=chosen,
        bounds=bounds,
    )
    return Statement(settings=settings, problem=problem, objectives=objectives)


def _limited(target: Target, bounds: Sequence[Bound]) -> Target:
    """Return the target with the bounds on resources as limits: pipelines are folded to keep them, not just judged by them."""
    limits: dict[str, float] = {}
    for bound in bounds:
        name = bound.objective.name
        if name in RESOURCES and bound.comparison == "<=":
            limits[name] = min(bound.limit, limits.get(name, bound.limit))
    return replace(target, limits=limits)


def _normalised(settings: SearchSettings) -> SearchSettings:
    """Refuse unknown formats and steps before anything is written, and write rows of steps as they are always written."""
    for role in ROLES:
        names = settings.weights if role == "weight" else settings.activations
        if len(set(names)) != len(names):
            raise BitatlasError(f"formats must be different from each other, not {','.join(names)}")
        for name in names:
            parse_quantizer(name, role)
    return replace(
        settings,
        network_steps=_rows(settings.network_steps, "network"),
        layer_steps=_rows(settings.layer_steps, "layer", "block"),
    )


def _rows(given: Sequence[str], *scopes: Scope) -> tuple[str, ...]:
    rows = tuple(stepping.row(stepping.parse_row(text, *scopes)) for text in given)
    if len(set(rows)) != len(rows):
        raise BitatlasError(f"rows of steps must be different from each other, not {','.join(rows)}")
    return rows
