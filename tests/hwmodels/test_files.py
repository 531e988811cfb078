import errno
from pathlib import Path

import pytest

from hwmodels.files import cache_directory, replaced, write_text


def test_a_file_is_written_whole_and_readable(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "β")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "β"
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o444


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def write() -> None:
        with replaced(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "no room")

    with pytest.raises(OSError, match="no room"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_cache_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITATLAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_directory() == Path("/x/bitatlas")
    monkeypatch.setenv("BITATLAS_CACHE", "/y")
    assert cache_directory() == Path("/y")
