"""``dse import-onnx``, and other subcommands on an ONNX file."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from dse.cli import main
from dse.experiment import Experiment
from dse.export import targets


@pytest.fixture
def model(resnet8: Experiment, tmp_path: Path) -> Path:
    """Resnet8 in 4 and 8 bits as QDQ."""
    path = tmp_path / "model.onnx"
    from dse.assignment import parse_quantizer
    from dse.export.checked import export_checked

    given = resnet8.preparation.uniform(
        "resnet8", "digits", parse_quantizer("int4", "weight"), parse_quantizer("int8", "activation")
    )
    export_checked(resnet8, given, path, targets.DEFAULT)
    return path


def test_an_import_prints_and_writes_what_can_be_run_again(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-onnx", str(model), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "int4:channel:at(12 scales)" in printed
    assert "onnxruntime against the imported assignment: predictions equal on 300 of 300 samples" in printed
    table = pd.read_csv(tmp_path / "out" / "layers.csv").set_index("layer")
    layers = table.drop(index="total")
    assert table.loc["total", "MACs"] == layers["MACs"].sum() == 431328
    assert set(layers["kind"]) == {"convolution", "linear"}
    assert table.loc["total", "weight_bits [bit, storage]"] == layers["weights"].sum() * 4
    written = json.loads((tmp_path / "out" / "assignment.json").read_text())
    assert written["layers"]["stem"]["weight"].startswith("int4:channel:at0.")
    assert main(["evaluate", "--assignment", str(tmp_path / "out" / "assignment.json")]) == 0
    assert f"accuracy [share]: {written['figures']['accuracy']:.4f}" in capsys.readouterr().out


def test_an_onnx_file_is_a_model_to_search(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--formats", "int4,int8", "--trials", "3", "--sampler", "random", "--out", str(tmp_path / "out")]
    assert main(["search", "--model", str(model), "--data", "digits", *options]) == 0
    chosen = json.loads((tmp_path / "out" / "chosen.json").read_text())
    assert chosen["model"] == str(model)


def test_a_float_model_is_one_too(exported: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    path = exported(
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)), opset_version=17
    )
    assert main(["evaluate", "--model", str(path), "--weights", "int8", "--activations", "int8"]) == 0
    assert "KL to float32" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_text("no model")
    assert main(["import-onnx", str(tmp_path / "model.onnx")]) == 2
    message = "dse: file must be a whole ONNX model, not another kind of file or one cut short"
    assert capsys.readouterr().err.strip() == f"{message}: {tmp_path / 'model.onnx'}"
