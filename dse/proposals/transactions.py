"""Real transactions for Optuna's storage on SQLite, so that two workers never take one waiting trial.

Optuna reads a trial's state, then sets it, in one transaction, and relies on the row being locked in between. Python's sqlite3
begins a transaction only at the first write: on SQLite two workers can both read "waiting". Beginning every transaction at once,
and alone, closes the gap (https://docs.sqlalchemy.org/en/20/dialects/sqlite.html, on transactions with sqlite3).
"""

from typing import Any

import optuna
import sqlalchemy


def serialised(storage: optuna.storages.RDBStorage) -> optuna.storages.RDBStorage:
    """Return the storage, its transactions on SQLite begun at once and one at a time; on other databases, as it is.

    To be called before the storage is used.
    """
    if storage.engine.dialect.name == "sqlite":
        sqlalchemy.event.listen(storage.engine, "connect", _leave_transactions_to_us)
        sqlalchemy.event.listen(storage.engine, "begin", _begin_alone)
        storage.engine.dispose()  # connections that are open already would go on as they were
    return storage


def _leave_transactions_to_us(connection: Any, record: object) -> None:
    connection.isolation_level = None


def _begin_alone(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
