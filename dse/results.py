"""Measurements kept between runs, by everything they depend on."""

import hashlib
import json
import sqlite3
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import dse
import formats
import hwmodels
from formats.errors import BitatlasError
from hwmodels.files import cache_directory

LIBRARIES = ("numpy", "numba", "torch")


@lru_cache(maxsize=1)
def code_version() -> str:
    """SHA-256 over the sources and tables of the packages that a figure depends on, and the versions of the libraries below."""
    digest = hashlib.sha256(" ".join(version(library) for library in LIBRARIES).encode())
    for package in (formats, hwmodels, dse):
        folder = Path(str(package.__file__)).parent
        for source in sorted([*folder.rglob("*.py"), *folder.rglob("tables/*.csv")]):
            digest.update(str(source.relative_to(folder)).encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()


def key(*parts: str) -> str:
    """Return the key of a measurement: SHA-256 over what it depends on and the code version."""
    return hashlib.sha256(json.dumps([code_version(), *parts]).encode()).hexdigest()


class ResultStore:
    """Figures by key in one SQLite file, shared by all processes of a user."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or create the file; by default in the cache folder."""
        path = path or cache_directory() / "results.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, figures TEXT NOT NULL)")

    def _execute(self, statement: str, values: tuple[str, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            message = f"cache of results must be a usable SQLite file, not fail ({error}): {self._path}"
            raise BitatlasError(f"{message}; remove it, or set BITATLAS_CACHE to another folder") from None

    def get(self, wanted: str) -> dict[str, float] | None:
        """Return the figures under a key, if there are any."""
        row = self._execute("SELECT figures FROM results WHERE key = ?", (wanted,)).fetchone()
        if row is None:
            return None
        try:
            return {name: float(value) for name, value in json.loads(row[0]).items()}
        except (ValueError, AttributeError, TypeError):
            raise BitatlasError(f"cache of results must hold figures, not {row[0][:40]!r}: {self._path}; remove it") from None

    def put(self, wanted: str, figures: dict[str, float]) -> None:
        """Keep figures under a key."""
        self._execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (wanted, json.dumps(figures)))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
