"""The record of a search: an Optuna study in the search's folder, or in a database that many workers share."""

import fcntl
import json
import os
import socket
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.pool import QueuePool

from dse.proposals.transactions import serialised
from dse.settings import Fingerprint
from formats.errors import BitatlasError, MissingPackageError

FILE = "ledger.sqlite"
LOCK = ".lock"
STUDY = "search"
#: seconds between a worker's signs of life, and without one until another takes its trial over
HEARTBEAT, GRACE = 5, 30
#: how often a trial is begun again whose worker was lost
RETRIES = 3
#: user attributes: of the study what it is of and how to go on with it, of a trial who works on it and whether it counts
FINGERPRINT, SETTINGS = "fingerprint", "settings"
WORKER, SURPLUS = "worker", "surplus"
_POSTGRESQL = "postgresql+psycopg"


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


def open_storage(where: Path | str) -> optuna.storages.RDBStorage:
    """Open a database with signs of life: an SQLite file by its path, or any by its URL.

    Raises ``BitatlasError`` where it cannot be used, ``MissingPackageError`` where the driver of PostgreSQL is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, options = _address(where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return serialised(
                optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=_retry(),
                )
            )
    except Exception as error:
        if is_database_error(error):
            raise BitatlasError(f"ledger must be a usable database, not fail ({database_message(error)}): {shown(where)}") from None
        if isinstance(error, ImportError):
            raise MissingPackageError("psycopg", "a ledger in PostgreSQL", extra="postgres") from None
        raise


def _address(where: Path | str) -> tuple[str, dict[str, Any]]:
    if isinstance(where, Path):
        # the path goes to SQLite as it is: in a URL some characters would mean something else
        # connections are kept: closing the last one empties the write-ahead log, which waits for the disk
        return "sqlite://", {"creator": lambda: _sqlite(where), "poolclass": QueuePool}
    if where.startswith("sqlite:///"):
        return _address(Path(where.removeprefix("sqlite:///")))
    for given in ("postgresql://", "postgres://"):
        if where.startswith(given):
            where = f"{_POSTGRESQL}://{where.removeprefix(given)}"
    return where, {"pool_pre_ping": True}


def _sqlite(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    # a write-ahead log lets workers read while one writes; without a wait for the disk at every step a power cut may cost the
    # last trials, never the file
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def shown(where: Path | str) -> str:
    """Return an address without the password in it."""
    if isinstance(where, Path) or "@" not in where:
        return str(where)
    scheme, _, rest = where.partition("://")
    login, _, host = rest.rpartition("@")
    return f"{scheme}://{login.split(':')[0]}@{host}"


class Ledger:
    """Trials of one search."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.RDBStorage) -> None:
        """Take the study and the storage that it is in."""
        self.study = study
        self._storage = storage

    def close(self) -> None:
        """Close the connections; the last one to an SQLite file leaves nothing beside it."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @staticmethod
    def begin(
        where: Path | str, name: str, fingerprint: Fingerprint, directions: Sequence[Literal["minimize", "maximize"]], settings: str
    ) -> "Ledger":
        """Open the study called ``name``, or begin it with what workers need to know; another search's is refused, saying why."""
        new = isinstance(where, Path) and not where.exists()
        try:
            storage = open_storage(where)
            study = optuna.create_study(storage=storage, study_name=name, directions=list(directions), load_if_exists=not new)
            if FINGERPRINT not in study.user_attrs:
                study.set_user_attr(FINGERPRINT, json.dumps(dict(fingerprint.parts)))
        except Exception as error:
            if new and isinstance(where, Path):
                _remove(where)
            if is_database_error(error):
                message = f"ledger must be a usable database, not fail ({database_message(error)}): {shown(where)}"
                raise BitatlasError(message) from None
            if isinstance(error, ValueError):  # optuna: other directions than the study has
                raise BitatlasError(_refusal(where, [str(error)])) from None
            raise
        ledger = Ledger(study, storage)
        try:
            ledger.check(fingerprint, where)
            study.set_user_attr(SETTINGS, settings)  # those of today: more trials may be asked for than before
        except BaseException:
            ledger.close()
            raise
        return ledger

    @staticmethod
    def join(where: Path | str, name: str) -> "Ledger":
        """Open a study that exists; ``BitatlasError`` where there is none of that name, naming those that there are."""
        if isinstance(where, str) and where.startswith("sqlite:///"):
            where = Path(where.removeprefix("sqlite:///"))
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

    def trials(self) -> list[FrozenTrial]:
        """Return all trials that count, in the order of their numbers: surplus ones and those of lost workers do not."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.FAIL and not trial.user_attrs.get(SURPLUS)]

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that were measured, in full or until they were dropped, in the order in which they were begun."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def sign(self, trial: optuna.Trial) -> None:
        """Write down who works on a trial."""
        trial.set_user_attr(WORKER, {"host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid())})

    def take_over(self) -> None:
        """Put back the trials of lost workers: of those that gave no sign of life, and of this machine's processes that ended."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker: Mapping[str, Any] = trial.user_attrs.get(WORKER, {})
            if worker.get("host") == socket.gethostname() and _started(int(worker["process"])) != worker["started"]:
                try:
                    won = self.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
                except optuna.exceptions.UpdateFinishedTrialError:
                    continue  # another worker was quicker
                if won:
                    _retry()(self.study, trial)


@cache
def _retry() -> optuna.storages.RetryHeartbeatStaleTrialCallback:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)


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


def is_database_error(error: BaseException) -> bool:
    """Whether the database itself, or the layer over it, failed."""
    import sqlalchemy.exc

    causes = (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
    return isinstance(error, causes) or isinstance(error.__cause__, causes)


def database_message(error: BaseException) -> str:
    """Return the database's own words, without the statement that failed."""
    original = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return str(original).split("\n")[0]
