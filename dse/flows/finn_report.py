"""What a run of ``dse flow finn`` leaves to read: ``report.md`` for people, ``report.json`` for programs."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dse import provenance
from dse.flows.finn_environment import FINN
from dse.flows.folder import MARK
from dse.markdown import escaped_table

if TYPE_CHECKING:
    from dse.flows.finn_flow import Outcome

RESOURCES = ("LUT", "BRAM_18K", "URAM", "DSP")
_THROUGHPUT, _SLOWEST, _LATENCY = "estimated_throughput_fps", "max_cycles_node_name", "critical_path_cycles"


def write(outcome: "Outcome", folder: Path) -> None:
    """Write both reports."""
    (folder / MARK).write_text(json.dumps(content(outcome), indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(page(outcome), encoding="utf-8")


def content(outcome: "Outcome") -> dict[str, Any]:
    """Return everything that the reports say, as data."""
    settings, prepared = outcome.settings, outcome.prepared
    return {
        "command": provenance.command_line(),
        "model": outcome.assignment.model,
        "data": outcome.assignment.data,
        "assignment": outcome.assignment.digest,
        "settings": {
            "device": settings.device.name,
            "part": settings.device.part,
            "clock_mhz": settings.clock_mhz,
            "fps": settings.fps,
        },
        "versions": {"finn": FINN, **{name: version(name) for name in ("bitatlas", "qonnx", "onnx")}},
        "input": {"type": prepared.input_type or "FLOAT32", "scale": prepared.input_scale},
        "layers": {
            name: {"weight": str(layer.weight), "activation": str(layer.activation), "accumulator": layer.accumulator}
            for name, layer in outcome.assignment.layers.items()
        },
        "nodes": [dict(node) for node in outcome.nodes],
        "performance": dict(outcome.performance),
        "totals": totals(outcome),
        "agreement": asdict(outcome.agreement),
    }


def totals(outcome: "Outcome") -> dict[str, float]:
    """Return the sums of what FINN estimates of the nodes."""
    return {name: sum(float(node["resources"].get(name, 0)) for node in outcome.nodes) for name in RESOURCES}


def page(outcome: "Outcome") -> str:
    """Return the report in Markdown."""
    table = pd.DataFrame(
        [
            {
                "node": node["name"],
                "kind": node["type"],
                "layer": node["layer"],
                "weights": node["attributes"].get("weightDataType", ""),
                "inputs": node["attributes"].get("inputDataType", ""),
                "accumulator": node["attributes"].get("accDataType", ""),
                "PE": node["attributes"].get("PE", ""),
                "SIMD": node["attributes"].get("SIMD", ""),
                "cycles": node["cycles"] if node["cycles"] is not None else "",
                **{name: node["resources"].get(name, "") for name in RESOURCES},
            }
            for node in outcome.nodes
        ]
    )
    lines = [
        f"# {outcome.assignment.model} on {outcome.assignment.data} for FINN",
        "",
        summary(outcome),
        "",
        "## Nodes",
        "",
        "Resources are FINN's own estimates; it gives no LUTs for units that it has as RTL.",
        "",
        escaped_table(table),
        "",
        f"FINN's own reports and its folding are in `build`, the network that it was given in `network.onnx` ({FINN}).",
        "",
    ]
    command = provenance.command_line()
    return "\n".join([*lines, provenance.lines(command)] if command else lines)


def summary(outcome: "Outcome") -> str:
    """Return what was found in a few lines."""
    settings, performance, found = outcome.settings, outcome.performance, totals(outcome)
    matrices = sum(bool(node["layer"]) for node in outcome.nodes)
    given = outcome.prepared
    codes = f"codes of {given.input_type}, each worth {given.input_scale:g}" if given.input_type else "float32"
    lines = [
        f"{settings.device.part} at {settings.clock_mhz:g} MHz; input: {codes}",
        f"all {matrices} layers are matrix units in FINN, {len(outcome.nodes)} nodes in all",
        f"frames a second: {performance[_THROUGHPUT]:.6g}, slowest node {performance[_SLOWEST]}, latency "
        f"{performance[_LATENCY]} cycles at most",
        "estimated: " + ", ".join(f"{name} {amount:g}" for name, amount in found.items()),
        f"FINN's streamlined network, run by qonnx, against the emulator: {outcome.agreement}",
    ]
    if not all(layer.whole_numbers for layer in outcome.assignment.layers.values()):
        lines.append(
            "accumulators that are float32 leave biases between the steps of sums: for equality to the last bit they must be exact"
        )
    return "  \n".join(lines)
