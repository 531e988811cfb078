"""Many workers on one search: killed, cut off from the database, interrupted; no finished trial is lost or doubled."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from dse import searching
from dse.cli import main
from dse.evaluate import Figures
from dse.experiment import Experiment
from dse.ledger import FILE, LOST, WORKER, Ledger
from dse.search import UNIFORM
from dse.searching import search, work
from dse.settings import SearchSettings
from dse.stating import Statement, state
from formats import BitatlasError

FORMATS = ("int4", "int8", "e2m1")
TRIALS = 20
SETTINGS = SearchSettings(model="resnet8", data="digits", formats=FORMATS, trials=TRIALS, rungs=("none",), out="-")
#: a worker on a machine of its own name, that gives signs of life every second, and holds its first trial until a gate is there
WORKER_SCRIPT = """
import socket, sys, time
from pathlib import Path
from dse import addresses, experiment, processes
from dse.cli import main
url, name, gate = sys.argv[1], sys.argv[2], Path(sys.argv[3])
addresses.HEARTBEAT, addresses.GRACE = 1, 4
socket.gethostname = processes._machine = lambda: name
measure = experiment.Experiment.measure
def held(self, *arguments, **options):
    while not gate.exists():
        time.sleep(0.05)
    time.sleep(0.2)
    return measure(self, *arguments, **options)
