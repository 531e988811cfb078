"""What a report says of where its figures came from."""

import os
import platform
import resource
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

PACKAGES = ("bitatlas", "numpy", "numba", "torch", "optuna", "onnx", "onnxruntime")


def peak_memory_mebibytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lines(command: str) -> str:
    """Return Markdown that names the command, the versions, the machine and the day."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    return f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d} ({machine}; {versions}).\n"


def markdown(frame: pd.DataFrame) -> str:
    """Return a table in Markdown, floats to six digits."""

    def cell(value: object) -> str:
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    body = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    rows = [list(frame.columns), ["---"] * len(frame.columns), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
