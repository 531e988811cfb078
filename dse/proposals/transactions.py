"""Real transactions for Optuna's storage, and several of its steps in one.

Optuna reads a trial's state, then sets it, in one transaction, and relies on the row being locked in between. Python's sqlite3
begins a transaction only at the first write: on SQLite two workers can both read "waiting". Beginning every transaction at once,
and alone, closes the gap (https://docs.sqlalchemy.org/en/20/dialects/sqlite.html, on transactions with sqlite3).

A worker that dies, or loses the database, between two steps must leave neither half done; nor may another worker come in between.
``together`` makes one transaction of them, which holds the study's row as Optuna does when it makes a trial.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import optuna
import sqlalchemy
from sqlalchemy import orm

Result = TypeVar("Result")
_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)


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


def inside() -> bool:
    """Whether this thread is in a call of ``together``."""
    return _INSIDE.get()


def together(study: optuna.Study, call: Callable[[], Result]) -> Result:
    """Call in one transaction that no other of the study's runs beside; without a database, just call.

    What the study is told in the call comes to pass as a whole or, where something raises, not at all.
    """
    storage = getattr(study._storage, "_backend", None)
    if inside() or not isinstance(storage, optuna.storages.RDBStorage):
        return call()
    storage.remove_session()
    token = _INSIDE.set(True)
    try:
        with storage.engine.begin() as connection:
            if connection.dialect.name != "sqlite":
                connection.execute(
                    sqlalchemy.text("SELECT 1 FROM studies WHERE study_id = :id FOR UPDATE"), {"id": study._study_id}
                )
            storage.scoped_session.registry.set(orm.Session(bind=connection, join_transaction_mode="rollback_only"))
            done = call()
            if not connection.in_transaction():  # a step failed, and Optuna let it pass
                raise optuna.exceptions.StorageInternalError("a step of a transaction failed")
        return done
    except BaseException:
        study._storage = optuna.storages.get_storage(storage)  # the old one's cache may hold what did not come to pass
        raise
    finally:
        _INSIDE.reset(token)
        storage.remove_session()
