"""Folding a whole network for a target: a rate on a device, or the highest rate within a budget."""

import math
from collections.abc import Sequence
from dataclasses import replace

from formats.errors import BitatlasError, InvalidValueError
from hwmodels.cost import LayerPlan, NotPricedError, require_codes_alone
from hwmodels.fpga import devices, fold_search
from hwmodels.fpga.dataflow import Prices, Stage, accumulator_bits, layer_stages
from hwmodels.fpga.energy import layer_pj
from hwmodels.fpga.fold_search import Design
from hwmodels.fpga.folding import Folding
from hwmodels.fpga.pipeline import LayerDesign, Pipeline, Target


def stages_of(plan: LayerPlan, prices: Prices) -> tuple[Stage, ...]:
    """Return the stages of a layer; ``NotPricedError``, with the layer, for quantizers that no such pipeline computes with."""
    try:
        require_codes_alone(plan)
        if plan.weight.granularity.name not in ("tensor", "channel"):
            raise InvalidValueError(f"weights must share a scale by tensor or channel to be summed as codes, not be {plan.weight}")
        outputs = tuple(dict.fromkeys(output.format for output in plan.outputs))
        return layer_stages(plan.workload, plan.weight.format, plan.activation.format, outputs, prices)
    except InvalidValueError as error:
        raise NotPricedError(str(error), plan.workload.name) from None


def fold(plans: Sequence[LayerPlan], target: Target, prices: Prices) -> Pipeline:
    """Fold a network for a target.

    Where nothing fits, the design is the one of least area at the target's rate (or, without one, at any rate), and says so in
    ``fits``. Raises ``BitatlasError`` for a rate that no resources reach, ``NotPricedError`` for quantizers without a price.
    """
    if not plans:
        raise BitatlasError("a pipeline must have at least one layer, not none")
    by_layer = [stages_of(plan, prices) for plan in plans]
    stages = [stage for of_layer in by_layer for stage in of_layer]
    available = target.device.available
    if target.fps is None:
        found = fold_search.highest_rate(stages, target.allowed, available)
        interval = max(int(stage.cycles.max()) for stage in stages)
    else:
        interval = interval_of(stages, target)
        found = fold_search.least_area(stages, interval, target.allowed, available)
    design = found if found is not None else fold_search.freely(stages, interval, available)
    assert design is not None
    return Pipeline(target=target, layers=_by_layer(plans, by_layer, design), fits=found is not None)


def interval_of(stages: Sequence[Stage], target: Target) -> int:
    """Return the cycles that a sample may take at the target's rate. Raises ``BitatlasError`` where no resources reach it."""
    assert target.fps is not None
    interval = math.floor(target.clock_hz / target.fps * (1 + 1e-12))
    fastest, slowest = fold_search.fastest_interval(stages)
    if interval < fastest:
        raise BitatlasError(
            f"frame rate must be at most {target.clock_hz / fastest:.6g} at {target.clock_hz / 1e6:g} MHz, not {target.fps:g}: "
            f"the {slowest.kind} stage of layer {slowest.layer!r} takes {fastest} cycles for a sample whatever its folding"
        )
    return interval


def _by_layer(plans: Sequence[LayerPlan], by_layer: Sequence[tuple[Stage, ...]], design: Design) -> tuple[LayerDesign, ...]:
    options = iter(design.options)
    made = []
    for plan, stages in zip(plans, by_layer, strict=True):
        built = tuple((stage, next(options)) for stage in stages)
        folding = next(option.folding for stage, option in built if stage.kind == "matrix")
        made.append(LayerDesign(plan=plan, stages=built, energy_pj=_energy(plan, folding)))
    return tuple(made)


def _energy(plan: LayerPlan, folding: Folding) -> float:
    return layer_pj(plan, folding, accumulator_bits(plan.workload, plan.weight.format, plan.activation.format))


def fold_within(plans: Sequence[LayerPlan], target: Target, prices: Prices) -> Pipeline:
    """Fold a network for a target that must be kept.

    Raises ``InfeasibleError`` where nothing fits, naming the resource that binds, the highest rate that fits and the smallest
    device that the rate fits on; ``NotPricedError``, naming the layer, for quantizers without a price.
    """
    try:
        made = fold(plans, target, prices)
    except NotPricedError as unpriced:
        raise NotPricedError(f"{unpriced} (layer {unpriced.layer!r})", unpriced.layer) from None
    if made.fits:
        return made
    stages = [stage for layer in made.layers for stage, _ in layer.stages]
    at = f" at {target.fps:g} frames/s" if target.fps is not None else ""
    interval = interval_of(stages, target) if target.fps is not None else max(int(stage.cycles.max()) for stage in stages)
    error = fold_search.infeasible(
        stages, interval, target.allowed, target.device.available, f"pipeline on {target.device.name}{at}"
    )
    hints = []
    slower = fold_search.highest_rate(stages, target.allowed, target.device.available) if target.fps is not None else None
    if slower is not None:
        hints.append(f"the highest rate that fits is {target.clock_hz / slower.interval:.6g} frames/s")
    other = _device_that_fits(stages, interval, target)
    hints.append(f"the smallest device that it fits on is {other}" if other else "it fits on no device that is known")
    raise fold_search.InfeasibleError(
        f"{error}; {'; '.join(hints)}", resource=error.resource, needed=error.needed, allowed=error.allowed
    )


def _device_that_fits(stages: Sequence[Stage], interval: int, target: Target) -> str | None:
    for name in devices.names():
        other = replace(target, device=devices.get(name), limits={})
        if fold_search.least_area(stages, interval, other.allowed, other.device.available) is not None:
            return name
    return None
