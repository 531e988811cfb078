"""``dse search`` and ``dse worker`` from settings to files: everything between the command line and the search itself."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from optuna.trial import FrozenTrial
from tqdm import tqdm

from dse import choices, report, reporting, verdict
from dse.experiment import Experiment
from dse.export import runtime
from dse.export.checked import export_checked
from dse.ledger import FILE, Ledger, locked
from dse.objectives import Bound
from dse.pages import writing
from dse.pages.facts import Facts, HeldOut
from dse.pages.front_files import FrontFiles
from dse.proposals import sampler as proposing
from dse.report import Outcome
from dse.search import UNIFORM, Evaluated, Worker, enqueue_uniform, evaluated
from dse.settings import SearchSettings, from_toml
from dse.stating import Statement, state
from formats.errors import BitatlasError
from hwmodels.files import write_text

#: seconds between two writings of the tables while a search goes on; what is chosen is written whenever it changes
WRITE_EVERY = 2.0
#: seconds between two reports with pictures meanwhile, and how many times what the last one took
REPORT_EVERY, REPORT_PAUSES = 60.0, 20.0
#: seconds that a worker waits for the coordinator's plan: scoring sensitivities takes a while
PLAN_PATIENCE = 600.0


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
    with locked(folder), closing(_begin(statement, folder)) as ledger:
        write_text(folder / "search.toml", statement.settings.to_toml())
        _prepare(statement, ledger, folder)
        with Writer(statement=statement, folder=folder, condition=condition) as writer:
            reason = _work(statement, ledger, writer, say)
            if reason:
                say(reason)
            return _finish(statement, writer, condition, reason, say)


def _begin(statement: Statement, folder: Path) -> Ledger:
    return Ledger.begin(
        statement.settings.storage or folder / FILE,
        statement.settings.study,
        statement.fingerprint,
        [objective.direction for objective in statement.problem.objectives],
        statement.settings.to_toml(),
    )


def work(where: str, study: str, say: Callable[[str], None] = print) -> None:
    """Join a search that goes on in a ledger, and work on it until it is done."""
    with closing(Ledger.join(where, study)) as ledger:
        statement = state(from_toml(ledger.settings))
        ledger.check(statement.fingerprint, where)
        _wait_for_plan(statement, ledger)
        _join(statement, ledger, say)


def _join(statement: Statement, ledger: Ledger, say: Callable[[str], None]) -> None:
    with _bar(statement, "worker") as bar:
        worker = _worker(statement, ledger)

        def told(finished: list[FrozenTrial]) -> None:
            bar.update(len(finished) - bar.n)

        reason = worker.work(told)
    say(reason or f"{bar.n} trials are finished")


def _prepare(statement: Statement, ledger: Ledger, folder: Path) -> None:
    """Put into the ledger what its samplers begin with: once, before the first trial."""
    if statement.sampler != "front":
        enqueue_uniform(statement.problem, ledger)
        return
    if proposing.PLAN in ledger.study.user_attrs:
        return
    problem, settings = statement.problem, statement.settings
    variants = choices.variants(problem, settings.sensitivity, folder)
    proposing.store(ledger.study, variants, choices.proposal_plan(problem, variants), seed=settings.seed)


def _wait_for_plan(statement: Statement, ledger: Ledger) -> None:
    """Wait until the coordinator has put into the ledger what samplers begin with."""
    deadline = time.monotonic() + PLAN_PATIENCE
    begun = proposing.PLAN if statement.sampler == "front" else UNIFORM
    while begun not in ledger.study.user_attrs:
        if time.monotonic() > deadline:
            raise BitatlasError(f"ledger must hold a plan within {PLAN_PATIENCE:g} s, not lack it: run dse search on it first")
        time.sleep(0.5)


def _worker(statement: Statement, ledger: Ledger) -> Worker:
    settings = statement.settings
    return Worker(
        problem=statement.problem,
        ledger=ledger,
        trials=settings.trials,
        sampler=statement.sampler,
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
        writer.take(ledger.finished())  # one may have been finished since
        done = f"{len(writer.trials)} of {statement.settings.trials} trials"
        say(f"interrupted after {done}, all kept; the same command goes on from here")
        raise
    finally:
        writer.write()


@dataclass(kw_only=True)
class Writer:
    """Keeps the files of a search up to date with its ledger; whatever ends the search, its report is written."""

    statement: Statement
    folder: Path
    condition: Bound | None
    trials: list[Evaluated] = field(default_factory=list)
    _front: FrontFiles = field(init=False)
    _written: float = 0.0
    _reported: float = field(default_factory=time.monotonic)
    _report_took: float = 0.0
    _chosen: Evaluated | None = None

    def __post_init__(self) -> None:
        """Begin with the folder as it is."""
        self._front = FrontFiles(folder=self.folder)

    def __enter__(self) -> "Writer":
        """Keep the files until the search ends."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Report what ended the search early; that the report fails too must not hide it."""
        if error is None or not self.trials:
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        status = "interrupted; the same command goes on from here" if interrupted else f"failed: {error or type(error).__name__}"
        try:
            self.report(status, self._chosen)
        except Exception as problem:
            error.add_note(f"the report could not be written: {problem}")

    @property
    def outcome(self) -> Outcome:
        """The trials so far and the front among them."""
        problem = self.statement.problem
        total = len(problem.space.uniform) * len(problem.space.network_steps)
        return report.outcome(self.trials, problem.objectives, problem.bounds, total)

    def add(self, finished: list[FrozenTrial]) -> None:
        """Take the finished trials of the ledger, and write what is chosen where that changed, tables now and then."""
        self.take(finished)
        self._choose()
        if time.monotonic() - self._written > WRITE_EVERY:
            self.write()

    def take(self, finished: list[FrozenTrial]) -> None:
        """Take the finished trials of the ledger, writing nothing."""
        self.trials = evaluated(self.statement.problem, finished, known=self.trials)

    def write(self) -> None:
        """Write the tables, the points of the front, what is chosen, and the report: its text at least."""
        if not self.trials:
            return
        found = self.outcome
        self._choose()
        self._front.write(found.front_trials)
        report.write_tables(self.folder, found, self.statement.objectives)
        self._front.remove_others(found.front_trials)
        self._written = time.monotonic()
        under_way = "not finished; the same command goes on from here"
        if self._written - self._reported > max(REPORT_EVERY, REPORT_PAUSES * self._report_took):
            self.report(under_way, self._chosen)
        else:
            writing.write_markdown(self._facts(under_way, self._chosen))

    def report(self, status: str, chosen: Evaluated | None, held_out: HeldOut | None = None, agreement: str = "") -> None:
        """Write the whole report, with its pictures and the page."""
        begun = time.monotonic()
        writing.write(self._facts(status, chosen, held_out, agreement))
        self._reported = time.monotonic()
        self._report_took = self._reported - begun

    def _facts(self, status: str, chosen: Evaluated | None, held_out: HeldOut | None = None, agreement: str = "") -> Facts:
        done = f"{len(self.trials)} of {self.statement.settings.trials} trials: {status}"
        return reporting.facts(self.statement, self.folder, self.outcome, chosen, done, held_out=held_out, agreement=agreement)

    def _choose(self) -> None:
        if not self.outcome.front:
            return
        try:
            chosen = report.choose(self.outcome, self.condition)
        except BitatlasError:  # nothing meets the condition yet: said at the end
            return
        if self._chosen is None or chosen.ledger_number != self._chosen.ledger_number:
            report.write_chosen(self.folder, chosen)
        self._chosen = chosen

    def forget_chosen(self) -> None:
        """Take back what was chosen: nothing is."""
        self._chosen = None


