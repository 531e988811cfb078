"""A database that many workers share goes away now and then: Optuna's storage, waiting for it to come back."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import optuna
import sqlalchemy.exc
from optuna.storages._rdb import models
from tqdm import tqdm

from dse.proposals.transactions import inside
from formats.errors import BitatlasError

Result = TypeVar("Result")

#: seconds until a database that does not answer is given up, and until it is said that it is waited for
PATIENCE, SAY_AFTER = 300.0, 5.0
#: seconds between two attempts: the first pause, and the longest
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: what the storage does in one transaction each; Optuna's cache over it calls some by their private names
_CALLS = (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "_create_new_trial",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_state_values",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial",
    "get_trial_system_attrs",
    "_get_trials",
    "_get_stale_trial_ids",
)


class LedgerAwayError(BitatlasError):
    """A database that does not answer, or cannot do what it is asked: nothing more can be written to it."""


class PatientStorage(optuna.storages.RDBStorage):  # type: ignore[misc]
    """Optuna's storage in a database; what fails because that is away is done again until it is back, or patience ends.

    Patience is none at first, so that a wrong address is said at once.
    """

    #: seconds that a call waits for the database
    patience = 0.0
    #: when the database last failed to answer, by the monotonic clock
    failed = float("-inf")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Open the database, as Optuna's storage does; where that fails, no connection is left."""
        try:
            super().__init__(*arguments, **options)
        except BaseException:
            if hasattr(self, "engine"):
                self.close()
            raise

    def close(self) -> None:
        """Close this thread's connection and those that nobody uses."""
        if hasattr(self, "scoped_session"):
            self.remove_session()
        self.engine.dispose()

    @property
    def signs_every(self) -> int:
        """Seconds between two signs of life of a trial."""
        assert self.heartbeat_interval is not None
        return int(self.heartbeat_interval)

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Call until the database answers; ``LedgerAwayError`` where it has not within the patience."""
        return waiting_for_database(call, self.patience, self._note_failure)

    def _note_failure(self) -> None:
        self.failed = time.monotonic()

    def _set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: optuna.distributions.BaseDistribution, previous: object = None
    ) -> None:
        """Write a parameter of a trial that this worker holds, for a twentieth of the time that Optuna's checks of it take."""
        assert inside()
        row = {"trial_id": trial_id, "param_name": name, "param_value": value}
        row["distribution_json"] = optuna.distributions.distribution_to_json(distribution)
        self.scoped_session().execute(sqlalchemy.insert(models.TrialParamModel).values(**row))

    def get_heartbeat_interval(self) -> None:
        """Return None: Optuna's own signs of life would end, with a traceback, when the database is away; see ``Beat``."""


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(optuna.storages.RDBStorage, name)

    @wraps(method)
    def call(self: PatientStorage, *arguments: Any, **options: Any) -> Any:
        if inside():  # the whole transaction is to be done again, not a part
            return method(self, *arguments, **options)
        return self.patiently(lambda: method(self, *arguments, **options))

    return call


for _name in _CALLS:
    setattr(PatientStorage, _name, _patient(_name))


class Beat:
    """Signs of life of a trial, every ``signs_every`` seconds while this is entered, in the database's own time."""

    def __init__(self, storage: PatientStorage, trial_id: int) -> None:
        """Take the storage and the trial's identity in it."""
        self._storage, self._trial_id = storage, trial_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=f"signs of life of {trial_id}", daemon=True)

    def __enter__(self) -> None:
        """Begin; the first sign is given when the trial is taken."""
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        try:
            while not self._ended.wait(self._storage.signs_every):
                try:
                    self._storage.record_heartbeat(self._trial_id)
                except Exception as error:
                    if not is_database_error(error):
                        raise
                    self._storage._note_failure()  # the next sign may come through
        finally:
            self._storage.remove_session()


def waiting_for_database(call: Callable[[], Result], patience: float, failed: Callable[[], None] = lambda: None) -> Result:
    """Call until the database answers; ``failed`` is told each time that it does not.

    Raises ``LedgerAwayError`` where it has not for ``patience`` seconds, and at once where waiting cannot help.
    """
    begun, pause, said = time.monotonic(), FIRST_PAUSE, False
    while True:
        try:
            return call()
        except Exception as error:
            if not is_database_error(error):
                raise
            failed()
            message, waited = database_message(error), time.monotonic() - begun
            if not _may_pass(error):
                raise LedgerAwayError(f"ledger must be a usable database, not fail ({message})") from None
            if waited >= patience:
                again = "the same command goes on"
                raise LedgerAwayError(f"ledger must answer within {patience:g} s, not fail ({message}); {again}") from None
        if waited > SAY_AFTER and not said:
            tqdm.write(f"ledger does not answer ({message}); waiting up to {patience:g} s", file=sys.stderr)
            said = True
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def is_database_error(error: BaseException) -> bool:
    """Whether the database itself, or the layer over it, failed."""
    causes = (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
    return isinstance(error, causes) or isinstance(error.__cause__, causes)


def _may_pass(error: BaseException) -> bool:
    """Whether a failure is of the kind that passes: no connection, a shutdown, a lock held too long; not a full disk."""
    cause = error.__cause__ if isinstance(error.__cause__, sqlalchemy.exc.SQLAlchemyError) else error
    original = getattr(cause, "orig", None) or cause
    if isinstance(original, sqlite3.Error):
        return "locked" in str(original)
    passing = (
        optuna.exceptions.StorageInternalError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.InvalidRequestError,  # what a transaction says after its connection was lost
        sqlalchemy.exc.TimeoutError,
    )
    return isinstance(cause, passing) or bool(getattr(cause, "connection_invalidated", False))


def database_message(error: BaseException) -> str:
    """Return the database's own words, without the statement that failed."""
    original = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return str(original).split("\n")[0]
