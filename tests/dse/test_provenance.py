"""A report names its command as one would type it."""

import shlex

import pytest

from dse import provenance, reporting


@pytest.mark.parametrize("program", ["/opt/venv/bin/dse", "/home/me/bitatlas/dse/cli.py"])
def test_a_command_can_be_typed_again(program: str) -> None:
    given = ["search", "--tie", r"^block\d$", "--out", "a b"]
    assert shlex.split(provenance.command_line([program, *given])) == ["dse", *given]


def test_python_code_has_no_command() -> None:
    assert provenance.command_line(["/usr/bin/pytest", "-q"]) == ""
    assert provenance.command_line([]) == ""


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = "postgresql://me:secret@host/base"
    monkeypatch.setattr("sys.argv", ["dse", "search", "--storage", storage, f"--storage={storage}"])
    assert reporting.command(storage) == "dse search --storage postgresql://me@host/base --storage=postgresql://me@host/base"
