"""The record of a search: finished trials in an Optuna study, one SQLite file in the search's folder."""

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy.pool import NullPool

from dse.settings import Fingerprint
from formats.errors import BitatlasError

FILE = "ledger.sqlite"
LOCK = ".lock"
STUDY = "search"
_FINGERPRINT = "fingerprint"


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


class Ledger:
    """Finished trials of one search; a trial is added whole, in one transaction, or not at all."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, directions: Sequence[Literal["minimize", "maximize"]]) -> None:
        """Open the folder's ledger, or begin one; a ledger of another search is refused, saying what differs."""
        path = folder / FILE
        new = not path.exists()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            # the path goes to SQLite as it is: in a URL some characters would mean something else
            options = {"creator": lambda: sqlite3.connect(path, timeout=30), "poolclass": NullPool}
            storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=options)
            self._study = optuna.create_study(
                storage=storage, study_name=STUDY, directions=list(directions), load_if_exists=not new
            )
            if _FINGERPRINT not in self._study.user_attrs:
                self._study.set_user_attr(_FINGERPRINT, json.dumps(dict(fingerprint.parts)))
        except Exception as error:
            if new:
                _remove(path)
            if is_database_error(error):
                raise BitatlasError(f"ledger must be a usable SQLite file, not fail ({database_message(error)}): {path}") from None
            if isinstance(error, ValueError):  # optuna: other directions than the study has
                raise BitatlasError(_refusal(folder, [str(error)])) from None
            raise
        earlier = Fingerprint(parts=json.loads(self._study.user_attrs[_FINGERPRINT]))
        differences = fingerprint.differences(earlier)
        if differences:
            raise BitatlasError(_refusal(folder, differences))

    def trials(self) -> list[FrozenTrial]:
        """Return the finished trials in the order in which they were made."""
        return self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    def add(self, trial: FrozenTrial) -> None:
        """Add a finished trial."""
        self._study.add_trial(trial)


def _refusal(folder: Path, differences: Sequence[str]) -> str:
    return f"search in {folder} must go on as it began, not with changes ({'; '.join(differences)}); use another --out"


def _remove(path: Path) -> None:
    for leftover in (path, *(path.with_name(path.name + ending) for ending in ("-journal", "-wal", "-shm"))):
        leftover.unlink(missing_ok=True)


def is_database_error(error: BaseException) -> bool:
    """Whether SQLite itself, or the layer over it, failed."""
    import sqlalchemy.exc

    causes = (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
    return isinstance(error, causes) or isinstance(error.__cause__, causes)


def database_message(error: BaseException) -> str:
    """Return SQLite's own words, without the statement that failed."""
    original = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return str(original).split("\n")[0]
