"""Many workers on one search: killed, cut off from the database, sent from other machines; no finished trial is lost or doubled."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from dse import ledger as ledgers
from dse.cli import main
from dse.ledger import FILE, SURPLUS, Ledger
from dse.search import FIGURES, waiting_for_database
from dse.searching import SearchResult, search, work
from dse.settings import SearchSettings
from formats import BitatlasError

FORMATS = ("int4", "int8", "e2m1")
TRIALS = 22
SETTINGS = SearchSettings(model="resnet8", data="digits", formats=FORMATS, trials=TRIALS, rungs=("none",), out="-")
#: a worker whose trials take a while, on a machine of its own name, that gives signs of life every second
WORKER = """
import socket, sys, time
from dse import experiment, ledger
from dse.searching import work
url, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
ledger.HEARTBEAT, ledger.GRACE = 1, 4
socket.gethostname = lambda: name
measure = experiment.Experiment.measure
def slowly(self, *arguments, **options):
    time.sleep(seconds)
    return measure(self, *arguments, **options)
experiment.Experiment.measure = slowly
work(url, "search")
"""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server on loopback with a folder and a port of its own."""

    binaries: Path
    folder: Path
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://bitatlas@127.0.0.1:{self.port}/{database}"

    def control(self, *arguments: str) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -F"
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "-l", str(self.folder / "log"), *arguments)

    def new_database(self, name: str) -> str:
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "bitatlas", name)
        return self.url(name)

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        if getpass.getuser() == "root":  # the server refuses to run as root
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="bitatlas-postgresql-"))  # short, for the socket's path; not below root's own folders
    if getpass.getuser() == "root":
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    made = Server(binaries=found[-1].parent, folder=folder, port=port)
    made.run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "bitatlas", "--no-sync")
    made.control("start")
    yield made
    made.control("-m", "immediate", "stop")
    shutil.rmtree(folder)


def begin(folder: Path, storage: str | None) -> SearchResult:
    """Begin a search and make its first trial, so that plan and proposals are there for workers."""
    return search(replace(SETTINGS, out=str(folder), storage=storage, trials=1), say=lambda text: None)


def ask_for_all(folder: Path, storage: str | None) -> None:
    """Write into the ledger how many trials there are to be."""
    ledger = Ledger.join(storage or folder / FILE, "search")
    wanted = replace(SETTINGS, out=str(folder), storage=storage)
    ledger.study.set_user_attr(ledgers.SETTINGS, wanted.to_toml())
    ledger.close()


def start(url: str, name: str, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, url, name, str(seconds)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"BITATLAS_THREADS": "1"}
    )


def all_trials(where: str | Path) -> list[FrozenTrial]:
    ledger = Ledger.join(where, "search")
    found = ledger.study.get_trials(deepcopy=True)
    ledger.close()
    return found


def wait_until(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def outcome(trials: list[FrozenTrial]) -> dict[str, tuple[float, ...]]:
    """Return what the trials that count came to, by their parameters; each must be there once."""
    counted = [t for t in trials if t.state == TrialState.COMPLETE and not t.user_attrs.get(SURPLUS)]
    keys = [json.dumps(trial.params, sort_keys=True) for trial in counted]
    assert max(Counter(keys).values()) == 1
    return {key: tuple(trial.values) for key, trial in zip(keys, counted, strict=True)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, ...]]:
    """The search by a single worker."""
    folder = tmp_path_factory.mktemp("alone")
    search(replace(SETTINGS, out=str(folder)), say=lambda text: None)
    return outcome(all_trials(folder / FILE))


def test_four_workers_one_killed_and_the_server_restarted(
    server: Server, alone: dict[str, tuple[float, ...]], tmp_path: Path
) -> None:
    url = server.new_database("four")
    begin(tmp_path, url)
    ask_for_all(tmp_path, url)
    workers = [start(url, f"machine{number}", 0.6) for number in range(4)]

    def at_work(name: str) -> list[FrozenTrial]:
        found = waiting_for_database(lambda: all_trials(url))
        return [t for t in found if t.state == TrialState.RUNNING and t.user_attrs.get(ledgers.WORKER, {}).get("host") == name]

    wait_until(lambda: at_work("machine1"))
    workers[1].kill()
    struck = at_work("machine1")
    wait_until(lambda: sum(t.state == TrialState.COMPLETE for t in all_trials(url)) >= 6)
    server.control("-m", "fast", "restart")
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, -signal.SIGKILL, 0, 0]
    for number in (0, 2, 3):
        assert f"{TRIALS} trials are finished" in said[number][0]
        assert "Traceback" not in said[number][1]
    trials = all_trials(url)
    assert outcome(trials) == alone
    assert len({t.user_attrs[ledgers.WORKER]["host"] for t in trials if t.state == TrialState.COMPLETE}) >= 3
    for lost in struck:
        again = [t for t in trials if t.params == lost.params and t.state == TrialState.COMPLETE]
        assert len(again) == 1
        assert trials[lost.number].state == TrialState.FAIL


