"""What a run of ``dse flow hls4ml`` leaves to read: ``report.md`` for people, ``report.json`` for programs."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dse import provenance
from dse.flows.folder import MARK
from dse.flows.hls4ml_graph import identifier
from dse.flows.hls4ml_project import Types
from dse.markdown import escaped_table

if TYPE_CHECKING:
    from dse.flows.hls4ml_flow import Outcome

NEXT_STEPS = {
    "Vitis": "vitis-run --mode hls --tcl build_prj.tcl",
    "Vivado": "vivado_hls -f build_prj.tcl",
    "Catapult": "catapult -shell -f build_prj.tcl",
    "Quartus": "make network-fpga && ./network-fpga",
}


def write(outcome: "Outcome", folder: Path) -> None:
    """Write both reports."""
    (folder / MARK).write_text(json.dumps(content(outcome), indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(page(outcome), encoding="utf-8")


def content(outcome: "Outcome") -> dict[str, Any]:
    """Return everything that the reports say, as data."""
    assignment = outcome.assignment
    layers = {operator.name: operator for operator in outcome.operators}
    return {
        "command": provenance.command_line(),
        "model": assignment.model,
        "data": assignment.data,
        "assignment": assignment.digest,
        "settings": asdict(outcome.settings),
        "versions": {name: version(name) for name in ("bitatlas", "hls4ml", "qonnx", "onnx")},
        "input": str(outcome.input),
        "layers": [
            {
                "layer": name,
                "weight": str(chosen.weight),
                "activation": str(chosen.activation),
                "accumulator": chosen.accumulator,
                "hardware": _of_layer(name, layers).name,
                "types": _of_layer(name, layers).types,
            }
            for name, chosen in assignment.layers.items()
        ],
        "operators": [asdict(operator) for operator in outcome.operators],
        "agreement": [asdict(agreement) for agreement in outcome.agreements],
        "conversion_seconds": round(outcome.conversion_seconds, 3),
        "compilation_seconds": None if outcome.compilation_seconds is None else round(outcome.compilation_seconds, 3),
    }


def _of_layer(name: str, operators: Mapping[str, Types]) -> Types:
    """Return the hardware of a layer: hls4ml puts the kind before the name."""
    return next(operators[word] for word in operators if word.split("_", 1)[-1] == identifier(name) or word == identifier(name))


def page(outcome: "Outcome") -> str:
    """Return the report in Markdown."""
    facts = content(outcome)
    settings = outcome.settings
    layers = pd.DataFrame(
        [
            {
                "layer": one["layer"],
                "weight": one["weight"],
                "activation": one["activation"],
                "accumulator": one["accumulator"],
                "hardware": one["hardware"],
                **{f"{name} type": text for name, text in one["types"].items()},
            }
            for one in facts["layers"]
        ]
    ).fillna("")
    others = pd.DataFrame(
        [
            {"operator": operator.name, "kind": operator.kind, "result type": operator.types.get("result", "")}
            for operator in outcome.operators
            if operator.name not in {one["hardware"] for one in facts["layers"]}
        ]
    )
    lines = [
        f"# {outcome.assignment.model} on {outcome.assignment.data} for hls4ml",
        "",
        f"Backend {settings.backend}, {settings.interface}, part {settings.part or 'as hls4ml chooses'}, reuse factor "
        f"{settings.reuse_factor}. Next: `{NEXT_STEPS[settings.backend]}` in this folder, with the vendor's tools.",
        "",
        summary(outcome),
        "",
        "## Layers",
        "",
        "Types are hls4ml's: `fixed<bits, bits before the point>`, `ufixed` without a sign. Those of sums hold every sum exactly.",
        "",
        escaped_table(layers),
        "",
        "## Other operators",
        "",
        escaped_table(others),
        "",
    ]
    if facts["command"]:
        lines.append(provenance.lines(facts["command"]))
    return "\n".join(lines)


def summary(outcome: "Outcome") -> str:
    """Return what was found, one line for each comparison."""
    seconds = outcome.compilation_seconds
    took = f"converted in {outcome.conversion_seconds:.1f} s, "
    took += "not compiled" if seconds is None else f"compiled in {seconds:.1f} s"
    lines = [f"{took}; input {outcome.input}"]
    for one in outcome.agreements:
        lines.append(
            f"against {one.with_whom}: {one.equal} of {one.samples} samples equal to the last bit, {one.same_class} with the same "
            f"class, largest difference of an output {one.largest_difference:.3g}"
        )
    if not all(layer.whole_numbers for layer in outcome.assignment.layers.values()):
        lines.append(
            "accumulators that are float32 round sums that hardware keeps: for equality to the last bit they must be exact"
        )
    return "  \n".join(lines)
