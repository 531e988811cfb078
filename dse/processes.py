"""Telling one process from every other, and whether it has ended."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def this() -> dict[str, str | int]:
    """Return what tells this process from every other: processes are numbered anew in each container and after each start."""
    return {"machine": _machine(), "process": os.getpid(), "started": _started(os.getpid())}


@cache
def _machine() -> str:
    """Return where numbers of processes mean the same: a start of a system, and a name space of it; empty where unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def has_ended(worker: Mapping[str, Any]) -> bool:
    """Whether a worker was a process of this machine that is no more; False where that cannot be known."""
    here = worker.get("machine") == _machine() != ""
    return here and _started(int(worker["process"])) != worker["started"]


def _started(process: int) -> str:
    """Return when a process of this machine was started, in clock ticks since boot; empty where it has ended: numbers recur."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # ended, and not looked at by what started it
    except (OSError, IndexError):
        return ""
