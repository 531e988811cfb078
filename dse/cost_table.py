"""A folded pipeline as a table by layer, and in a few lines."""

import pandas as pd

from hwmodels.fpga.devices import LABELS, RESOURCES
from hwmodels.fpga.pipeline import LayerDesign, Pipeline


def table(pipeline: Pipeline) -> pd.DataFrame:
    """Return a row for each layer, one for the total and one for the total as a share of the device."""
    rows = [_row(layer) for layer in pipeline.layers]
    total = {"layer": "total", "cycles": pipeline.bottleneck.cycles, **_amounts(pipeline.usage._asdict())}
    available = pipeline.target.device.available._asdict()
    shares = {name: used / available[name] if available[name] else None for name, used in pipeline.usage._asdict().items()}
    share = {"layer": f"share of {pipeline.target.device.name}", **_amounts(shares)}
    total["energy [pJ]"] = pipeline.energy_pj
    return pd.DataFrame([*rows, total, share]).astype(dict.fromkeys(("PE", "SIMD", "cycles"), "Int64"))


def _row(layer: LayerDesign) -> dict[str, object]:
    matrix, (slowest, _) = layer.matrix, layer.slowest
    requantizers = [option for stage, option in layer.stages if stage.kind == "requantizer"]
    return {
        "layer": layer.plan.workload.name,
        "weight": str(layer.plan.weight),
        "activation": str(layer.plan.activation),
        "PE": matrix.folding.pe,
        "SIMD": matrix.folding.simd,
        "cycles": layer.cycles,
        "slowest stage": slowest.kind,
        **_amounts(layer.usage._asdict()),
        "energy [pJ]": layer.energy_pj,
        "weights in": matrix.memory,
        "recipe": matrix.recipe,
        "origin": matrix.origin,
        "requantizer": ", ".join(f"{option.recipe} ({option.origin})" for option in requantizers),
    }


def _amounts(amounts: dict[str, float | None]) -> dict[str, object]:
    return {LABELS[name]: amounts[name] for name in RESOURCES}


def summary(pipeline: Pipeline) -> list[str]:
    """Return the figures of the pipeline as a whole, and where its assumptions come from, a line each."""
    target = pipeline.target
    device = target.device
    return [
        f"{device.name} ({device.part}, {device.family}) at {target.clock_hz / 1e6:g} MHz; resources by {device.source}",
        f"fps [1/s]: {pipeline.fps:.6g}",
        f"latency [us]: {pipeline.latency_us:.6g}",
        f"energy [pJ]: {pipeline.energy_pj:.6g}, by 45 nm energies of operations and reads: a model across formats",
        *(f"{name}: {remark}" for name, remark in pipeline.remarks.items()),
        "origin: of the multiply-accumulate units; buffers, weights and control are by formula",
    ]
