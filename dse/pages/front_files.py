"""Every point of the front as an assignment file, from which it can be measured, priced and exported."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dse.search import Evaluated

FOLDER = "front"


def name(number: int) -> str:
    """Return the file of a trial's assignment within the search's folder."""
    return f"{FOLDER}/{number:03d}.json"


def export_command(folder: Path, number: int, data_dir: str | None = None) -> str:
    """Return the command that exports a point of the front."""
    given = ["dse", "export", "--assignment", str(folder / name(number)), "--out", f"model-{number:03d}.onnx"]
    return shlex.join(given + (["--data-dir", data_dir] if data_dir else []))


@dataclass(kw_only=True)
class FrontFiles:
    """Keeps the files of the front's points; each is written whole or not at all, those of points that left are removed."""

    folder: Path
    _written: dict[str, Evaluated] = field(default_factory=dict)

    def write(self, points: Sequence[Evaluated]) -> None:
        """Write the points that are new."""
        for point in points:
            if self._written.get(name(point.number)) != point:
                replace(point.assignment, figures=dict(point.figures)).write(self.folder / name(point.number))
                self._written[name(point.number)] = point

    def remove_others(self, points: Sequence[Evaluated]) -> None:
        """Remove the files of trials that are not among these points, whoever wrote them."""
        kept = {name(point.number) for point in points}
        for path in (self.folder / FOLDER).glob("*.json"):
            if re.fullmatch(r"\d{3,}", path.stem) and f"{FOLDER}/{path.name}" not in kept:
                path.unlink(missing_ok=True)
                self._written.pop(f"{FOLDER}/{path.name}", None)
