"""HLS projects made by hls4ml, compiled by g++, give the emulator's answers to the last bit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dse import cli
from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.flows import hls4ml_flow
from dse.flows.hls4ml_project import Settings
from formats import BitatlasError

pytestmark = pytest.mark.flows

MakeExperiment = Callable[[str], Experiment]
Uniform = Callable[..., Assignment]
POWERS = "channel:mse:power_of_two", "tensor:mse:power_of_two"


def exact(outcome: hls4ml_flow.Outcome) -> bool:
    return len(outcome.agreements) == 2 and all(one.equal == one.samples == 200 for one in outcome.agreements)


@pytest.mark.parametrize(
    ("model", "weight", "activation", "interface"),
    [
        ("mlp", "int4", "int4", "io_parallel"),
        ("without biases", "int5", "int6", "io_parallel"),
        ("mlp", "e2m1", "int8_narrow", "io_parallel"),
        ("cnn", "int4", "int8", "io_parallel"),
        ("cnn", "ternary", "int5", "io_stream"),
        ("pooled", "int4", "int3", "io_parallel"),
        ("residual", "pot4", "int4", "io_parallel"),
        ("resnet8", "int4", "int8", "io_parallel"),
        ("resnet8", "e2m1", "int5", "io_stream"),
    ],
)
def test_the_compiled_project_equals_the_emulator_to_the_last_bit(
    model: str, weight: str, activation: str, interface: str, make_experiment: MakeExperiment, uniform: Uniform, tmp_path: Path
) -> None:
    experiment = make_experiment(model)
    assignment = uniform(experiment, f"{weight}:{POWERS[0]}", f"{activation}:{POWERS[1]}")
    outcome = hls4ml_flow.convert(experiment, assignment, Settings(interface=interface), tmp_path / "out", samples=200)
    assert exact(outcome)


def test_the_folder_holds_the_project_and_a_report_of_it(make_experiment: MakeExperiment, uniform: Uniform, tmp_path: Path) -> None:
    experiment, out = make_experiment("mlp"), tmp_path / "out"
    assignment = uniform(experiment, f"int4:{POWERS[0]}", f"int4:{POWERS[1]}")
    settings = Settings(part="xczu7ev-ffvc1156-2-e", reuse_factor=4)
    hls4ml_flow.convert(experiment, assignment, settings, out, samples=20)
    report = json.loads((out / "report.json").read_text())
    assert [layer["layer"] for layer in report["layers"]] == ["1", "3", "4"]
    assert report["layers"][0]["types"]["weight"].startswith("fixed<")
    assert [one["samples"] for one in report["agreement"]] == [20, 20]
    assert report["settings"]["part"] in (out / "project.tcl").read_text()
    assert "| 1 | int4:channel:mse:power_of_two |" in (out / "report.md").read_text()
    assert {entry.name for entry in out.iterdir()} >= {"firmware", "build_prj.tcl", "network.onnx", "report.md"}
    assert str(out) in (out / "hls4ml_config.yml").read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out"]


def test_a_project_takes_the_place_of_an_earlier_one_but_of_nothing_else(
    make_experiment: MakeExperiment, uniform: Uniform, tmp_path: Path
) -> None:
    experiment, out = make_experiment("mlp"), tmp_path / "out"
    assignment = uniform(experiment, f"int4:{POWERS[0]}", f"int4:{POWERS[1]}")
    for _ in range(2):
        hls4ml_flow.convert(experiment, assignment, Settings(), out, samples=0)
    (out / "report.json").unlink()
    with pytest.raises(BitatlasError, match=r"^output folder must be empty or hold an earlier project, not .*: /"):
        hls4ml_flow.convert(experiment, assignment, Settings(), out, samples=0)
    assert (out / "firmware").is_dir()


REFUSALS = (
    (
        "int4:channel:mse",
        "int8:tensor:mse:power_of_two",
        r"scale of weight for hls4ml must be a power of two, not [0-9.]+; nearest: int4:channel:mse:power_of_two \(layer '1'\)",
    ),
    (
        "int4:channel:mse:power_of_two",
        "int8:tensor:mse",
        r"scale of activation for hls4ml must be a power of two, not [0-9.]+; nearest: uint8:tensor:mse:power_of_two \(layer '1'\)",
    ),
    (
        "int4:channel:mse:power_of_two",
        "e2m1:tensor:mse:power_of_two",
        r"activation for hls4ml must be an integer, not ue2m2; nearest: int4:tensor:mse:power_of_two \(layer '1'\)",
    ),
    (
        "post4:channel:mse:power_of_two",
        "int8:tensor:mse:power_of_two",
        r"weight exported by qonnx must be .*, not post4:channel:mse:power_of_two \(layer '1'\); targets that can: codebook",
    ),
)


@pytest.mark.parametrize(("weight", "activation", "message"), REFUSALS)
def test_what_fixed_point_numbers_do_not_hold_is_refused_before_anything_is_written(
    weight: str, activation: str, message: str, make_experiment: MakeExperiment, uniform: Uniform, tmp_path: Path
) -> None:
    experiment = make_experiment("mlp")
    with pytest.raises(BitatlasError, match=f"^{message}$"):
        hls4ml_flow.convert(experiment, uniform(experiment, weight, activation, exact=False), Settings(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_operators_that_do_not_become_hardware_are_named_with_the_layer_before_them(
    vit: Experiment, uniform: Uniform, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    quantizers = f"int4:{POWERS[0]}", f"int8:{POWERS[1]}"
    message = r"^weight for hls4ml must be stored, not computed by the network \(layer 'blocks\.0\.attention\.scores'\)$"
    with pytest.raises(BitatlasError, match=message):
        hls4ml_flow.convert(vit, uniform(vit, *quantizers), Settings(), tmp_path / "out")
    given = ["--model", "mobilenet", "--weights", quantizers[0], "--activations", quantizers[1], "--out", str(tmp_path / "out")]
    assert cli.main(["flow", "hls4ml", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dse: operator of a network for hls4ml must be one of Add, ")
    assert said.endswith("not Clip (behind layer 'stem.0')\n")
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_float_accumulators_cost(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, resnet8: Experiment, uniform: Uniform
) -> None:
    path, out = tmp_path / "assignment.json", tmp_path / "out"
    assignment = uniform(resnet8, f"int4:{POWERS[0]}", f"int8:{POWERS[1]}", exact=False)
    replace(assignment, model="resnet8").write(path)
    assert cli.main(["flow", "hls4ml", "--assignment", str(path), "--out", str(out), "--no-compile"]) == 0
    said = capsys.readouterr().out
    assert "not compiled; input ufixed<8,1>" in said
    assert "for equality to the last bit they must be exact" in said
    assert json.loads((out / "report.json").read_text())["agreement"] == []