experiment.Experiment.measure = held
sys.exit(main(["worker", "--storage", url]))
"""


def begin(folder: Path, storage: str | None = None, **changes: Any) -> str:
    """Begin a search as far as the plan that workers wait for, and return where its ledger is."""
    begin_stated(state(replace(SETTINGS, out=str(folder), storage=storage, **changes)), folder)
    return storage or f"sqlite:///{folder / FILE}"


def begin_stated(statement: Statement, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with closing(searching._begin(statement, folder)) as ledger:
        searching._prepare(statement, ledger, folder)


@contextmanager
def started(url: str, gates: Sequence[Path]) -> "Iterator[list[subprocess.Popen[str]]]":
    """Start a worker for each gate, on machine0, machine1 and so on; what still runs at the end, as after a failure, is killed."""
    with ExitStack() as stack:
        workers = []
        for number, gate in enumerate(gates):
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER_SCRIPT, url, f"machine{number}", str(gate)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"BITATLAS_THREADS": "1", "OMP_NUM_THREADS": "1"},
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
            stack.enter_context(worker)
            stack.callback(worker.kill)
            workers.append(worker)
        yield workers


def all_trials(url: str) -> list[FrozenTrial]:
    with closing(Ledger.join(url, "search")) as ledger:
        return ledger.study.get_trials(deepcopy=False)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def held_trials(url: str, count: int) -> list[FrozenTrial]:
    """Wait until each of the workers holds a trial, and return them in the order of the machines."""
    held: dict[str, FrozenTrial] = {}

    def all_at_work() -> bool:
        held.update((trial.user_attrs[WORKER]["host"], trial) for trial in all_trials(url) if trial.params)
        return len(held) == count

    wait_until(all_at_work)
    return [held[f"machine{number}"] for number in range(count)]


def outcome(trials: list[FrozenTrial], wanted: int = TRIALS) -> dict[str, tuple[float, ...]]:
    """Return what the trials came to by their parameters: as many as were wanted, each once, and nothing under way."""
    assert [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.FAIL, TrialState.PRUNED)] == []
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == wanted
    found = {json.dumps(trial.params, sort_keys=True): tuple(trial.values) for trial in complete}
    assert len(found) == wanted
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, ...]]:
    """The search by a single worker."""
    url = begin(tmp_path_factory.mktemp("alone"))
    work(url, "search", lambda text: None)
    return outcome(all_trials(url))


def test_four_workers_one_killed_and_the_server_restarted(server: Any, alone: dict[str, tuple[float, ...]], tmp_path: Path) -> None:
    url = begin(tmp_path, server.new_database())
    gate = tmp_path / "gate"
    with started(url, [gate] * 4) as workers:
        struck = held_trials(url, 4)[1]
        workers[1].kill()
        workers[1].wait()
        gate.touch()
        with closing(Ledger.join(url, "search")) as ledger:
            wait_until(ledger.finished)
            before = len(ledger.finished())
            server.control("-m", "immediate", "restart")
            wait_until(lambda: len(ledger.finished()) > before)
        said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, -signal.SIGKILL, 0, 0], said
    for number in (0, 2, 3):
        assert said[number][0] == f"{TRIALS} trials are finished\n"
        lines = said[number][1].replace("\r", "\n").split("\n")
        assert not [line for line in lines if line and "worker:" not in line and "waiting up to" not in line]
    trials = all_trials(url)
    assert outcome(trials) == alone
    complete = {trial.user_attrs[WORKER]["host"] for trial in trials if trial.state == TrialState.COMPLETE}
    assert complete == {"machine0", "machine2", "machine3"}
    taken_over = trials[struck.number]
    assert taken_over.params == struck.params
    assert taken_over.user_attrs[LOST] == 1


def test_workers_beside_a_search_in_a_file_one_of_them_interrupted(
    alone: dict[str, tuple[float, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begin(tmp_path)
    gate = tmp_path / "gate"
    measure = Experiment.measure

    def measured(*arguments: Any) -> Figures:
        gate.touch()
        return measure(*arguments)

    monkeypatch.setattr(Experiment, "measure", measured)
    with started(url, [tmp_path / "never", gate]) as workers:
        interrupted, _ = held_trials(url, 2)
        workers[0].send_signal(signal.SIGINT)
        result = search(replace(SETTINGS, out=str(tmp_path)), say=lambda text: None)
        said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [130, 0], said
    assert "Traceback" not in said[0][1]
    trials = all_trials(url)
    assert outcome(trials) == alone
    assert len(result.outcome.trials) == TRIALS
    assert LOST not in trials[interrupted.number].user_attrs  # it was given back
    complete = {trial.user_attrs[WORKER]["host"] for trial in trials if trial.state == TrialState.COMPLETE}
    assert complete == {"machine1", socket.gethostname()}


def test_a_trial_is_given_back_as_soon_as_its_worker_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = begin(tmp_path)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dse.experiment.Experiment.measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            work(url, "search", lambda text: None)
    given_back = all_trials(url)[0]
    assert given_back.state == TrialState.WAITING
    assert given_back.params
    assert LOST not in given_back.user_attrs


@pytest.mark.parametrize("sampler", ["front", "random"])
def test_workers_try_different_assignments(tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn depends on the trials before, those under way too; and no more trials are made than were asked for."""
    trials = 24
    url = begin(tmp_path, sampler=sampler, formats=("int4", "int8"), trials=trials)
    monkeypatch.setattr("dse.search.POLL", 0.01)
    monkeypatch.setattr("dse.experiment.Experiment.measure", lambda *arguments: Figures(accuracy=0.5, kl=time.monotonic() % 1))
    statement = state(replace(SETTINGS, sampler=sampler, formats=("int4", "int8"), trials=trials))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with closing(Ledger.join(url, "search")) as ledger:
                searching._worker(statement, ledger).work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    outcome(all_trials(url), trials)


def test_a_worker_of_a_study_that_is_no_search_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / FILE}"
    optuna.create_study(storage=url, study_name="search")
    with pytest.raises(
        BitatlasError, match=r"^study must hold the settings of a search, not lack them: run dse search on it first$"
    ):
        work(url, "search")


def test_a_worker_of_a_finished_search_says_so(tmp_path: Path) -> None:
    url = begin(tmp_path, trials=1)
    work(url, "search", lambda text: None)
    said: list[str] = []
    work(url, "search", said.append)
    assert said == ["1 trials are finished"]
    assert len(all_trials(url)) >= 1


