"""Files written whole or not at all, and the one folder where results are kept between runs."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from formats.errors import BitatlasError


def cache_directory() -> Path:
    """Return the folder of results kept between runs: ``$BITATLAS_CACHE``, else ``$XDG_CACHE_HOME/bitatlas``."""
    named = os.environ.get("BITATLAS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitatlas"


@contextlib.contextmanager
def replaced(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, renamed onto it on success and removed on any failure.

    A reader therefore sees the old file or the new one, never a part of either.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        # the temporary file keeps the ending, by which many writers choose what they write
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; a result is as readable as any other file
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or ".partial" in str(error.filename):  # the user knows the file by its own name
            error.filename = str(path)
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(path: Path, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a folder beside ``path`` that takes its place if all goes well, and is removed if not.

    ``refuse`` raises for a folder that is there and must not be replaced; a file is refused here, by ``BitatlasError``.
    """
    path = path.absolute()

    def check() -> None:
        if path.exists() and not path.is_dir():
            raise BitatlasError(f"output must be a folder, not a file: {path}")
        if path.exists():
            refuse(path)

    check()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as made:
        folder, old = Path(made) / "new", Path(made) / "old"
        folder.mkdir()
        yield folder
        check()  # it may have come meanwhile
        if path.exists():
            path.rename(old)
        shutil.move(folder, path)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