def front_line(found: Outcome) -> str:
    """Return the front in one line: how many points, and the range of each objective."""
    ranges = []
    for objective in found.objectives:
        values = [trial.figures[objective.name] for trial in found.front_trials]
        if values:
            ranges.append(f"{objective.name} {min(values):.3g}…{max(values):.3g}")
    return f"front {len(found.front)}: {', '.join(ranges)}" if ranges else "no feasible trial yet"


def _finish(statement: Statement, writer: Writer, condition: Bound | None, reason: str, say: Callable[[str], None]) -> SearchResult:
    experiment, found, folder = statement.problem.experiment, writer.outcome, writer.folder
    (folder / "model.onnx").unlink(missing_ok=True)  # of an earlier run: what is chosen now may differ, or nothing may be
    try:
        chosen = report.choose(found, condition)
    except BitatlasError:
        (folder / "chosen.json").unlink(missing_ok=True)
        writer.forget_chosen()
        raise  # the report says why
    held_out = reporting.held_out(statement.problem, chosen)
    agreement = export_checked(experiment, chosen.assignment, folder / "model.onnx")
    assert isinstance(agreement, runtime.Agreement)  # onnxruntime runs the targets that are the default
    report.write_chosen(folder, chosen)
    writer.report(reason or "finished", chosen, held_out, str(agreement))
    for line in closing_lines(statement, found, chosen, held_out, agreement):
        say(line)
    say(f"results in {folder}: report.html, report.md, trials.csv, front.csv, front/, chosen.json, model.onnx")
    return SearchResult(experiment=experiment, outcome=found, chosen=chosen, agreement=agreement)


def closing_lines(
    statement: Statement, found: Outcome, chosen: Evaluated, held_out: HeldOut, agreement: runtime.Agreement
) -> list[str]:
    """Return what a search says at its end."""
    objectives = statement.objectives
    shown = ", ".join(f"{name} {value:.6g} {objectives[name].unit}" for name, value in chosen.figures.items())
    return [
        f"float32 accuracy on validation: {statement.problem.experiment.float_figures('validation').accuracy:.4f}",
        f"chosen: trial {chosen.number} ({chosen.origin}): {shown}",
        *(f"{name}: {remark}" for name, remark in chosen.remarks.items()),
        *verdict.lines(verdict.judge(found, chosen)),
        f"accuracy on test: {held_out.accuracy:.4f} (float32: {held_out.float_accuracy:.4f})",
        f"onnxruntime against the emulator on validation: {agreement}",
    ]
