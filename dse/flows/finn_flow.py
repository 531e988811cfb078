"""``dse flow finn``: an assignment through FINN's estimate-only steps, every layer checked to become hardware."""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import runtime, targets
from dse.export.runtime import Agreement
from dse.flows import finn_conditions, finn_environment, finn_graph
from dse.flows.finn_graph import Prepared
from dse.flows.finn_steps import digest
from dse.flows.folder import project_folder, refuse_others
from dse.flows.hls4ml_conditions import fillings_of
from dse.network import Fillings, Network
from dse.opening import open_assignment
from dse.quantize import ActivationQuantizer, StoredWeight
from formats.errors import BitatlasError, require
from hwmodels.fpga import devices
from hwmodels.fpga.devices import Device

EXPORTED, BUILD = "network.onnx", "build"
DEVICE = "zu7ev"
SAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What FINN estimates for."""

    device: Device
    clock_mhz: float
    #: frames a second to fold for; without, nothing is folded
    fps: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What FINN made of an assignment."""

    experiment: Experiment
    assignment: Assignment
    settings: Settings
    prepared: Prepared
    #: nodes of the pipeline, each with the layer that it is, attributes, cycles and resources
    nodes: tuple[Mapping[str, Any], ...]
    performance: Mapping[str, Any]
    #: FINN's streamlined network, run by qonnx, against the emulator
    agreement: Agreement


def run(options: argparse.Namespace) -> None:
    """Leave the build folder that the options ask for, with its report."""
    from dse.flows import finn_report

    device = devices.get(options.device)
    clock = options.clock if options.clock is not None else device.clock_mhz
    refuse_others(options.out)
    require("qonnx", "dse flow finn", extra="flows")
    python = options.python or found_python()
    experiment, assignment = open_assignment(options)
    settings = Settings(device=device, clock_mhz=clock, fps=options.fps)
    outcome = build(experiment, assignment, settings, python, options.out)
    print(finn_report.summary(outcome))
    print(f"wrote {options.out}")


def found_python() -> Path:
    """Return the Python of FINN's environment in the cache folder; raise where there is none."""
    folder = finn_environment.default_folder()
    found = finn_environment.ready(folder)
    if found is None:
        raise BitatlasError(
            f"FINN must be installed in an environment of its own, not missing in {folder}: {finn_environment.COMMAND} makes one, "
            "or give --python"
        )
    return found


def build(experiment: Experiment, assignment: Assignment, settings: Settings, python: Path, out: Path) -> Outcome:
    """Run FINN's steps and leave its reports, the network and ours in ``out``.

    Raises ``BitatlasError`` naming the layer: before FINN is started for what it cannot take, after it for what stays in software.
    """
    from dse.flows import finn_report

    network, fillings = fillings_of(experiment.preparation, assignment)
    finn_conditions.check_quantizers(network, assignment, fillings)
    prepared = finn_graph.prepare(targets.export(experiment, assignment, ("qonnx",)), fillings)
    finn_conditions.check_operators(prepared.model, network)
    images = experiment.split("validation").images[:SAMPLES]
    with project_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        onnx.save(prepared.model, folder / EXPORTED)
        np.save(Path(scratch) / "samples.npy", _given(prepared, network, fillings, images))
        request = {
            "model": str(folder / EXPORTED),
            "folder": str(folder / BUILD),
            "fps": settings.fps,
            "part": settings.device.part,
            "clock_ns": 1000 / settings.clock_mhz,
            "style": "auto",
            "layers": _digests(network, fillings),
            "samples": str(Path(scratch) / "samples.npy"),
        }
        reply = finn_environment.run_steps(python, [request], Path(scratch))[0]
        _refuse_failure(reply)
        nodes = tuple(reply["nodes"])
        _refuse_missing(network, nodes)
        outputs = np.load(reply["outputs"])
        outcome = Outcome(
            experiment=experiment,
            assignment=assignment,
            settings=settings,
            prepared=prepared,
            nodes=nodes,
            performance=reply["performance"],
            agreement=runtime.compare(outputs, quantized_logits(experiment.preparation, assignment, images)),
        )
        Path(reply["outputs"]).unlink()
        finn_report.write(outcome, folder)
    return outcome


def _given(prepared: Prepared, network: Network, fillings: Fillings, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the prepared network takes for images: the values of their codes, in its input's shape."""
    shape = [dim.dim_value for dim in prepared.model.graph.input[0].type.tensor_type.shape.dim]
    values = images.reshape(len(images), *shape[1:])
    if prepared.input_scale is None:
        return values
    first = next(layer.name for layer in network.layers if layer.operands["activation"].producer is None)
    quantizer = fillings[first, "activation"]
    assert isinstance(quantizer, ActivationQuantizer)
    return quantizer.format.decode(quantizer.format.encode(values, quantizer.scale))


def _digests(network: Network, fillings: Fillings) -> dict[str, str]:
    found = {}
    for layer in network.layers:
        weight = fillings[layer.name, "weight"]
        assert isinstance(weight, StoredWeight)
        found[layer.name] = digest(finn_conditions.whole_weights(weight))
    return found


def _refuse_failure(reply: Mapping[str, Any]) -> None:
    if "failed" not in reply:
        return
    left = reply["software"]
    named = "; ".join(f"{node['type']} {node['name']} {_where(node)}" for node in left[:5]) or "no node is named"
    raise BitatlasError(
        f"every operator must become hardware in FINN, not stay in software at {reply['failed']} ({reply['message']}): {named}"
    )


def _where(node: Mapping[str, str]) -> str:
    if node["layer"]:
        return f"(layer {node['layer']!r})"
    return f"(behind layer {node['after']!r})" if node["after"] else "(before the first layer)"


def _refuse_missing(network: Network, nodes: tuple[Mapping[str, Any], ...]) -> None:
    """Raise where a layer has no matrix unit."""
    there = {node["layer"] for node in nodes if str(node["type"]).startswith(("MVAU", "VVAU"))}
    for layer in network.layers:
        if layer.name not in there:
            raise BitatlasError(f"every layer must become a matrix unit in FINN, not be missing (layer {layer.name!r})")
