"""A layer fully unrolled: its weights are constants wired into a graph of adders, and every clock cycle takes in a whole vector.

A convolution runs the same graph for each output position, so a sample takes ``vectors`` cycles; groups of a convolution have a
graph each, side by side. What a layer holds:

- adders: ``hwmodels.fpga.adder_graph`` of the weights in LSBs of their format, registers after every few levels and at the outputs
- decoders, for activations that are not binary numbers already: a truth table for each input, from code to fixed point
- the sliding window of a convolution, all channels and all pixels at once: line buffers and registers (``window_memory``)
- a requantizer for each output channel; its parameters are constants too

Scales are no part of it: they are the requantizers', which is why weights must share one by tensor or by channel.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.cost import CostModel, LayerPlan, Metric, NetworkFigures, NotPricedError, require_codes_alone
from hwmodels.finn_formula import operand
from hwmodels.fpga import folding
from hwmodels.fpga.constant_matrix import decoder, graphs
from hwmodels.fpga.dataflow import ROOT_ADDITIONS
from hwmodels.fpga.devices import Usage
from hwmodels.fpga.memory import LUT_DEPTH, memory
from hwmodels.fpga.pipeline import share_needed
from hwmodels.fpga.unit_cost import KINDS, RequantizerPrice, UnitCost
from hwmodels.workload import LayerWorkload

#: adders between two registers: an assumption of this project, as the clocks of ``devices`` are
LEVELS = 2
#: weight codes of a plan's layer in the plan's format, output channels as the first axis
Codes = Callable[[LayerPlan], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """What the arithmetic of an unrolled layer comes to."""

    #: of the adders, by da4ml's count
    adder_lut: float
    decoder_lut: int
    #: of the registers between and after adders
    flip_flops: int
    adders: int
    #: adders on the longest way
    depth: int
    #: clock cycles from a vector to its sums
    stages: int
    #: width of the widest sum, for the weights at hand
    output_bits: int


_known: dict[str, Unrolled] = {}


def unrolled_layer(
    workload: LayerWorkload, weight: Format, activation: Format, codes: NDArray[Any], *, levels: int = LEVELS
) -> Unrolled:
    """Return the cost of a layer's arithmetic, from memory where these weights were asked for before.

    ``codes`` has output channels as its first axis. Raises ``ValueError`` for operands that are no fixed-point numbers of at most
    31 bits, ``MissingPackageError`` without da4ml.
    """
    shape = workload.convolution
    groups = 1 if shape is None else shape.groups
    told = f"{weight.name} {activation.name} {groups} {workload.dot_length} {levels} {codes.dtype} {codes.shape} "
    key = hashlib.sha256(told.encode() + np.ascontiguousarray(codes).tobytes()).hexdigest()
    if key not in _known:
        made = graphs(workload, weight, activation, codes)
        arriving = workload.dot_length if shape is None else shape.input_channels
        _known[key] = Unrolled(
            adder_lut=sum(graph.lut for graph in made),
            decoder_lut=arriving * decoder(activation)[0],
            flip_flops=sum(graph.flip_flops(levels) for graph in made),
            adders=sum(graph.adders for graph in made),
            depth=max(graph.depth for graph in made),
            stages=max(graph.stages(levels) for graph in made),
            output_bits=max(graph.output_bits for graph in made),
        )
    return _known[key]


def window(workload: LayerWorkload, activation: Format) -> Usage:
    """Return what the window of a convolution takes: nothing for a pointwise one.

    Line buffers are LUTs up to 64 words, block RAMs beyond. Windows over three axes are kept in line buffers like those over two.
    """
    shape = workload.convolution
    if shape is None or shape.pointwise:
        return Usage()
    bits = decoder(activation)[1]
    number, width, depth = folding.window_memory(shape, shape.input_channels, bits, parallel=True)
    line = memory("lutram" if depth <= LUT_DEPTH else "bram", width, depth, written=True)
    registers = Usage(flip_flops=math.prod(shape.kernel) * width)
    return Usage(*(number * amount for amount in line)).plus(registers)


def cycles(workload: LayerWorkload) -> int:
    """Cycles from one sample to the next: vectors, or the pixels that the window must take in."""
    shape = workload.convolution
    if shape is None or shape.pointwise:
        return workload.vectors
    return max(workload.vectors, folding.window_cycles(shape, shape.input_channels, parallel=True))


def requantizers(channels: int, bits: int, output: Format, price: RequantizerPrice, *, root: bool) -> Usage:
    """Return what a requantizer for each of ``channels`` sums of ``bits`` takes: the kind of fewest LUTs, without DSPs.

    With ``root`` a sum is an even and an odd one, which are joined first.
    """
    lanes: list[UnitCost] = []
    for kind in KINDS:
        try:
            lanes.append(price(max(bits, 1), output, kind=kind, dsp=False))
        except NotPricedError:
            continue  # this kind does not lead to the format
    if not lanes:
        raise NotPricedError(f"output format must be one that a requantizer is priced for, not {output.name}")
    lane = min(lanes, key=lambda each: each.lut)
    joined = ROOT_ADDITIONS * bits if root else 0
    return Usage(lut=channels * (lane.lut + joined), flip_flops=channels * lane.flip_flops)


def unrolled(codes: Codes, requantizer: RequantizerPrice, *, clock_mhz: float, levels: int = LEVELS) -> CostModel:
    """Return the cost model of a network whose layers are all unrolled.

    ``codes`` gives the weight codes of a plan's layer, output channels as the first axis, of the plan's own format.
    """
    if not 0 < clock_mhz < math.inf:
        raise InvalidValueError(f"clock must be a number above 0, not {clock_mhz:g}")
    what = f"unrolled, weights constant, a register after every {levels} adders"
    return CostModel(
        name="unrolled",
        metrics=(
            Metric(name="lut", unit="LUT", summary=f"{what}: adder bits by da4ml, decoders, windows and requantizers"),
            Metric(name="flip_flops", unit="FF", summary=f"{what}: registers of adders, windows and requantizers"),
            Metric(name="bram", unit="BRAM18", summary=f"{what}: line buffers of windows"),
            Metric(name="adder_lut", unit="LUT", summary=f"{what}: adder bits alone"),
            Metric(name="depth", unit="adders", summary=f"{what}: adders on the longest way", total="none"),
            Metric(name="cycles", unit="cycles", summary="clock cycles from one sample to the next", total="none"),
            Metric(
                name="fps", unit="1/s", summary="clock over the cycles of the slowest layer", total="network", direction="maximize"
            ),
            Metric(name="latency_us", unit="us", summary="time of one sample through the pipeline", total="network"),
        ),
        figures=partial(_figures, codes=codes, requantizer=requantizer, clock_hz=clock_mhz * 1e6, levels=levels),
        separable=False,
    )


def _figures(
    plans: Sequence[LayerPlan], codes: Codes, requantizer: RequantizerPrice, clock_hz: float, levels: int
) -> NetworkFigures:
    layers, filled, slowest = [], 0, 1
    for plan in plans:
        try:
            figures, stages = _layer(plan, codes, requantizer, levels)
        except InvalidValueError as error:
            raise NotPricedError(str(error), plan.workload.name) from None
        filled += math.ceil(share_needed(plan.workload) * slowest) + stages
        slowest = max(slowest, cycles(plan.workload))
        layers.append(figures)
    network = {"fps": clock_hz / slowest, "latency_us": (filled + slowest) / clock_hz * 1e6}
    at = next(plan.workload.name for plan in plans if cycles(plan.workload) == slowest)
    return NetworkFigures(layers=tuple(layers), network=network, remarks={"bottleneck": f"{at} ({slowest} cycles)"})


def _layer(plan: LayerPlan, codes: Codes, requantizer: RequantizerPrice, levels: int) -> tuple[Mapping[str, float], int]:
    """Return a layer's figures, and its clock cycles from a vector to its sums."""
    require_codes_alone(plan)
    if plan.weight.granularity.name not in ("tensor", "channel"):
        raise InvalidValueError(
            f"weights must share a scale by tensor or channel to be summed as codes, not by {plan.weight.granularity}"
        )
    weight, activation, workload = plan.weight.format, plan.activation.format, plan.workload
    arithmetic = unrolled_layer(workload, weight, activation, codes(plan), levels=levels)
    usage, bits = window(workload, activation), arithmetic.output_bits
    root = operand(weight.name).root or operand(activation.name).root
    for output in dict.fromkeys(output.format for output in plan.outputs):
        usage = usage.plus(requantizers(workload.output_channels, bits, output, requantizer, root=root))
    figures = {
        "lut": arithmetic.adder_lut + arithmetic.decoder_lut + usage.lut,
        "flip_flops": arithmetic.flip_flops + usage.flip_flops,
        "bram": usage.bram,
        "adder_lut": arithmetic.adder_lut,
        "depth": arithmetic.depth,
        "cycles": cycles(workload),
    }
    return figures, arithmetic.stages
