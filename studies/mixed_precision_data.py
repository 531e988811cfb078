"""Four searches of one network: the same format everywhere or mixed, without post-training steps or with them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import FrozenTrial
from tqdm import tqdm

from dse import choices
from dse.assignment import Assignment
from dse.data import Split
from dse.experiment import Experiment
from dse.ledger import FILE, Ledger, locked
from dse.proposals import sampler as proposing
from dse.proposals.frame import Frame
from dse.proposals.variants import Variants
from dse.ptq.steps import NONE
from dse.results import code_version
from dse.search import Worker, evaluated
from dse.settings import SearchSettings
from dse.stating import Statement, state

WEIGHTS = ("int3", "int4", "e2m1", "int6")
ACTIVATIONS = ("int4", "e2m1", "int6", "int8")
#: rows of steps to choose from, for each layer and for the network
LAYER_STEPS = (NONE, "gptq+correct_bias")
NETWORK_STEPS = (NONE, "equalize")
KL, COST = "kl", "lut"
#: accuracy below the float network's that still counts as good, and on the search's few images is worth a closer look: shares
WITHIN, LOOK = 0.01, 0.02


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What one of the searches may choose."""

    name: str
    mixed: bool
    steps: bool

    @property
    def slug(self) -> str:
        """The name in file names."""
        return self.name.replace(" + ", "-").replace(" ", "-")


UNIFORM, UNIFORM_STEPS, MIXED, MIXED_STEPS = VARIANTS = (
    Variant(name="uniform", mixed=False, steps=False),
    Variant(name="uniform + steps", mixed=False, steps=True),
    Variant(name="mixed formats", mixed=True, steps=False),
    Variant(name="mixed formats + steps", mixed=True, steps=True),
)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How much is searched."""

    models: tuple[str, ...]
    data: str
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    device: str
    #: samples a second that every pipeline is folded for
    fps: float
    #: trials of a search with mixed formats, and with steps to choose too
    trials: int
    step_trials: int
    #: validation images that a search measures on, and calibration samples for sensitivities
    images: int
    scored: int


FULL = Scope(
    models=("resnet8", "mobilenet", "vit"),
    data="fashion-mnist",
    weights=WEIGHTS,
    activations=ACTIVATIONS,
    device="zynq7020",
    fps=2_000,
    trials=100,
    step_trials=160,
    images=1_000,
    scored=64,
)
QUICK = replace(
    FULL,
    data="digits",
    weights=("int3", "int4", "e2m1"),
    activations=("int4", "int6"),
    fps=20_000,
    trials=20,
    step_trials=36,
    images=100,
    scored=16,
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """An assignment that was measured on all images, with accuracy, divergence in nats and every cost by name."""

    origin: str
    assignment: Assignment
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The cheapest point of a front that is good on the whole validation split, and its accuracy there and on the test split."""

    point: Point
    accuracy: float
    test: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the four searches of one network found."""

    model: str
    #: accuracy of the float network on the images of the searches, on the whole validation split, on the test split
    float_accuracy: float
    float_validation: float
    float_test: float
    #: by the name of the variant
    points: Mapping[str, tuple[Point, ...]]
    #: trials that came to an end, those that were given up on a few samples too
    trials: Mapping[str, int]
    #: None where no point of the front is good
    chosen: Mapping[str, Chosen | None]

    @property
    def frame(self) -> Frame:
        """The box of hypervolumes: from the best figures of all four searches to the worst of uniform ones without steps."""
        everything = [point.figures for points in self.points.values() for point in points]
        uniform = [point.figures for point in self.points[UNIFORM.name]]
        return Frame(
            names=(KL, COST),
            ideals=tuple(max(min(figures[name] for figures in everything), 1e-9) for name in (KL, COST)),
            references=tuple(max(figures[name] for figures in uniform) for name in (KL, COST)),
        )

    def hypervolume(self, variant: Variant) -> float:
        """Return the share of the box that a search's points dominate."""
        return self.frame.hypervolume([point.figures for point in self.points[variant.name]])


def choose(points: Sequence[Point], experiment: Experiment, float_accuracy: float) -> Chosen | None:
    """Return the cheapest point of the front whose accuracy on the experiment's validation split is within 1 % of float.

    Points that are more than 2 % below ``float_accuracy`` on the images of the search are not looked at.
    """
    enough = (1 - WITHIN) * experiment.float_figures("validation").accuracy
    for point in front(points):
        if point.figures["accuracy"] >= (1 - LOOK) * float_accuracy:
            accuracy = experiment.measure(point.assignment).accuracy
            if accuracy >= enough:
                return Chosen(point=point, accuracy=accuracy, test=experiment.measure(point.assignment, "test").accuracy)
    return None


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in divergence and cost, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.figures[COST], point.figures[KL])):
        if not kept or point.figures[KL] < kept[-1].figures[KL]:
            kept.append(point)
    return kept


