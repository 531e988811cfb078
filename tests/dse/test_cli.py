"""The command line as a user meets it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dse.cli import COMMANDS, main
from dse.data import Dataset
from dse.data.fashion_mnist import DEBIAN_FOLDER
from hwmodels.fpga.synthesis import calibration
from hwmodels.fpga.synthesis.calibration import Pair
from hwmodels.fpga.synthesis.table import Table
from hwmodels.fpga.synthesis.table import read as shipped_table

UNIFORM = ["--model", "resnet8", "--weights", "int4", "--activations", "e2m1"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with one line, and return the line."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 1
    assert lines[0].startswith("dse: ")
    return lines[0].removeprefix("dse: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: dse {command}" in capsys.readouterr().out


def test_evaluate_prints_figures_and_costs_by_layer_and_saves_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *UNIFORM, "--csv", str(tmp_path / "t.csv"), "--save", str(tmp_path / "a.json")]) == 0
    first = capsys.readouterr().out
    assert "accuracy [share]: 0.9" in first
    assert "KL to float32 [nat]: 0." in first
    table = pd.read_csv(tmp_path / "t.csv").set_index("layer")
    layers = table.drop(index="total")
    for metric in ("weight_bits [bit, storage]", "bops [bit operation, widths]", "lut [LUT, finn-formula]"):
        assert table.loc["total", metric] == pytest.approx(layers[metric].sum())
    assert table.loc["stem", "weight_bits [bit, storage]"] == 108 * 4
    assert main(["evaluate", "--assignment", str(tmp_path / "a.json")]) == 0
    assert capsys.readouterr().out == first


def test_an_edited_assignment_runs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", *UNIFORM, "--save", str(tmp_path / "a.json")])
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace("int4:channel:mse", "int8", 1))
    capsys.readouterr()
    assert main(["evaluate", "--assignment", str(tmp_path / "a.json")]) == 0
    assert "int8:channel:mse" in capsys.readouterr().out


def test_export_writes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *UNIFORM, "--out", str(tmp_path / "m.onnx")]) == 0
    assert "onnxruntime against the emulator on validation: predictions equal on " in capsys.readouterr().out
    assert (tmp_path / "m.onnx").stat().st_size > 10_000


def test_cost_prints_a_pipeline_by_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = ["--device", "zynq7020", "--fps", "20000"]
    assert main(["cost", *UNIFORM, *device, "--csv", str(tmp_path / "c.csv")]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "c.csv").set_index("layer")
    layers = table.drop(index=["total", "share of zynq7020"])
    for resource, available in (("LUT", 53200), ("FF", 106400), ("DSP", 220), ("BRAM18", 280)):
        assert table.loc["total", resource] == layers[resource].sum() <= available
        assert table.loc["share of zynq7020", resource] == pytest.approx(table.loc["total", resource] / available)
    assert table.loc["total", "cycles"] == layers["cycles"].max() <= 5000
    assert layers["cycles"].idxmax() in re.findall(r"^bottleneck: (\S+) ", said, re.MULTILINE)
    assert set(layers["origin"]) <= {"synthesised", "extrapolated", "predicted"}
    assert f"fps [1/s]: {100e6 / layers['cycles'].max():.6g}" in said
    for line in ("latency [us]: ", "energy [pJ]: ", "binding resource: LUT, ", "zynq7020 (xc7z020, Zynq-7000) at 100 MHz; "):
        assert f"\n{line}" in said


def test_cost_takes_an_assignment_and_a_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", *UNIFORM, "--save", str(tmp_path / "a.json")])
    capsys.readouterr()
    options = ["--device", "zu3eg", "--budget", "0.3", "--clock", "150"]
    assert main(["cost", "--assignment", str(tmp_path / "a.json"), *options]) == 0
    from_file = capsys.readouterr().out
    assert main(["cost", *UNIFORM, *options]) == 0
    assert capsys.readouterr().out == from_file
    assert "at 150 MHz" in from_file


def test_cost_of_unrolled_layers_is_da4mls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "zu7ev", "--style", "unrolled", "--csv", str(tmp_path / "c.csv")]
    assert main(["cost", *UNIFORM, *options]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "c.csv").set_index("layer")
    lut = table["lut [LUT, unrolled]"]
    assert lut["total"] == lut.drop("total").sum()
    assert (lut >= table["adder_lut [LUT, unrolled]"]).all()
    assert f"taken of it: LUT {lut['total'] / 230400:.1%}, " in said
    assert "\nbottleneck: stem (" in said


def test_calibrate_asks_for_the_pairs_that_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def calibrate(path: Path, pairs: list[Pair], **options: Any) -> Table:
        asked.update(path=path, pairs=pairs, **options)
        return Table(tool="yosys", rows=shipped_table().rows)

    monkeypatch.setattr(calibration, "calibrate", calibrate)
    out = ["--out", str(tmp_path / "mac.csv"), "--jobs", "1"]
    assert main(["calibrate", "fpga", "--weights", "int9, nf4", "--activations", "int4", *out]) == 0
    assert [(pair.weight, pair.activation) for pair in asked["pairs"]] == [("int9", "int4"), ("nf4", "int4")]
    assert asked["path"] == tmp_path / "mac.csv"
    assert (asked["known"], asked["jobs"]) == (None, 1)
    assert main(["calibrate", "fpga"]) == 0
    assert asked["pairs"] == calibration.shipped_pairs()
    assert asked["known"].rows.equals(shipped_table().rows)


def test_evaluate_costs_a_device_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *UNIFORM, "--device", "zu7ev", "--fps", "1000"]) == 0
    said = capsys.readouterr().out
    assert "lut [LUT, dataflow on zu7ev]" in said
    assert "\nbinding resource: LUT, " in said
    assert "finn-formula" not in said


def test_formats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["formats"])
    assert "e{E}m{M}" in capsys.readouterr().out.split()
    main(["formats", "ternary"])
    assert capsys.readouterr().out.split("\n")[1:5] == ["0x0  0", "0x1  1", "0x2  unused", "0x3  -1"]


def test_models_are_listed_with_their_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    assert "test_accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--model", "resnet8"], "--assignment FILE must be given, or both --weights and --activations"),
        (["evaluate", "--weights", "int4", "--activations", "int4"], "--model must be given where the assignment file names none"),
        (["evaluate", *UNIFORM, "--data", "digit"], "data set must be a known name, not 'digit'; nearest: digits"),
        (["evaluate", *UNIFORM, "--cycles", "0"], "cycles and lanes must be at least 1, not 0 and 8"),
        (["evaluate", "--assignment", "/none.json"], "file must be readable, not fail (No such file or directory): /none.json"),
        (["export", *UNIFORM, "--out", "/proc/m.onnx"], "file must be usable, not fail (No such file or directory): /proc/m.onnx"),
        (["cost", *UNIFORM, "--device", "zu7eg"], "device must be a known name, not 'zu7eg'; nearest: zu9eg, zu7ev, zu3eg"),
        (["cost", *UNIFORM, "--device", "zu7ev", "--fps", "-1"], "frame rate must be a number above 0, not -1"),
        (["cost", *UNIFORM, "--device", "zu7ev", "--budget", "70"], "budget must be a share of the device, above 0 and at most 1"),
        (
            ["cost", *UNIFORM, "--device", "zu7ev", "--style", "unrolled", "--fps", "100"],
            "--fps and --budget must be left out with --style unrolled, which has nothing to fold",
        ),
        (
            ["cost", "--model", "vit", "--weights", "int4", "--activations", "int4", "--device", "zu7ev", "--style", "unrolled"],
            "a layer must have stored weights to be unrolled, not two activations (cost model 'unrolled', layer 'blocks.0.",
        ),
        (["calibrate", "fpga", "--weights", "int4", "--activations", "e2m"], "format must be a known name, not 'e2m'"),
        (
            ["calibrate", "fpga", "--weights", "float8_e5m2", "--activations", "int4", "--out", "none/mac.csv"],
            "format of a generated unit must have finite codes alone, not codes of NaN or Inf as float8_e5m2 has",
        ),
        (["evaluate", *UNIFORM, "--fps", "100"], "--device must be given with --fps, not left out"),
        (
            ["cost", *UNIFORM, "--device", "zynq7020", "--fps", "900000"],
            "pipeline on zynq7020 at 900000 frames/s must fit in 53200 LUT, not need ",
        ),
        (
            ["cost", "--model", "resnet8", "--weights", "mxfp4", "--activations", "int8", "--device", "zu7ev"],
            "weights must share a scale by tensor or channel to be summed as codes, not be mxfp4:block:absmax (layer 'stem')",
        ),
        (["formats", "e2m"], "format must be a known name, not 'e2m'"),
        (["formats", "int9"], "a format's codes are listed up to 8 bits, not for 9"),
        (["search", "--model", "resnet8", "--out", ""], "an argument must have a value, not be empty"),
        (["evaluate", *UNIFORM, "--assignment", "a.json"], "--assignment must be given alone, not with --weights"),
        (["search", "--model", "resnet8"], "--out must be given, by flag or in the --config file"),
        (
            ["search", "--model", "resnet8", "--out", "o", "--formats", ","],
            "formats must be at least one for weights and for activations",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(arguments, capsys).startswith(message)


def test_search_takes_a_data_dir(tmp_path: Path, fashion_mnist: Dataset) -> None:
    folder = os.environ.get("FASHION_MNIST_DIR", str(DEBIAN_FOLDER))
    options = ["--formats", "int8", "--trials", "1", "--out", str(tmp_path / "out")]
    assert main(["search", "--model", "vit", "--data", "fashion-mnist", "--data-dir", folder, *options]) == 0
    assert fashion_mnist.name in (tmp_path / "out" / "search.toml").read_text()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device", "m.onnx")

    monkeypatch.setattr("onnx.save", full)
    assert refused(["export", *UNIFORM, "--out", str(tmp_path / "m.onnx")], capsys) == "disk must have room, not be full: m.onnx"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "import sys; from dse.cli import main; sys.exit(main(['formats', 'int8']))"
    found = subprocess.run(f'{sys.executable} -c "{code}" | head -1', shell=True, capture_output=True, text=True, check=True)
    assert found.stderr == ""


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dse.commands.list_formats", broken)
    with pytest.raises(ZeroDivisionError):
        main(["formats"])
