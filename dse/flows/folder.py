"""The folder that a flow leaves: written whole beside its place, and put there when all is well."""

from contextlib import AbstractContextManager
from pathlib import Path

from formats.errors import BitatlasError
from hwmodels.files import replaced_folder

#: what tells a folder that a flow has left from others
MARK = "report.json"


def project_folder(path: Path) -> AbstractContextManager[Path]:
    """Return a context in which the folder is filled; ``BitatlasError`` where ``path`` holds what no flow has left."""
    return replaced_folder(path, refuse_others)


def refuse_others(path: Path) -> None:
    """Raise where there are things at ``path`` that no flow has left."""
    if path.exists() and not path.is_dir():
        raise BitatlasError(f"output must be a folder, not a file: {path}")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).is_file():
        others = min(entry.name for entry in path.iterdir())
        raise BitatlasError(f"output folder must be empty or hold an earlier project, not {others}: {path}")
