"""``dse export``: from an assignment's file to a checked file of ONNX, or to none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from dse.assignment import Assignment
from dse.cli import main
from dse.experiment import Experiment
from dse.export import checked, runtime
from formats import BitatlasError


@pytest.fixture
def file(resnet8: Experiment, mixed: Callable[[Experiment], Assignment], tmp_path: Path) -> Path:
    mixed(resnet8).write(tmp_path / "mixed.json")
    return tmp_path / "mixed.json"


def export(file: Path, target: str, out: Path) -> int:
    subject = ["--model", "resnet8", "--data", "digits"]
    return main(["export", "--assignment", str(file), *subject, "--target", target, "--out", str(out)])


@pytest.mark.parametrize("target", ["qdq,codebook", "codebook"])
def test_the_file_is_run_against_the_emulator(file: Path, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.onnx"
    assert export(file, target, out) == 0
    assert "onnxruntime against the emulator on validation: predictions equal on 300 of 300" in capsys.readouterr().out
    properties = {item.key: item.value for item in onnx.load(out).metadata_props}
    assert properties["bitatlas.targets"] == target


def test_a_file_that_onnxruntime_does_not_run_is_written_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "resnet8", "--weights", "e2m1", "--activations", "int8", "--target", "fp4,qdq"]
    assert main(["export", *arguments, "--out", str(tmp_path / "m.onnx")]) == 0
    assert "not run: onnxruntime has no kernels for FLOAT4E2M1" in capsys.readouterr().out
    assert onnx.load(tmp_path / "m.onnx").graph.node


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("qdq", "(layer 'block1.conv1'); targets that can: "),
        ("onnx", "target must be a known name, not 'onnx'; nearest: qonnx"),
        ("integer,qdq", "target integer must be given alone, not with qdq"),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(
    file: Path, target: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(file, target, tmp_path / "m.onnx") == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mixed.json"]


def test_a_model_that_answers_otherwise_leaves_no_file(
    resnet8: Experiment, uniform: Callable[..., Assignment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: Path, images: np.ndarray) -> np.ndarray:
        assert model.parent == tmp_path
        return np.zeros((len(images), 10), np.float32)

    monkeypatch.setattr(runtime, "run", wrong)
    with pytest.raises(BitatlasError, match="predictions of the exported model must differ on at most"):
        checked.export_checked(resnet8, uniform(resnet8, "int8", "int8"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_help_says_what_each_target_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    printed = capsys.readouterr().out
    assert all(f"{name}:" in printed for name in ("qdq", "qonnx", "codebook", "fp4"))
    assert "integer, alone:" in printed
