"""Files written whole or not at all, and the one folder where results are kept between runs."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


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


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
