"""Every point of the front is a file, and no other is left behind."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from dse.pages.front_files import FrontFiles, export_command
from dse.search import Evaluated

MakeTrial = Callable[..., Evaluated]


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "front").iterdir()}


def test_points_that_leave_the_front_leave_the_folder(tmp_path: Path, make_trial: MakeTrial) -> None:
    first, second, later = (make_trial(number, "int4/int4", 0.1, 10) for number in (0, 7, 1234))
    files = FrontFiles(folder=tmp_path)
    files.write([first, second])
    (tmp_path / "front" / "own.json").write_text("the user's")
    assert names(tmp_path) == {"000.json", "007.json", "own.json"}
    files.write([second, later])
    assert names(tmp_path) == {"000.json", "007.json", "1234.json", "own.json"}  # none is missing before the tables follow
    files.remove_others([second, later])
    assert names(tmp_path) == {"007.json", "1234.json", "own.json"}
    FrontFiles(folder=tmp_path).remove_others([later])  # another run clears up too
    assert names(tmp_path) == {"1234.json", "own.json"}


def test_a_file_holds_the_assignment_and_its_figures_and_is_written_once(tmp_path: Path, make_trial: MakeTrial) -> None:
    files, path = FrontFiles(folder=tmp_path), tmp_path / "front" / "005.json"
    files.write([make_trial(5, {"conv": "int4/uint8/gptq"}, 0.25, 10)])
    written, content = path.stat().st_ino, json.loads(path.read_text())
    assert content["figures"] == {"accuracy": 0.75, "kl": 0.25, "lut": 10}
    assert content["layers"]["conv"]["steps"] == ["gptq"]
    files.write([make_trial(5, {"conv": "int4/uint8/gptq"}, 0.25, 10)])
    assert path.stat().st_ino == written
    files.write([make_trial(5, {"conv": "int8/uint8"}, 0.125, 20)])  # another worker's trial has taken the number
    assert json.loads(path.read_text())["figures"]["kl"] == 0.125


def test_the_command_survives_any_folder() -> None:
    words = shlex.split(export_command(Path("/tmp/it's a\tfolder"), 7, "/data dir"))
    assert words == [
        *("dse", "export", "--assignment", "/tmp/it's a\tfolder/front/007.json"),
        *("--out", "model-007.onnx", "--data-dir", "/data dir"),
    ]
