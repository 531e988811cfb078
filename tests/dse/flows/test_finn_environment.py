"""FINN's environment, and how it is asked; FINN itself runs in ``test_finn_flow``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dse.flows import finn_environment
from dse.flows.finn_environment import FINN, environment, ready, run_steps
from formats import BitatlasError

FOLDER = Path(finn_environment.__file__).parent


def test_a_folder_of_something_else_is_not_made_an_environment(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    message = "^FINN's folder must be a virtual environment, a folder to be made or an empty one, not "
    with pytest.raises(BitatlasError, match=message):
        environment(tmp_path)


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    assert ready(tmp_path) is None
    (tmp_path / "finished").write_text(FINN)
    assert environment(tmp_path) == ready(tmp_path) == tmp_path / "bin" / "python"


def test_a_failure_of_finn_is_reported_with_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "finn_steps.py").write_text("import sys; sys.exit('much said before\\nno such operator')")
    monkeypatch.setattr(finn_environment, "_HERE", tmp_path)
    with pytest.raises(BitatlasError, match=r"^FINN's steps must run in its environment, not fail \(no such operator\): "):
        run_steps(Path(sys.executable), [], tmp_path)
    with pytest.raises(BitatlasError, match=r"^FINN's Python must be a program, not fail \(No such file or directory\): "):
        run_steps(tmp_path / "python", [], tmp_path)


def test_requests_and_replies_are_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "finn_steps.py").write_text("import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])")
    monkeypatch.setattr(finn_environment, "_HERE", tmp_path)
    assert run_steps(Path(sys.executable), [{"model": "a.onnx", "fps": 1}], tmp_path) == [{"model": "a.onnx", "fps": 1}]


def test_the_steps_need_nothing_of_this_project() -> None:
    """They run where it is not installed: nothing beyond the standard library is imported before FINN is."""
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); print(sorted({'formats', 'dse', 'numpy', 'torch'} & set(sys.modules)))"
    command = [sys.executable, "-P", "-c", code, str(FOLDER / "finn_steps.py")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.replace("'", '"')) == []


def test_every_requirement_has_an_exact_version() -> None:
    lines = [line for line in (FOLDER / "finn_requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(line.count("==") == 1 and "finn" not in line for line in lines), "FINN is installed without what it asks for"
