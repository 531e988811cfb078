"""Objectives on GPUs, by the device's name after an @."""

from pathlib import Path

import pytest

from dse.cli import main
from dse.gpus import models, named
from dse.objectives import Bound, available
from formats import InvalidValueError, UnknownNameError


def test_devices_are_named_after_an_at_sign() -> None:
    assert named(("kl", "latency_us@h100", "energy_uj@l4<=3", "latency_us@h100>=1")) == ("h100", "l4")


def test_each_device_has_time_and_energy_as_objectives() -> None:
    objectives = available(models(["h100", "a100"], batch=8))
    assert {"latency_us@h100", "energy_uj@h100", "latency_us@a100", "energy_uj@a100"} <= set(objectives)
    bound = Bound.parse("latency_us@h100<=2.5", objectives)
    assert str(bound) == "latency_us@h100<=2.5"
    assert bound.objective.unit == "us"


def test_unknown_devices_and_empty_batches_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"^GPU must be a known name, not 'h1000'; nearest: h100"):
        models(["h1000"])
    with pytest.raises(InvalidValueError, match=r"^--batch must be at least 1, not 0$"):
        models([], 0)


def test_a_search_may_minimise_time_on_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "resnet8", "--formats", "int4,int8", "--trials", "6", "--batch", "64", "--out", str(tmp_path / "run")]
    assert main(["search", *options, "--objectives", "kl,latency_us@h100", "--constraint", "latency_us@h100<=9"]) == 0
    assert "latency_us@h100" in (tmp_path / "run" / "front.csv").read_text().splitlines()[0]
    assert "roofline only" in (tmp_path / "run" / "report.md").read_text()
    capsys.readouterr()


def test_evaluation_prints_time_on_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["evaluate", "--model", "resnet8", "--weights", "int4", "--activations", "int8", "--gpu", "l4", "--batch", "2"]) == 0
    )
    assert "matrix products of 2 samples on NVIDIA L4 24GB, one after the other: roofline only" in capsys.readouterr().out
