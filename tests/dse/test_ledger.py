"""A trial is taken by one worker at a time, finished once, and taken over when its worker is lost: on SQLite and PostgreSQL."""

import functools
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from dse import addresses, patience, processes
from dse.ledger import FILE, LOST, RETRIES, WORKER, Ledger
from dse.patience import LedgerAwayError
from dse.settings import Fingerprint
from formats import BitatlasError

FINGERPRINT = Fingerprint(parts={"model": "net", "seed": "0"})
#: a signature that no process has
GONE = {"machine": processes.this()["machine"], "process": 2**22 + 1, "started": "1"}
ELSEWHERE = {"machine": "another", "process": 1, "started": "1"}


def random(before: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=before)


def begin(where: Path | str) -> None:
    Ledger.begin(where, "search", FINGERPRINT, ["minimize"], "").close()


def measure(opened: Ledger, trial: optuna.Trial) -> None:
    """Work on a trial as a worker does."""
    opened.write(trial, lambda: trial.suggest_categorical("format", ("a", "b")))
    opened.finish(trial, lambda: trial.set_user_attr("by", threading.get_ident()), [float(trial.number)])


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """The address of a ledger that was begun."""
    address = tmp_path / FILE if request.param == "sqlite" else request.getfixturevalue("server").new_database()
    begin(address)
    return address  # type: ignore[no-any-return]


@pytest.fixture
def opened(where: Path | str) -> Iterator[Ledger]:
    with closing(Ledger.join(where, "search")) as made:
        yield made


def states(of: Ledger) -> Counter[TrialState]:
    return Counter(trial.state for trial in of.study.get_trials(deepcopy=False))


def at_once(count: int, call: Callable[[int], Any]) -> None:
    """Call from several threads at one moment."""
    barrier = threading.Barrier(count)
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            call(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_workers_finish_exactly_as_many_trials_as_are_wanted(where: Path | str, opened: Ledger) -> None:
    for _ in range(3):
        opened.study.enqueue_trial({"format": "b"})

    def work(number: int) -> None:
        with closing(Ledger.join(where, "search")) as own:
            while len(own.finished()) < 12:
                own.take_over()
                trial = own.take(12, random)
                if trial is not None:
                    measure(own, trial)

    at_once(4, work)
    trials = opened.study.get_trials()
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert [trial.params["format"] for trial in trials[:3]] == ["b"] * 3
    assert [trial.values for trial in trials] == [[float(number)] for number in range(12)]


def test_what_is_under_way_counts_and_what_waits_comes_first(opened: Ledger) -> None:
    first = opened.take(2, random)
    opened.study.enqueue_trial({"format": "b"})
    asked: list[int] = []

    def sampler(before: int) -> optuna.samplers.BaseSampler:
        asked.append(before)
        return random(before)

    second = opened.take(2, sampler)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 1)
    assert asked == [1]  # trials before it, under way ones too: two workers draw by different seeds
    assert opened.take(2, random) is None


def test_in_turn_no_new_trial_is_begun_while_another_has_not_said_what_it_tries(opened: Ledger) -> None:
    first = opened.take(9, random, in_turn=True)
    assert first is not None
    assert opened.take(9, random, in_turn=True) is None
    opened.study.enqueue_trial({"format": "b"})
    second = opened.take(9, random, in_turn=True)  # which waits, whatever the first says
    assert second is not None
    for trial in (first, second):
        assert opened.take(9, random, in_turn=True) is None
        opened.write(trial, functools.partial(trial.suggest_categorical, "format", ("a", "b")))
    third = opened.take(9, random, in_turn=True)
    assert third is not None
    assert third.number == 2


def test_a_trial_of_a_process_that_has_ended_waits_again_at_once(opened: Ledger) -> None:
    lost, alive = opened.take(9, random), opened.take(9, random)
    assert lost is not None
    assert alive is not None
    lost.set_user_attr(WORKER, GONE)
    alive.set_user_attr(WORKER, processes.this())
    for _ in range(2):
        opened.take_over()
    lost_now, alive_now = opened.study.get_trials()
    assert (lost_now.state, alive_now.state) == (TrialState.WAITING, TrialState.RUNNING)
    assert lost_now.user_attrs[LOST] == 1


