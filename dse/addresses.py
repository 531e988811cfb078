"""Where a search's database is: an SQLite file for the workers of one machine, PostgreSQL for those of many."""

import contextlib
import sqlite3
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy.pool import QueuePool

from dse.patience import PatientStorage, database_message, is_database_error
from dse.proposals.transactions import serialised
from formats.errors import BitatlasError, MissingPackageError

#: seconds between a worker's signs of life, and without one until another may take its trial over
HEARTBEAT, GRACE = 5, 30
#: seconds until a connection that cannot be made is given up
CONNECT = 10
#: a server that vanished without a word is noticed within half a minute
KEEPALIVES = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
_POSTGRESQL = "postgresql+psycopg"
_SCHEMES = ("postgresql", "postgres", _POSTGRESQL)


def open_storage(where: Path | str) -> PatientStorage:
    """Open a database: an SQLite file by its path, or any by its URL.

    Raises ``BitatlasError`` where it cannot be used, ``MissingPackageError`` where the driver of PostgreSQL is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would warn, with statements and all, of what is tried again
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
    while True:
        attempts -= 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = PatientStorage(url, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
                serialised(storage)
                return storage
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not attempts:  # else another worker made the tables meanwhile
                raise
            time.sleep(0.2)


def _unusable(where: Path | str, error: BaseException) -> str:
    return f"ledger must be a usable database, not fail ({database_message(error)}): {shown(where)}"


def file_of(where: Path | str) -> Path | str:
    """Return the path of an SQLite file that is given by its URL; anything else as it is."""
    if isinstance(where, str) and where.startswith("sqlite:///") and where != "sqlite:///":
        return Path(where.removeprefix("sqlite:///"))
    return where


def _address(where: Path | str) -> tuple[str, dict[str, Any]]:
    where = file_of(where)
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
            connection = {"connect_timeout": CONNECT, "options": "-c timezone=UTC", **KEEPALIVES}
            escaped = url.replace("{", "{{").replace("}", "}}")  # optuna formats it
            return escaped, {"pool_pre_ping": True, "connect_args": connection}
    raise BitatlasError(f"ledger must be at postgresql://USER@HOST/DATABASE or sqlite:///FILE, not at {shown(where)}")


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
