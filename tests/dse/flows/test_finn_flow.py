"""Pipelines made by finn-plus, in its own environment: every layer a matrix unit, the streamlined network equal to the emulator."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.flows import finn_environment, finn_flow
from hwmodels.fpga import devices

pytestmark = pytest.mark.flows

SETTINGS = finn_flow.Settings(device=devices.get("zu7ev"), clock_mhz=200, fps=20_000)


@pytest.fixture(scope="session")
def python() -> Path:
    """FINN's Python: that in $FINN_PYTHON, or the one in the user's cache folder."""
    if "FINN_PYTHON" in os.environ:
        return Path(os.environ["FINN_PYTHON"])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BITATLAS_CACHE", raising=False)
        found = finn_environment.ready(finn_environment.default_folder())
    if found is None:
        pytest.skip(f"needs FINN's environment: {finn_environment.COMMAND} makes one")
    return found


@pytest.mark.parametrize(
    ("name", "weight", "activation"),
    [
        ("mlp", "int4:channel:mse:power_of_two", "int4:tensor:mse:power_of_two"),
        ("mlp", "ternary:tensor:mse", "int3"),
        ("finn_cnn", "int4:channel:mse:power_of_two", "int4:tensor:mse:power_of_two"),
        ("finn_cnn", "int2_narrow", "int6"),
    ],
)
def test_every_layer_becomes_hardware_that_gives_the_emulators_answers(
    name: str,
    weight: str,
    activation: str,
    python: Path,
    make_experiment: Callable[[str], Experiment],
    uniform: Callable[..., Assignment],
    tmp_path: Path,
) -> None:
    experiment = make_experiment(name)
    assignment = uniform(experiment, weight, activation)
    outcome = finn_flow.build(experiment, assignment, SETTINGS, python, tmp_path / "out")
    matrices = {node["layer"]: node for node in outcome.nodes if node["layer"]}
    assert set(matrices) == set(assignment.layers)
    assert outcome.agreement.equal == outcome.agreement.samples
    if "power_of_two" in weight:
        assert outcome.agreement.largest_difference == 0
    assert outcome.performance["estimated_throughput_fps"] >= SETTINGS.fps
    layers = experiment.preparation.network.layers
    for layer in layers:
        counts = matrices[layer.name]["counts"]
        assert sum(int(n) for key, n in counts.items() if key.startswith("op_mac")) == layer.workload.macs
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["totals"]["LUT"] > 0
    assert (tmp_path / "out" / "build" / "report" / "estimate_layer_cycles.json").is_file()
    assert (tmp_path / "out" / "build" / "report" / "auto_folding_config.json").is_file()
    assert "| layer |" in (tmp_path / "out" / "report.md").read_text()
