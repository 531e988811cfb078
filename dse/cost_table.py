"""Costs as tables by layer, and in a few lines below."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.network import ROLES
from dse.objectives import header
from formats.errors import InvalidValueError
from formats.quantizer import QuantizedTensor
from hwmodels import cost
from hwmodels.cost import Cost, CostModel, LayerPlan
from hwmodels.fpga import prices
from hwmodels.fpga.devices import LABELS, RESOURCES
from hwmodels.fpga.pipeline import LayerDesign, Pipeline, Target


def text(frame: pd.DataFrame) -> str:
    """Return a table as text; of many given scales only how many they are."""
    frame = frame.assign(**{role: frame[role].map(_without_scales) for role in ROLES if role in frame})
    return frame.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.10g}")


def _without_scales(quantizer: object) -> object:
    def count(match: re.Match[str]) -> str:
        return f":at({match[0].count(',') + 1} scales)"

    return re.sub(r":at[^:]*,[^:]*", count, quantizer) if isinstance(quantizer, str) else quantizer


def figures(found: Cost, assignment: Assignment, models: Sequence[CostModel]) -> pd.DataFrame:
    """Return the figures of cost models: a row for each layer, and one for the network."""
    headers = _headers(found, models)
    rows = [
        {"layer": name, "weight": str(layer.weight), "activation": str(layer.activation)}
        | {headers[metric]: value for metric, value in found.layers[name].items()}
        for name, layer in assignment.layers.items()
    ]
    total = {"layer": "total", "weight": "", "activation": ""} | {headers[name]: value for name, value in found.total.items()}
    return pd.DataFrame([*rows, total])


def notes(found: Cost, models: Sequence[CostModel]) -> list[str]:
    """Return what each column counts and what the models remark, a line each."""
    headers = _headers(found, models)
    counted = [f"{headers[metric.name]}: {metric.summary}" for metric in found.metrics]
    return [*counted, *(f"{name}: {remark}" for name, remark in found.remarks.items())]


def _headers(found: Cost, models: Sequence[CostModel]) -> dict[str, str]:
    names = {metric.name: model.name for model in models for metric in model.metrics}
    return {metric.name: header(metric.name, metric.unit, names[metric.name]) for metric in found.metrics}


def unrolled(experiment: Experiment, assignment: Assignment, target: Target) -> tuple[pd.DataFrame, list[str]]:
    """Return table and lines of a network whose layers are all unrolled, at the clock of the target's device."""
    from hwmodels.fpga.unrolled import unrolled as unrolled_model

    if target.fps is not None or target.budget != 1:
        raise InvalidValueError("--fps and --budget must be left out with --style unrolled, which has nothing to fold")

    preparation = experiment.preparation.after(assignment.steps)

    def codes(plan: LayerPlan) -> NDArray[Any]:
        name = plan.workload.name
        if preparation.network.layer(name).weight is None:
            raise InvalidValueError("a layer must have stored weights to be unrolled, not two activations")
        encoded = preparation.stored_weights({name: assignment.layers[name]})[name].encoded
        if not isinstance(encoded, QuantizedTensor):
            raise InvalidValueError(f"weights must be of a single format and scale by tensor or channel, not of {plan.weight}")
        return encoded.codes

    model = unrolled_model(codes, prices.DEFAULT.requantizer, clock_mhz=target.clock_hz / 1e6)
    found = cost.evaluate([model], experiment.plans(assignment))
    device, total = target.device, found.total
    have = {"lut": device.lut, "flip_flops": device.flip_flops, "bram": device.available.bram}
    shares = ", ".join(f"{LABELS[name]} {total[name] / amount:.1%}" for name, amount in have.items())
    line = f"{device.name} ({device.part}, {device.family}) at {target.clock_hz / 1e6:g} MHz; taken of it: {shares}"
    return figures(found, assignment, [model]), [line, *notes(found, [model])]


def table(pipeline: Pipeline) -> pd.DataFrame:
    """Return a folded pipeline: a row for each layer, one for the total and one for the total as a share of the device."""
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
