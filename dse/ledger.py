"""The record of a search: an Optuna study in the search's folder, or in a database that many workers share."""

import contextlib
import fcntl
import json
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from dse import patience, processes
from dse.addresses import file_of, open_storage, shown
from dse.patience import Beat, LedgerAwayError, PatientStorage
from dse.proposals.transactions import together
from dse.settings import Fingerprint
from formats.errors import BitatlasError

Result = TypeVar("Result")
FILE = "ledger.sqlite"
LOCK = ".lock"
#: how often a trial is begun again whose worker was lost
RETRIES = 3
#: seconds that a worker which ends tries to give its trial back
GIVE_BACK = 5.0
#: user attributes: of the study what it is of and how to go on with it, of a trial who works on it and how often it was lost
FINGERPRINT, SETTINGS = "fingerprint", "settings"
WORKER, LOST = "worker", "lost"


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
    """Trials of one search.

    A trial waits, is taken by one worker, and finishes; a trial that is given back, or whose worker was lost, waits again under
    the same number. Each of these is one transaction of the database, and no two of one study run at once.
    """

    def __init__(self, study: optuna.Study) -> None:
        """Take a study in a ``PatientStorage``."""
        self.study = study
        storage: PatientStorage = getattr(study._storage, "_backend")  # noqa: B009 - Optuna keeps it behind a cache
        self._storage = storage
        self._signature = {"host": socket.gethostname(), **processes.this(), "token": uuid.uuid4().hex}
        #: by trial, since when it has been seen without signs of life
        self._silent: dict[int, float] = {}
        storage.patience = patience.PATIENCE

    def close(self) -> None:
        """Close the connections; the last one to an SQLite file leaves nothing beside it."""
        self._storage.close()

    @staticmethod
    def begin(
        where: Path | str, name: str, fingerprint: Fingerprint, directions: Sequence[Literal["minimize", "maximize"]], settings: str
    ) -> "Ledger":
        """Open the study called ``name``, or begin it with what workers need to know; another search's is refused, saying why."""
        where = file_of(where)
        new = isinstance(where, Path) and not where.exists()
        try:
            study = _made(open_storage(where), name, directions, new=new)
        except Exception as error:
            if new and isinstance(where, Path):
                _remove(where)
            if isinstance(error, LedgerAwayError):
                raise BitatlasError(f"{error}: {shown(where)}") from None
            if isinstance(error, ValueError):  # optuna: other directions than the study has
                raise BitatlasError(_refusal(where, [str(error)])) from None
            raise
        ledger = Ledger(study)
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
        where = file_of(where)
        if isinstance(where, Path) and not where.exists():
            raise BitatlasError(f"ledger must exist before a worker joins it, not be missing: {where}")
        storage = open_storage(where)
        try:
            names = optuna.get_all_study_names(storage)
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise BitatlasError(f"study must be one of the ledger's ({known}), not {name!r}: {shown(where)}")
            return Ledger(optuna.load_study(study_name=name, storage=storage))
        except BaseException:
            storage.close()
            raise

    @property
    def settings(self) -> str:
        """The settings of the search, as TOML; ``BitatlasError`` where the study is no search, or one that has not begun."""
        attributes = self.study.user_attrs
        if SETTINGS not in attributes:
            raise BitatlasError("study must hold the settings of a search, not lack them: run dse search on it first")
        return str(attributes[SETTINGS])

    def check(self, fingerprint: Fingerprint, where: Path | str) -> None:
        """Refuse to go on with a search of something else, saying what differs."""
        earlier = Fingerprint(parts=json.loads(self.study.user_attrs[FINGERPRINT]))
        differences = fingerprint.differences(earlier)
        if differences:
            raise BitatlasError(_refusal(where, differences))

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Call, again where the database went away meanwhile."""
        return self._storage.patiently(call)

    def together(self, call: Callable[[], Result]) -> Result:
        """Call in one transaction, again where the database went away meanwhile; see ``dse.proposals.transactions``."""
        return self.patiently(lambda: together(self.study, call))

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers but those that were given up."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that were measured, in full or until they were dropped, in the order of their numbers."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def take(
        self, wanted: int, sampler: Callable[[int], optuna.samplers.BaseSampler], *, in_turn: bool = False
    ) -> optuna.Trial | None:
        """Take the next trial, the first that waits or a new one; None where ``wanted`` are finished or worked on.

        ``sampler`` makes the sampler of a trial from how many trials there are before it. ``in_turn`` begins no new trial, and
        returns None, while another has not said what it tries: it may be about to let others wait that come first.
        """

        def take() -> optuna.Trial | None:
            trials = self.trials()
            begun = [trial for trial in trials if trial.state != TrialState.WAITING]
            silent = any(trial.state == TrialState.RUNNING and not trial.params for trial in begun)
            if len(begun) >= wanted or (in_turn and silent and len(begun) == len(trials)):
                return None
            self.study.sampler = sampler(len(begun))
            trial = self.study.ask()
            trial.set_user_attr(WORKER, self._signature)
            self._storage.record_heartbeat(trial._trial_id)
            return trial

        return self.together(take)

    def beating(self, trial: optuna.Trial) -> Beat:
        """Return what gives signs of life of a trial while it is entered."""
        return Beat(self._storage, trial._trial_id)

    def write(self, trial: optuna.Trial, call: Callable[[], Result]) -> Result | None:
        """Call, in one transaction, what writes to a trial; None, and no call, where it counted as lost and was taken over."""
        return self.together(lambda: call() if self._is_ours(self.study._storage.get_trial(trial._trial_id)) else None)

    def set_params(
        self, trial: optuna.Trial, params: Mapping[str, str], distributions: Mapping[str, CategoricalDistribution]
    ) -> None:
        """Write the parameters of a trial, in a call of ``write``.

        Not by the trial, whose own copy remembers what was written though the transaction may have to be done again, nor by
        Optuna's cache, which is made anew then.
        """
        for name, value in params.items():
            choice = distributions[name]
            self._storage._set_trial_param(trial._trial_id, name, choice.to_internal_repr(value), choice)

    def finish(self, trial: optuna.Trial, write: Callable[[], None], values: Sequence[float] | None) -> None:
        """Finish a trial by ``write``, which adds attributes, with its values, or with None if it was dropped.

        Where it counted as lost, and was taken over, nothing is written: another worker measures the same.
        """

        def finish() -> None:
            write()
            self.study.tell(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)

        self.write(trial, finish)

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
            if ours or trial._trial_id in silent or processes.has_ended(trial.user_attrs.get(WORKER, {})):
                self._put_back(trial._trial_id, lost=not ours, worker=trial.user_attrs.get(WORKER))

    def _long_silent(self, running: Sequence[FrozenTrial]) -> set[int]:
        stale = set(self._storage._get_stale_trial_ids(self.study._study_id))
        stale |= {trial._trial_id for trial in running if WORKER not in trial.user_attrs}
        now, enough = time.monotonic(), 2 * self._storage.signs_every
        self._silent = {trial: self._silent.get(trial, now) for trial in stale}
        return {trial for trial, since in self._silent.items() if now - max(since, self._storage.failed) > enough}

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


def _made(storage: PatientStorage, name: str, directions: Sequence[Literal["minimize", "maximize"]], *, new: bool) -> optuna.Study:
    try:
        return optuna.create_study(storage=storage, study_name=name, directions=list(directions), load_if_exists=not new)
    except BaseException:
        storage.close()
        raise


def _refusal(where: Path | str, differences: Sequence[str]) -> str:
    place = where.parent if isinstance(where, Path) else shown(where)
    return f"search in {place} must go on as it began, not with changes ({'; '.join(differences)}); use another --out"


def _remove(path: Path) -> None:
    for leftover in (path, *(path.with_name(path.name + ending) for ending in ("-journal", "-wal", "-shm"))):
        leftover.unlink(missing_ok=True)
