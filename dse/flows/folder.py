"""The folder that a flow leaves: written whole beside its place, and put there when all is well."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from formats.errors import BitatlasError

#: what tells a folder that a flow has left from others
MARK = "report.json"


@contextmanager
def project_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that takes its place if all goes well, and is removed if not.

    Raises ``BitatlasError`` where there is anything at ``path`` but an empty folder or one that a flow left.
    """
    path = path.absolute()
    refuse_others(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as made:
        folder, old = Path(made) / "new", Path(made) / "old"
        folder.mkdir()
        yield folder
        refuse_others(path)
        if path.exists():
            path.rename(old)
        shutil.move(folder, path)


def refuse_others(path: Path) -> None:
    """Raise where there are things at ``path`` that no flow has left."""
    if path.exists() and not path.is_dir():
        raise BitatlasError(f"output must be a folder, not a file: {path}")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).is_file():
        others = min(entry.name for entry in path.iterdir())
        raise BitatlasError(f"output folder must be empty or hold an earlier project, not {others}: {path}")
