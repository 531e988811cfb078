"""The record of a search: an Optuna study in the search's folder, or in a database that many workers share."""

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.pool import QueuePool
from tqdm import tqdm

from dse import patience
from dse.patience import Beat, LedgerAwayError, PatientStorage, database_message, is_database_error
from dse.proposals.transactions import serialised, together
from dse.settings import Fingerprint
from formats.errors import BitatlasError, MissingPackageError

Result = TypeVar("Result")
FILE = "ledger.sqlite"
LOCK = ".lock"
#: seconds between a worker's signs of life, and without one until another may take its trial over
HEARTBEAT, GRACE = 5, 30
#: how often a trial is begun again whose worker was lost
RETRIES = 3
#: seconds that a worker which ends tries to give its trial back
GIVE_BACK = 5.0
#: seconds until a connection that cannot be made is given up
CONNECT = 10
#: user attributes: of the study what it is of and how to go on with it, of a trial who works on it and how often it was lost
FINGERPRINT, SETTINGS = "fingerprint", "settings"
WORKER, LOST = "worker", "lost"
_POSTGRESQL = "postgresql+psycopg"
_SCHEMES = ("postgresql", "postgres", _POSTGRESQL)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; a second search in it is refused, a killed one leaves no lock behind."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BitatlasError(f"folder must be used by one search at a time, not by another now: {folder}") from None
        try:
            yield
        finally:
            if new and [path.name for path in folder.iterdir()] == [LOCK]:  # nothing came of it: leave nothing behind
                (folder / LOCK).unlink()
                folder.rmdir()