def test_workers_finish_a_search_in_a_file_together(alone: dict[str, tuple[float, ...]], tmp_path: Path) -> None:
    begin(tmp_path, None)
    ask_for_all(tmp_path, None)
    workers = [start(f"sqlite:///{tmp_path / FILE}", f"machine{number}", 0.05) for number in range(2)]
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert outcome(all_trials(tmp_path / FILE)) == alone
    resumed = search(replace(SETTINGS, out=str(tmp_path)), say=lambda text: None)
    assert len(resumed.outcome.trials) == TRIALS


def test_a_worker_that_is_interrupted_gives_its_trial_back(server: Server, tmp_path: Path) -> None:
    url = server.new_database("interrupted")
    begin(tmp_path, url)
    ask_for_all(tmp_path, url)
    worker = start(url, "machine", 5.0)
    wait_until(lambda: any(t.state == TrialState.RUNNING and t.params for t in all_trials(url)))
    (running,) = [t for t in all_trials(url) if t.state == TrialState.RUNNING]
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=30)
    trials = all_trials(url)
    assert trials[running.number].state == TrialState.FAIL
    waiting = [t for t in trials if t.state == TrialState.WAITING and t.system_attrs.get("fixed_params") == running.params]
    assert len(waiting) == 1


def test_a_trial_of_a_process_that_has_ended_is_taken_over_at_once(tmp_path: Path) -> None:
    begin(tmp_path, None)
    ledger = Ledger.join(tmp_path / FILE, "search")
    trial = ledger.study.ask()
    trial.set_user_attr(ledgers.WORKER, {"host": socket.gethostname(), "process": 2**22 + 1, "started": "1"})
    alive = ledger.study.ask()
    ledger.sign(alive)
    for _ in range(2):  # twice in a row: put back once
        ledger.take_over()
    states = Counter(t.state for t in ledger.study.get_trials())
    ledger.close()
    assert states[TrialState.FAIL] == 1
    assert states[TrialState.RUNNING] == 1


def test_no_more_trials_count_than_were_asked_for(tmp_path: Path) -> None:
    begin(tmp_path, None)
    ask_for_all(tmp_path, None)
    ledger = Ledger.join(tmp_path / FILE, "search")
    for _ in range(TRIALS - 1):
        ledger.study.add_trial(optuna.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {}}))
    ledger.close()
    workers = [start(f"sqlite:///{tmp_path / FILE}", f"machine{number}", 0.0) for number in range(2)]
    for worker in workers:
        worker.communicate(timeout=120)
    ledger = Ledger.join(tmp_path / FILE, "search")
    finished = ledger.finished()
    ledger.close()
    assert len(finished) == TRIALS


def test_a_worker_of_a_finished_search_says_so(tmp_path: Path) -> None:
    begin(tmp_path, None)
    said: list[str] = []
    work(f"sqlite:///{tmp_path / FILE}", "search", said.append)
    assert said == ["1 trials are finished"]


def test_a_worker_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, None)
    monkeypatch.setattr("dse.stating.code_version", lambda: "f" * 64)
    with pytest.raises(
        BitatlasError, match=r"must go on as it began, not with changes \(code was [0-9a-f]{12}…, is ffffffffffff…\)"
    ):
        work(f"sqlite:///{tmp_path / FILE}", "search")


def test_what_cannot_be_joined_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path, None)
    for arguments, message in (
        (
            ["--storage", f"sqlite:///{tmp_path / FILE}", "--study", "other"],
            "study must be one of the ledger's (search), not 'other'",
        ),
        (["--storage", f"sqlite:///{tmp_path}/none.sqlite"], "ledger must exist before a worker joins it, not be missing"),
        (["--storage", "postgresql://me:secret@127.0.0.1:1/x"], "ledger must be a usable database, not fail ("),
        (["--storage", "nonsense"], "ledger must be"),
    ):
        assert main(["worker", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert "secret" not in said


def test_a_database_that_stays_away_is_given_up_with_one_line() -> None:
    def away() -> None:
        raise optuna.exceptions.StorageInternalError("connection refused")

    with pytest.raises(
        BitatlasError, match=r"^ledger must answer within 0.2 s, not fail \(connection refused\); the same command goes on$"
    ):
        waiting_for_database(away, patience=0.2)


def test_measured_figures_are_in_the_ledger(tmp_path: Path) -> None:
    begin(tmp_path, None)
    (trial,) = [t for t in all_trials(tmp_path / FILE) if t.state == TrialState.COMPLETE]
    assert {"accuracy", "kl", "lut"} <= set(trial.user_attrs[FIGURES])
