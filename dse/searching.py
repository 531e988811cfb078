"""``dse search`` from settings to files: everything between the command line and the search itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from dse import plot, report
from dse.assignment import Assignment, parse_quantizer
from dse.evaluate import quantized_logits
from dse.experiment import Experiment, cost_models, prepare
from dse.export import qdq, runtime
from dse.ledger import Ledger, database_message, is_database_error, locked
from dse.models import loading
from dse.network import ROLES
from dse.objectives import Bound, Objective, available, find
from dse.report import Outcome
from dse.results import code_version
from dse.search import Evaluated, Problem, Space, run
from dse.settings import Fingerprint, SearchSettings
from formats.errors import BitatlasError
from hwmodels.files import write_text
from hwmodels.fpga.dataflow_model import SHARE
from hwmodels.fpga.devices import RESOURCES
from hwmodels.fpga.pipeline import Target


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found and how well the exported model agrees with the emulator."""

    experiment: Experiment
    outcome: Outcome
    chosen: Evaluated
    agreement: runtime.Agreement


def search(settings: SearchSettings, say: Callable[[str], None] = print) -> SearchResult:
    """Search, resuming what the folder holds, and write every result into it.

    Raises ``BitatlasError`` for settings that cannot be met; ``KeyboardInterrupt`` passes after the tables are written.
    """
    folder = Path(settings.out).absolute()  # before the user's own code may change the working folder
    subject = loading.load(settings.model, settings.data, Path(settings.data_dir) if settings.data_dir else None)
    _check_names(settings)  # after the user's module is imported: it may register formats
    settings = replace(settings, data=subject.dataset.name)
    experiment = prepare(subject, settings.cycles, target=settings.target)
    objectives = available(experiment.cost_models)
    bounds = tuple(Bound.parse(text, objectives) for text in settings.constraint)
    if settings.target is not None:
        models = cost_models(settings.cycles, _limited(settings.target, bounds))
        experiment = replace(experiment, cost_models=models)
        bounds = (*bounds, Bound.parse(f"{SHARE}<=1", objectives))
    problem = Problem(
        experiment=experiment,
        space=Space(weights=settings.weights, activations=settings.activations),
        objectives=tuple(find(name, objectives) for name in settings.objectives),
        bounds=bounds,
    )
    condition = Bound.parse(settings.choose, objectives) if settings.choose else None
    problem.check_reachable()
    with locked(folder):
        fingerprint = Fingerprint.of(settings, experiment.identity, code_version())
        ledger = Ledger(folder, fingerprint, [objective.direction for objective in problem.objectives])
        write_text(folder / "search.toml", settings.to_toml())
        found = _run(problem, ledger, settings, folder, objectives, say)
        return _finish(problem, found, folder, objectives, condition, say)


def _limited(target: Target, bounds: Sequence[Bound]) -> Target:
    """Return the target with the bounds on resources as limits: pipelines are folded to keep them, not just judged by them."""
    limits: dict[str, float] = {}
    for bound in bounds:
        name = bound.objective.name
        if name in RESOURCES and bound.comparison == "<=":
            limits[name] = min(bound.limit, limits.get(name, bound.limit))
    return replace(target, limits=limits)


def _check_names(settings: SearchSettings) -> None:
    """Refuse unknown formats before anything is written."""
    for role in ROLES:
        names = settings.weights if role == "weight" else settings.activations
        if len(set(names)) != len(names):
            raise BitatlasError(f"formats must be different from each other, not {','.join(names)}")
        for name in names:
            parse_quantizer(name, role)


def _run(
    problem: Problem,
    ledger: Ledger,
    settings: SearchSettings,
    folder: Path,
    objectives: dict[str, Objective],
    say: Callable[[str], None],
) -> Outcome:
    trials: list[Evaluated] = []
    try:
        with tqdm(total=settings.trials, desc="search", unit="trial", dynamic_ncols=True) as bar:
            for trial in run(problem, ledger, trials=settings.trials, seed=settings.seed, sampler=settings.sampler):
                trials.append(trial)
                bar.update()
                if len(trials) % 10 == 0 or len(trials) == settings.trials:
                    bar.set_postfix_str(front_line(report.outcome(trials, problem.objectives, problem.bounds)))
    except KeyboardInterrupt:
        say(f"interrupted after {len(trials)} of {settings.trials} trials, all kept; the same command goes on from here")
        if trials:
            report.write_tables(folder, report.outcome(trials, problem.objectives, problem.bounds), objectives)
        raise
    except Exception as error:
        if is_database_error(error):
            raise BitatlasError(
                f"ledger must be writable, not fail ({database_message(error)}): {folder}; the same command goes on"
            ) from None
        raise
    found = report.outcome(trials, problem.objectives, problem.bounds)
    report.write_tables(folder, found, objectives)
    return found


def front_line(found: Outcome) -> str:
    """Return the front in one line: how many points, and the range of each objective."""
    ranges = []
    for objective in found.objectives:
        values = [trial.figures[objective.name] for trial in found.front_trials]
        if values:
            ranges.append(f"{objective.name} {min(values):.3g}…{max(values):.3g}")
    return f"front {len(found.front)}: {', '.join(ranges)}" if ranges else "no feasible trial yet"


def _finish(
    problem: Problem,
    found: Outcome,
    folder: Path,
    objectives: dict[str, Objective],
    condition: Bound | None,
    say: Callable[[str], None],
) -> SearchResult:
    experiment = problem.experiment
    float_accuracy = experiment.float_figures("validation").accuracy
    subject = experiment.subject
    title = f"{subject.model} on {subject.dataset.name}: {len(found.trials)} trials, {len(found.front)} on the front"
    for stale in ("chosen.json", "model.onnx"):  # of an earlier run: what is chosen now may differ, or nothing may be
        (folder / stale).unlink(missing_ok=True)
    try:
        chosen = report.choose(found, condition)
    except BitatlasError:
        plot.write_front(folder / "front.png", found, None, float_accuracy, objectives, title)
        raise
    plot.write_front(folder / "front.png", found, chosen, float_accuracy, objectives, title)
    agreement = export_checked(experiment, chosen.assignment, folder / "model.onnx")
    report.write_chosen(folder, chosen)
    shown = ", ".join(f"{name} {value:.6g} {objectives[name].unit}" for name, value in chosen.figures.items())
    say(f"float32 accuracy on validation: {float_accuracy:.4f}")
    say(f"chosen: trial {chosen.number} ({chosen.origin}): {shown}")
    for name, remark in chosen.remarks.items():
        say(f"{name}: {remark}")
    say(f"onnxruntime against the emulator on validation: {agreement}")
    say(f"results in {folder}: trials.csv, front.csv, front.png, chosen.json, model.onnx")
    return SearchResult(experiment=experiment, outcome=found, chosen=chosen, agreement=agreement)


def export_checked(experiment: Experiment, assignment: Assignment, path: Path) -> runtime.Agreement:
    """Export an assignment, run it on the validation split by onnxruntime, and write it if the predictions agree."""
    model = qdq.export(experiment.preparation, assignment, experiment.subject.dataset.sample_shape)
    images = experiment.split("validation").images
    reference = quantized_logits(experiment.preparation, assignment, images)
    agreement = runtime.compare(runtime.run(model.SerializeToString(), images), reference)
    runtime.check(agreement, f"{assignment.model} on {assignment.data}")
    qdq.write(model, path)
    return agreement