def settings(scope: Scope, model: str, variant: Variant, folder: Path) -> SearchSettings:
    """Return what one search is told."""
    return SearchSettings(
        model=model,
        data=scope.data,
        weight_formats=scope.weights,
        activation_formats=scope.activations,
        objectives=(KL, COST),
        device=scope.device,
        fps=scope.fps,
        trials=scope.step_trials if variant.steps else scope.trials,
        layer_steps=LAYER_STEPS if variant.steps else (NONE,),
        network_steps=NETWORK_STEPS if variant.steps else (NONE,),
        out=str(folder),
    )


def stated(scope: Scope, model: str) -> Statement:
    """Return the whole problem of a network, with steps."""
    return state(settings(scope, model, MIXED_STEPS, Path("-")))


def shortened(statement: Statement, scope: Scope) -> Statement:
    """Return the problem measured on the first validation images alone; the network's preparation is shared."""
    experiment = statement.problem.experiment
    data = experiment.subject.dataset
    first = Split(images=data.validation.images[: scope.images], labels=data.validation.labels[: scope.images])
    subject = replace(experiment.subject, dataset=replace(data, validation=first))
    shorter = replace(experiment, subject=subject, _float_logits={})
    return replace(statement, problem=replace(statement.problem, experiment=shorter))


def restricted(statement: Statement, scope: Scope, variant: Variant, folder: Path) -> Statement:
    """Return the statement of one of the searches: the same prepared network, with steps to choose or without."""
    given = settings(scope, statement.settings.model, variant, folder)
    given = replace(given, data=statement.settings.data)
    space = replace(statement.problem.space, steps=given.layer_steps, network_steps=given.network_steps)
    return replace(statement, settings=given, problem=replace(statement.problem, space=space))


def uniform_points(statement: Statement) -> Iterator[Point]:
    """Measure every uniform assignment, each after every row of steps."""
    problem = statement.problem
    wanted = [(option, row) for row in problem.space.network_steps for option in problem.space.uniform]
    for option, row in tqdm(wanted, desc=f"{statement.settings.model} uniform", unit="assignment", disable=None):
        assignment = problem.uniform(option, row)
        origin = f"uniform {str(option).replace(' ', '/')}" + (f" after {row}" if row != NONE else "")
        yield Point(origin=origin, assignment=assignment, figures=problem.figures(assignment))


def searched(statement: Statement, folder: Path, scored: int) -> tuple[list[Point], int]:
    """Search by the sampler ``front``, going on where the folder's ledger ends; also return how many trials came to an end."""
    problem, given = statement.problem, statement.settings
    directions = [objective.direction for objective in problem.objectives]
    ledger_file = folder / FILE
    with (
        locked(folder),
        closing(Ledger.begin(ledger_file, given.study, statement.fingerprint, directions, given.to_toml())) as ledger,
        tqdm(total=given.trials, desc=f"{given.model} search", unit="trial", disable=None) as bar,
    ):
        if proposing.PLAN not in ledger.study.user_attrs:
            rows = problem.space.network_steps
            scores = {row: choices.losses(problem, given.sensitivity, folder, row, scored) for row in rows}
            variants = Variants(tables={row: choices.with_costs(problem, table) for row, table in scores.items()})
            proposing.store(ledger.study, variants, choices.proposal_plan(problem, variants), seed=given.seed)

        def told(finished: list[FrozenTrial]) -> None:
            bar.update(len(finished) - bar.n)

        worker = Worker(
            problem=problem, ledger=ledger, trials=given.trials, sampler=given.sampler, seed=given.seed, rungs=statement.rungs
        )
        worker.work(told)
        trials = evaluated(problem, ledger.finished())
    whole = [trial for trial in trials if trial.feasible(problem.bounds)]
    return [Point(origin=t.origin, assignment=t.assignment, figures=t.figures) for t in whole], len(trials)


def found(scope: Scope, model: str, results: Path) -> Found:
    """Run the four searches of one network."""
    whole = stated(scope, model)
    statement = shortened(whole, scope)
    points: dict[str, tuple[Point, ...]] = {}
    trials: dict[str, int] = {}
    for variant in VARIANTS:
        folder = results / f"{model}-{statement.settings.data}-{variant.slug}-{code_version()[:8]}"
        one = restricted(statement, scope, variant, folder)
        if variant.mixed:
            made, trials[variant.name] = searched(one, folder, scope.scored)
        else:
            made = list(uniform_points(one))
            trials[variant.name] = len(made)
        points[variant.name] = tuple(made)
    experiment = whole.problem.experiment
    float_accuracy = statement.problem.experiment.float_figures("validation").accuracy
    return Found(
        model=model,
        float_accuracy=float_accuracy,
        float_validation=experiment.float_figures("validation").accuracy,
        float_test=experiment.float_figures("test").accuracy,
        points=points,
        trials=trials,
        chosen={
            name: choose(some, experiment, float_accuracy)
            for name, some in tqdm(points.items(), desc=f"{model} choice", unit="search", disable=None)
        },
    )