def test_a_process_that_was_killed_has_ended_whether_or_not_it_was_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    signature = {**processes.this(), "process": child.pid, "started": processes._started(child.pid)}
    assert not processes.has_ended(signature)
    assert processes.has_ended({**signature, "started": "1"})  # a number that was given to another process meanwhile
    assert not processes.has_ended({**signature, "started": "1", "machine": "another"})
    child.kill()
    deadline = time.monotonic() + 60
    while not processes.has_ended(signature):
        assert time.monotonic() < deadline
    child.communicate()
    assert processes.has_ended(signature)


def test_a_lost_trial_is_taken_over_once_by_any_number_of_workers(where: Path | str, opened: Ledger) -> None:
    trial = opened.take(9, random)
    assert trial is not None
    trial.set_user_attr(WORKER, GONE)

    def look(number: int) -> None:
        with closing(Ledger.join(where, "search")) as own:
            own.take_over()

    at_once(4, look)
    (now,) = opened.study.get_trials()
    assert (now.state, now.user_attrs[LOST]) == (TrialState.WAITING, 1)


def test_a_trial_is_given_up_after_its_workers_were_lost_again_and_again(
    opened: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(RETRIES + 1):
        trial = opened.take(9, random)
        assert trial is not None
        assert trial.number == 0
        trial.set_user_attr(WORKER, GONE)
        opened.take_over()
    assert states(opened) == {TrialState.FAIL: 1}
    assert opened.trials() == []
    assert capsys.readouterr().err == f"trial 0 is given up: its workers were lost {RETRIES + 1} times\n"
    following = opened.take(1, random)
    assert following is not None
    assert following.number == 1


def test_a_worker_elsewhere_counts_as_lost_after_a_while_without_signs_of_life(
    where: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "HEARTBEAT", 1)
    monkeypatch.setattr(addresses, "GRACE", 1)
    with closing(Ledger.join(where, "search")) as own, closing(Ledger.join(where, "search")) as other:
        silent, beating = other.take(9, random), other.take(9, random)
        unsigned = own.study.ask()
        assert silent is not None
        assert beating is not None
        for trial in (silent, beating):
            trial.set_user_attr(WORKER, ELSEWHERE)
        with other.beating(beating):
            begun = time.monotonic()
            while states(own)[TrialState.WAITING] < 2:
                assert time.monotonic() < begun + 60
                own.take_over()
                time.sleep(0.1)
            assert time.monotonic() > begun + 2  # two signs more were waited for
        found = own.study.get_trials()
    waiting = {trial.number for trial in found if trial.state == TrialState.WAITING}
    assert waiting == {silent.number, unsigned.number}


def test_silence_while_the_database_was_away_is_no_loss(opened: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = opened.take(9, random)
    assert trial is not None
    trial.set_user_attr(WORKER, ELSEWHERE)
    monkeypatch.setattr(opened._storage, "_get_stale_trial_ids", lambda study: [trial._trial_id])
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    opened.take_over()
    opened._storage._note_failure()
    clock = 1000.0 + 2 * addresses.HEARTBEAT
    opened.take_over()
    assert states(opened) == {TrialState.RUNNING: 1}
    clock += 1
    opened.take_over()
    assert states(opened) == {TrialState.WAITING: 1}


def test_a_worker_that_counted_as_lost_and_comes_back_writes_nothing(where: Path | str, opened: Ledger) -> None:
    slow = opened.take(9, random)
    assert slow is not None
    with closing(Ledger.join(where, "search")) as other:
        other._put_back(slow._trial_id, lost=True, worker=opened._signature)
        quick = other.take(9, random)
        assert quick is not None
        assert quick.number == slow.number
        assert opened.write(slow, lambda: pytest.fail("written")) is None
        opened.finish(slow, lambda: pytest.fail("written"), [5.0])
        opened.give_back(slow)
        measure(other, quick)
        opened.finish(slow, lambda: pytest.fail("written"), [5.0])
        opened.take_over()
    (now,) = opened.study.get_trials()
    assert (now.state, now.values) == (TrialState.COMPLETE, [0.0])


def test_a_transaction_that_came_to_pass_unheard_leaves_no_trial_behind(opened: Ledger) -> None:
    unheard = opened.take(9, random)  # as if the connection had been lost before the answer came
    assert unheard is not None
    opened.take_over()
    (now,) = opened.study.get_trials()
    assert now.state == TrialState.WAITING
    assert LOST not in now.user_attrs


def test_a_transaction_that_fails_leaves_nothing_behind(opened: Ledger) -> None:
    def half() -> None:
        opened.study.set_user_attr("half", "done")
        opened.study.enqueue_trial({"format": "b"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened.together(half)
    assert "half" not in opened.study.user_attrs
    assert opened.study.get_trials() == []
    assert opened.together(lambda: opened.together(lambda: opened.study.get_trials())) == []
    trial = opened.take(9, random)
    assert trial is not None
    assert trial.number == 0


def test_two_searches_that_begin_at_once_agree_or_one_is_refused(server: Any) -> None:
    address = server.new_database()
    refused: list[str] = []

    def start(number: int) -> None:
        try:
            Ledger.begin(address, "search", Fingerprint(parts={"seed": str(number % 2)}), ["minimize"], "").close()
        except BitatlasError as error:
            refused.append(str(error))

    at_once(4, start)
    assert len(refused) == 2
    for message in refused:
        assert "must go on as it began, not with changes (seed was " in message
        assert "secret" not in message


def test_workers_wait_for_a_server_that_restarts(
    server: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SAY_AFTER", 60.0)
    address = server.new_database()
    begin(address)
    with closing(Ledger.join(address, "search")) as opened:
        trial = opened.take(2, random)
        assert trial is not None
        with opened.beating(trial):
            server.control("-m", "immediate", "stop")
            back = threading.Timer(1.0, server.control, ("start",))
            back.start()
            measure(opened, trial)
            back.join()
        assert states(opened) == {TrialState.COMPLETE: 1}
    assert capfd.readouterr().err == ""


def test_signs_of_life_go_on_after_the_database_was_away(
    server: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "HEARTBEAT", 1)
    monkeypatch.setattr(patience, "SAY_AFTER", 60.0)
    address = server.new_database()
    begin(address)
    with closing(Ledger.join(address, "search")) as opened:
        trial = opened.take(2, random)
        assert trial is not None
        signs: list[float] = []
        real = opened._storage.record_heartbeat

        def recorded(trial_id: int) -> None:
            real(trial_id)
            signs.append(time.monotonic())

        monkeypatch.setattr(opened._storage, "record_heartbeat", recorded)
        with opened.beating(trial):
            server.control("-m", "fast", "stop")
            deadline = time.monotonic() + 60
            while opened._storage.failed < 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.control("start")
            failed = opened._storage.failed
            while not signs or signs[-1] < failed:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    assert capfd.readouterr().err == ""


def test_a_server_that_stays_away_is_given_up_with_one_line(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", 0.3)
    address = server.new_database()
    begin(address)
    with closing(Ledger.join(address, "search")) as opened:
        trial = opened.take(2, random)
        assert trial is not None
        server.control("-m", "fast", "stop")
        try:
            with pytest.raises(
                LedgerAwayError, match=r"^ledger must answer within 0.3 s, not fail \(.*\); the same command goes on$"
            ):
                measure(opened, trial)
            opened.give_back(trial)  # quietly: it counts as lost
        finally:
            server.control("start")
    with closing(Ledger.join(address, "search")) as again:
        assert states(again) == {TrialState.RUNNING: 1}


def test_it_is_said_that_the_database_is_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(patience, "SAY_AFTER", 0.1)
    failing = [True] * 4 + [False]

    def call() -> str:
        if failing.pop(0):
            raise optuna.exceptions.StorageInternalError("refused")
        return "back"

    assert patience.waiting_for_database(call, 10.0) == "back"
    assert capsys.readouterr().err == "ledger does not answer (refused); waiting up to 10 s\n"


def test_what_waiting_does_not_mend_is_said_at_once(opened: Ledger) -> None:
    def fail() -> None:
        opened._storage.scoped_session().execute(sqlalchemy.text("SELECT nothing FROM nowhere"))

    begun = time.monotonic()
    with pytest.raises(LedgerAwayError, match=r"^ledger must be a usable database, not fail \("):
        opened.together(fail)
    assert time.monotonic() < begun + patience.PATIENCE / 2
    assert opened.trials() == []  # and it can be used


def test_the_worker_is_written_down_for_who_looks(opened: Ledger) -> None:
    trial = opened.take(1, random)
    assert trial is not None
    worker = opened.study.get_trials()[0].user_attrs[WORKER]
    assert worker["host"] == socket.gethostname()
    assert {**worker, **processes.this()} == worker
