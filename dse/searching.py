"""``dse search`` and ``dse worker`` from settings to files: everything between the command line and the search itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from optuna.trial import FrozenTrial
from tqdm import tqdm

from dse import choices, plot, report
from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import qdq, runtime
from dse.ledger import FILE, Ledger, locked
from dse.objectives import Bound, Objective
from dse.proposals import sampler as proposing
from dse.report import Outcome
from dse.search import Evaluated, Worker, enqueue_uniform, evaluated
from dse.settings import SearchSettings, from_toml
from dse.stating import Statement, state
from formats.errors import BitatlasError
from hwmodels.files import write_text

#: seconds between two writings of the tables while a search goes on; what is chosen is written whenever it changes
WRITE_EVERY = 2.0


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found and how well the exported model agrees with the emulator."""

    experiment: Experiment
    outcome: Outcome
    chosen: Evaluated
    agreement: runtime.Agreement


def search(settings: SearchSettings, say: Callable[[str], None] = print) -> SearchResult:
    """Search, resuming what the folder or the database holds, and write every result into the folder.

    Raises ``BitatlasError`` for settings that cannot be met; whatever ends a search, its tables are written.
    """
    folder = Path(settings.out).absolute()  # before the user's own code may change the working folder
    statement = state(settings)
    problem = statement.problem
    condition = Bound.parse(settings.choose, statement.objectives) if settings.choose else None
    problem.check_reachable()
    with locked(folder):
        ledger = Ledger.begin(
            statement.settings.storage or folder / FILE,
            settings.study,
            statement.fingerprint,
            [objective.direction for objective in problem.objectives],
            statement.settings.to_toml(),
        )
        write_text(folder / "search.toml", statement.settings.to_toml())
        _prepare(statement, ledger, folder)
        writer = Writer(statement=statement, folder=folder, condition=condition)
        reason = _work(statement, ledger, writer, say)
        if reason:
            say(reason)
        return _finish(statement, writer, condition, say)


def work(where: str, study: str, say: Callable[[str], None] = print) -> None:
    """Join a search that goes on in a ledger, and work on it until it is done."""
    ledger = Ledger.join(where, study)
    statement = state(from_toml(ledger.settings))
    ledger.check(statement.fingerprint, where)
    _wait_for_plan(statement, ledger)
    with _bar(statement, "worker") as bar:
        worker = _worker(statement, ledger)

        def told(finished: list[FrozenTrial]) -> None:
            bar.update(len(finished) - bar.n)

        reason = worker.work(told)
    say(reason or f"{bar.n} trials are finished")


def _prepare(statement: Statement, ledger: Ledger, folder: Path) -> None:
    """Put into the ledger what its samplers begin with: once, before the first trial."""
    if statement.settings.sampler != "front":
        enqueue_uniform(statement.problem, ledger)
        return
    if proposing.PLAN in ledger.study.user_attrs:
        return
    problem, settings = statement.problem, statement.settings
    variants = choices.variants(problem, settings.sensitivity, folder)
    proposing.store(ledger.study, variants, choices.proposal_plan(problem, variants), seed=settings.seed)


def _wait_for_plan(statement: Statement, ledger: Ledger, patience: float = 600.0) -> None:
    deadline = time.monotonic() + patience
    while statement.settings.sampler == "front" and proposing.PLAN not in ledger.study.user_attrs:
        if time.monotonic() > deadline:
            raise BitatlasError(f"ledger must hold a plan within {patience:g} s, not lack it: run dse search on it first")
        time.sleep(0.5)


def _worker(statement: Statement, ledger: Ledger) -> Worker:
    settings = statement.settings
    return Worker(
        problem=statement.problem,
        ledger=ledger,
        trials=settings.trials,
        sampler=settings.sampler,
        seed=settings.seed,
        rungs=statement.rungs,
    )


def _bar(statement: Statement, what: str) -> "tqdm[NoReturn]":
    return tqdm(total=statement.settings.trials, desc=what, unit="trial", dynamic_ncols=True)


def _work(statement: Statement, ledger: Ledger, writer: "Writer", say: Callable[[str], None]) -> str:
    try:
        with _bar(statement, "search") as bar:

            def told(finished: list[FrozenTrial]) -> None:
                writer.add(finished)
                bar.update(len(finished) - bar.n)
                bar.set_postfix_str(front_line(writer.outcome))

            return _worker(statement, ledger).work(told)
    except KeyboardInterrupt:
        done = f"{len(writer.trials)} of {statement.settings.trials} trials"
        say(f"interrupted after {done}, all kept; the same command goes on from here")
        raise
    finally:
        writer.write()


@dataclass(kw_only=True)
class Writer:
    """Keeps the files of a search up to date with its ledger."""

    statement: Statement
    folder: Path
    condition: Bound | None
    trials: list[Evaluated] = field(default_factory=list)
    _written: float = 0.0
    _chosen: Evaluated | None = None

    @property
    def outcome(self) -> Outcome:
        """The trials so far and the front among them."""
        problem = self.statement.problem
        return report.outcome(self.trials, problem.objectives, problem.bounds)

    def add(self, finished: list[FrozenTrial]) -> None:
        """Take the finished trials of the ledger, and write what is chosen where that changed, tables now and then."""
        self.trials = evaluated(self.statement.problem, finished, known=self.trials)
        self._choose()
        if time.monotonic() - self._written > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write the tables and what is chosen."""
        if self.trials:
            report.write_tables(self.folder, self.outcome, self.statement.objectives)
            self._choose()
            self._written = time.monotonic()

    def _choose(self) -> None:
        if not self.outcome.front:
            return
        try:
            chosen = report.choose(self.outcome, self.condition)
        except BitatlasError:  # nothing meets the condition yet: said at the end
            return
        if self._chosen is None or chosen.number != self._chosen.number:
            report.write_chosen(self.folder, chosen)
            self._chosen = chosen


def front_line(found: Outcome) -> str:
    """Return the front in one line: how many points, and the range of each objective."""
    ranges = []
    for objective in found.objectives:
        values = [trial.figures[objective.name] for trial in found.front_trials]
        if values:
            ranges.append(f"{objective.name} {min(values):.3g}…{max(values):.3g}")
    return f"front {len(found.front)}: {', '.join(ranges)}" if ranges else "no feasible trial yet"


def _finish(statement: Statement, writer: Writer, condition: Bound | None, say: Callable[[str], None]) -> SearchResult:
    experiment, found, folder = statement.problem.experiment, writer.outcome, writer.folder
    objectives: dict[str, Objective] = dict(statement.objectives)
    float_accuracy = experiment.float_figures("validation").accuracy
    subject = experiment.subject
    title = f"{subject.model} on {subject.dataset.name}: {len(found.trials)} trials, {len(found.front)} on the front"
    (folder / "model.onnx").unlink(missing_ok=True)  # of an earlier run: what is chosen now may differ, or nothing may be
    try:
        chosen = report.choose(found, condition)
    except BitatlasError:
        (folder / "chosen.json").unlink(missing_ok=True)
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
