"""What a report says of where its figures came from: command, versions, machine, day."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("bitatlas", "numpy", "numba", "torch", "optuna", "onnx", "onnxruntime")


def lines(command: str) -> str:
    """Return Markdown that names the command, the versions, the machine and the day."""
    return f"Made by `{command}` on {day()} ({machine()}; {versions()}).\n"


def versions() -> str:
    """Return the versions of this program and of the packages that figures depend on."""
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def machine() -> str:
    """Return the processor's architecture, the cores that this process may use, and the version of Python."""
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def day() -> str:
    """Return today's date in coordinated universal time."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def command_line(arguments: list[str] | None = None) -> str:
    """Return the command that ``dse`` was called by, as one would type it; empty where this process is not ``dse``'s.

    ``arguments`` are those of ``sys.argv`` unless given.
    """
    given = sys.argv if arguments is None else arguments
    called = Path(given[0]) if given else Path()
    if called.name != "dse" and called.parts[-2:] != ("dse", "cli.py"):
        return ""
    return shlex.join(["dse", *given[1:]])