def open_storage(where: Path | str) -> PatientStorage:
    """Open a database: an SQLite file by its path, or any by its URL.

    Raises ``BitatlasError`` where it cannot be used, ``MissingPackageError`` where the driver of PostgreSQL is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, options = _address(where)
    try:
        return _opened(url, options)
    except Exception as error:
        if is_database_error(error):
            raise BitatlasError(_unusable(where, error)) from None
        if isinstance(error, ImportError):
            raise MissingPackageError("psycopg", "a ledger in PostgreSQL", extra="postgres") from None
        raise


def _opened(url: str, options: dict[str, Any], attempts: int = 5) -> PatientStorage:
    import sqlalchemy.exc

    while True:
        attempts -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return serialised(PatientStorage(url, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE))
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not attempts:  # else another worker made the tables meanwhile
                raise
            time.sleep(0.2)


def _unusable(where: Path | str, error: BaseException) -> str:
    return f"ledger must be a usable database, not fail ({database_message(error)}): {shown(where)}"


def _file(where: Path | str) -> Path | str:
    """Return the path of an SQLite file that is given by its URL; anything else as it is."""
    if isinstance(where, str) and where.startswith("sqlite:///") and where != "sqlite:///":
        return Path(where.removeprefix("sqlite:///"))
    return where


def _address(where: Path | str) -> tuple[str, dict[str, Any]]:
    import sqlalchemy.engine

    where = _file(where)
    if isinstance(where, Path):
        # the path goes to SQLite as it is: in a URL some characters would mean something else
        # connections are kept: closing the last one empties the write-ahead log, which waits for the disk
        return "sqlite://", {"creator": lambda: _sqlite(where), "poolclass": QueuePool}
    scheme, _, rest = where.partition("://")
    url = f"{_POSTGRESQL}://{rest}"
    with contextlib.suppress(ValueError, sqlalchemy.exc.ArgumentError):
        sqlalchemy.engine.make_url(url)
        if scheme in _SCHEMES and rest:
            # signs of life are in the database's time, which it gives in the time zone of the connection
            connection = {"connect_timeout": CONNECT, "options": "-c timezone=UTC", **_KEEPALIVES}
            escaped = url.replace("{", "{{").replace("}", "}}")  # optuna formats it
            return escaped, {"pool_pre_ping": True, "connect_args": connection}
    raise BitatlasError(f"ledger must be at postgresql://USER@HOST/DATABASE or sqlite:///FILE, not at {shown(where)}")


#: a server that vanished without a word is noticed within half a minute
_KEEPALIVES = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


def _sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    # a write-ahead log lets workers read while one writes; without a wait for the disk at every step a power cut may cost the
    # last trials, never the file
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def shown(where: Path | str) -> str:
    """Return an address without the password in it."""
    if isinstance(where, Path):
        return str(where)
    scheme, separator, rest = where.partition("?")[0].rpartition("://")
    login, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{login.split(':')[0]}{at}{host}"


class Ledger:
    """Trials of one search.

    A trial waits, is taken by one worker, and finishes; a trial that is given back, or whose worker was lost, waits again under
    the same number. Each of these is one transaction of the database, and no two of one study run at once.
    """

    def __init__(self, study: optuna.Study, storage: PatientStorage) -> None:
        """Take the study and the storage that it is in."""
        self.study = study
        self._storage = storage
        self._signature = {"host": socket.gethostname(), **_process(), "token": uuid.uuid4().hex}
        #: by trial, since when it has been seen without signs of life
        self._silent: dict[int, float] = {}
        storage.patience = patience.PATIENCE

    def close(self) -> None:
        """Close the connections; the last one to an SQLite file leaves nothing beside it."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @staticmethod
    def begin(
        where: Path | str, name: str, fingerprint: Fingerprint, directions: Sequence[Literal["minimize", "maximize"]], settings: str
    ) -> "Ledger":
        """Open the study called ``name``, or begin it with what workers need to know; another search's is refused, saying why."""
        where = _file(where)
        new = isinstance(where, Path) and not where.exists()
        try:
            storage = open_storage(where)
            study = optuna.create_study(storage=storage, study_name=name, directions=list(directions), load_if_exists=not new)
        except Exception as error:
            if new and isinstance(where, Path):
                _remove(where)
            if isinstance(error, LedgerAwayError):
                raise BitatlasError(f"{error}: {shown(where)}") from None
            if isinstance(error, ValueError):  # optuna: other directions than the study has
                raise BitatlasError(_refusal(where, [str(error)])) from None
            raise
        ledger = Ledger(study, storage)
        try:
            ledger.together(lambda: ledger._state(fingerprint, settings, where))
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _state(self, fingerprint: Fingerprint, settings: str, where: Path | str) -> None:
        if FINGERPRINT not in self.study.user_attrs:
            self.study.set_user_attr(FINGERPRINT, json.dumps(dict(fingerprint.parts)))
        self.check(fingerprint, where)
        self.study.set_user_attr(SETTINGS, settings)  # those of today: more trials may be asked for than before

    @staticmethod
    def join(where: Path | str, name: str) -> "Ledger":
        """Open a study that exists; ``BitatlasError`` where there is none of that name, naming those that there are."""
        where = _file(where)
        if isinstance(where, Path) and not where.exists():
            raise BitatlasError(f"ledger must exist before a worker joins it, not be missing: {where}")
        storage = open_storage(where)
        names = optuna.get_all_study_names(storage)
        if name not in names:
            raise BitatlasError(
                f"study must be one of the ledger's ({', '.join(sorted(names)) or 'none'}), not {name!r}: {shown(where)}"
            )
        return Ledger(optuna.load_study(study_name=name, storage=storage), storage)

    @property
    def settings(self) -> str:
        """The settings of the search, as TOML."""
        return str(self.study.user_attrs[SETTINGS])

    def check(self, fingerprint: Fingerprint, where: Path | str) -> None:
        """Refuse to go on with a search of something else, saying what differs."""
        earlier = Fingerprint(parts=json.loads(self.study.user_attrs[FINGERPRINT]))
        differences = fingerprint.differences(earlier)
        if differences:
            raise BitatlasError(_refusal(where, differences))

    def together(self, call: Callable[[], Result]) -> Result:
        """Call in one transaction, again where the database went away meanwhile; see ``dse.proposals.transactions``."""
        return self._storage.patiently(lambda: together(self.study, call))

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers but those that were given up."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that were measured, in full or until they were dropped, in the order of their numbers."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def take(self, wanted: int, sampler: Callable[[int], optuna.samplers.BaseSampler]) -> optuna.Trial | None:
        """Take the next trial, the first that waits or a new one; None where ``wanted`` are finished or worked on.

        ``sampler`` makes the sampler of a trial from how many trials there are before it.
        """

        def take() -> optuna.Trial | None:
            before = sum(trial.state != TrialState.WAITING for trial in self.trials())
            if before >= wanted:
                return None
            self.study.sampler = sampler(before)
            trial = self.study.ask()
            trial.set_user_attr(WORKER, self._signature)
            self._storage.record_heartbeat(trial._trial_id)
            return trial

        return self.together(take)

    def beating(self, trial: optuna.Trial) -> Beat:
        """Return what gives signs of life of a trial while it is entered."""
        return Beat(self._storage, trial._trial_id)

    def finish(self, trial: optuna.Trial, write: Callable[[], None], values: Sequence[float] | None) -> None:
        """Finish a trial by ``write``, which adds attributes, with its values, or with None if it was dropped.

        Where it counted as lost, and was taken over, what this worker measured is left out: another measures the same.
        """

        def finish() -> None:
            if self._is_ours(self.study._storage.get_trial(trial._trial_id)):
                write()
                self.study.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)

        self.together(finish)

    def give_back(self, trial: optuna.Trial) -> None:
        """Let a trial wait again that this worker took; where the database does not answer it will count as lost."""
        self._storage.patience = min(GIVE_BACK, self._storage.patience)
        with contextlib.suppress(LedgerAwayError):
            self._put_back(trial._trial_id, lost=False)

    def take_over(self) -> None:
        """Let the trials of lost workers wait again, at most ``RETRIES`` times each.

        Lost are processes of this machine that ended, and workers that gave no sign of life for so long that it is no matter of
        the database, which may have been away itself.
        """
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        silent = self._long_silent(running) if running else set()
        for trial in running:
            # one of this ledger's own is left of a transaction that came to pass though the database did not say so any more
            ours = self._is_ours(trial)
            if ours or trial._trial_id in silent or _has_ended(trial.user_attrs.get(WORKER, {})):
                self._put_back(trial._trial_id, lost=not ours, worker=trial.user_attrs.get(WORKER))

    def _long_silent(self, running: Sequence[FrozenTrial]) -> set[int]:
        stale = set(self._storage._get_stale_trial_ids(self.study._study_id))
        stale |= {trial._trial_id for trial in running if WORKER not in trial.user_attrs}
        now = time.monotonic()
        self._silent = {trial: self._silent.get(trial, now) for trial in stale}
        return {trial for trial, since in self._silent.items() if now - max(since, self._storage.failed) > 2 * HEARTBEAT}

    def _put_back(self, trial_id: int, *, lost: bool, worker: object = None) -> None:
        def put_back() -> None:
            trial = self.study._storage.get_trial(trial_id)
            if trial.state != TrialState.RUNNING:
                return
            if trial.user_attrs.get(WORKER) != worker if lost else not self._is_ours(trial):
                return  # it is another's by now
            times = int(trial.user_attrs.get(LOST, 0)) + lost
            if lost:
                self.study._storage.set_trial_user_attr(trial_id, LOST, times)
            given_up = times > RETRIES
            self.study._storage.set_trial_state_values(trial_id, TrialState.FAIL if given_up else TrialState.WAITING)
            if given_up:
                said.append(f"trial {trial.number} is given up: its workers were lost {times} times")

        said: list[str] = []
        self.together(put_back)
        for line in said:
            tqdm.write(line, file=sys.stderr)

    def _is_ours(self, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == self._signature


def _process() -> dict[str, str | int]:
    """Return what tells this process from every other: processes are numbered anew in each container and after each start."""
    return {"machine": _machine(), "process": os.getpid(), "started": _started(os.getpid())}


@cache
def _machine() -> str:
    """Return where numbers of processes mean the same: a start of a system, and a name space of it; empty where unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _has_ended(worker: Mapping[str, Any]) -> bool:
    """Whether a worker was a process of this machine that is no more; False where that cannot be known."""
    here = worker.get("machine") == _machine() != ""
    return here and _started(int(worker["process"])) != worker["started"]


def _started(process: int) -> str:
    """Return when a process of this machine was started, in clock ticks since boot; empty where there is none: numbers recur."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _refusal(where: Path | str, differences: Sequence[str]) -> str:
    place = where.parent if isinstance(where, Path) else shown(where)
    return f"search in {place} must go on as it began, not with changes ({'; '.join(differences)}); use another --out"


def _remove(path: Path) -> None:
    for leftover in (path, *(path.with_name(path.name + ending) for ending in ("-journal", "-wal", "-shm"))):
        leftover.unlink(missing_ok=True)