def test_a_worker_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = begin(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("dse.stating.code_version", lambda: "f" * 64)
        with pytest.raises(
            BitatlasError, match=r"must go on as it began, not with changes \(code was [0-9a-f]{12}…, is ffffffffffff…\)"
        ):
            work(url, "search")
    with monkeypatch.context() as patch:
        digests = {"model weights": "a" * 64, "data set": "b" * 64}
        patch.setattr("dse.experiment.Experiment.identity", property(lambda self: digests))
        with pytest.raises(
            BitatlasError, match=r"model weights was [0-9a-f]{12}…, is a{12}…; data set was [0-9a-f]{12}…, is b{12}…\)"
        ):
            work(url, "search")
    assert all_trials(url) == []


def test_what_cannot_be_joined_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = begin(tmp_path)
    for arguments, message in (
        (["--storage", url, "--study", "other"], "study must be one of the ledger's (search), not 'other'"),
        (["--storage", f"sqlite:///{tmp_path}/none.sqlite"], "ledger must exist before a worker joins it, not be missing"),
        (["--storage", "postgresql://me:secret@127.0.0.1:1/x"], "ledger must be a usable database, not fail ("),
        (["--storage", "me:secret@nonsense"], "ledger must be at postgresql://USER@HOST/DATABASE or sqlite:///FILE, not at me@"),
    ):
        capsys.readouterr()
        assert main(["worker", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert "secret" not in said


def test_a_worker_waits_for_the_plan_and_the_coordinator_makes_it_again(
    alone: dict[str, tuple[float, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator dies after it stored the table, before the plan."""

    real = optuna.Study.set_user_attr

    def write(study: optuna.Study, name: str, value: object) -> None:
        if name == "plan":
            raise ZeroDivisionError
        real(study, name, value)

    with monkeypatch.context() as patch:
        patch.setattr("optuna.Study.set_user_attr", write)
        with pytest.raises(ZeroDivisionError):
            begin(tmp_path)
    url = f"sqlite:///{tmp_path / FILE}"
    with closing(Ledger.join(url, "search")) as ledger:
        assert "table" in ledger.study.user_attrs
        assert "plan" not in ledger.study.user_attrs
    monkeypatch.setattr(searching, "PLAN_PATIENCE", 0.1)
    with pytest.raises(BitatlasError, match=r"^ledger must hold a plan within 0.1 s, not lack it: run dse search on it first$"):
        work(url, "search")
    monkeypatch.setattr(searching, "PLAN_PATIENCE", 60.0)
    later = threading.Timer(0.5, begin_stated, (state(replace(SETTINGS, out=str(tmp_path))), tmp_path))
    later.start()
    work(url, "search", lambda text: None)
    later.join()
    assert outcome(all_trials(url)) == alone


def test_uniform_assignments_wait_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator of another sampler dies while it puts them into the ledger."""
    called: list[object] = []

    def enqueue(*arguments: object, **options: object) -> None:
        called.append(options)
        if len(called) == 3:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("optuna.Study.enqueue_trial", enqueue)
        with pytest.raises(ZeroDivisionError):
            begin(tmp_path, sampler="tpe")
    url = f"sqlite:///{tmp_path / FILE}"
    assert all_trials(url) == []
    for _ in range(2):
        begin(tmp_path, sampler="tpe")
    assert Counter(trial.state for trial in all_trials(url)) == {TrialState.WAITING: 9}
    with closing(Ledger.join(url, "search")) as ledger:
        assert ledger.study.user_attrs[UNIFORM] is True


def test_a_trial_whose_worker_died_before_it_was_written_tries_what_it_claimed(
    alone: dict[str, tuple[float, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begin(tmp_path)

    def die(*arguments: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("dse.search.Worker._written", die)
        patch.setattr("dse.ledger.Ledger.give_back", lambda self, trial: None)
        with pytest.raises(SystemExit):
            work(url, "search")
    (struck, *_) = all_trials(url)
    assert struck.state == TrialState.RUNNING
    assert struck.params == {}
    claimed = struck.user_attrs["claim"]
    with closing(Ledger.join(url, "search")) as ledger:
        ledger._put_back(struck._trial_id, lost=True, worker=struck.user_attrs[WORKER])
    work(url, "search", lambda text: None)
    trials = all_trials(url)
    assert trials[0].params == claimed
    assert outcome(trials) == alone
