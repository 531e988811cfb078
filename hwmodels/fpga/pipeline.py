"""A whole network as a dataflow pipeline on a device: what it is folded for, and what it came to.

With the slowest stage's cycles as the interval, the rate is clock / interval. The latency of one sample is taken as

    min(sum of all stages' cycles, interval + sum over layers of (share * upstream + one vector's cycles))

where *share* is the part of its input that a layer must have before its first output (a window's span of pixels; one vector of a
linear layer; all of it for a product, whose second operand must be there) and *upstream* the interval of the slowest layer so
far, over which that input arrives. The first term is FINN's critical path, for layers that wait for all of their input. Layers
are taken in a row: branches that work side by side count one after the other, so this is an upper estimate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from formats.errors import InvalidValueError
from formats.names import unknown_name
from hwmodels.cost import LayerPlan
from hwmodels.fpga import fold_search
from hwmodels.fpga.dataflow import Option, Stage
from hwmodels.fpga.devices import LABELS, RESOURCES, Device, Usage
from hwmodels.fpga.folding import window_span
from hwmodels.workload import LayerWorkload

#: what a longest path beyond a cycle means
PIPELINED = ": registers within units are needed for this clock, and not counted"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a pipeline is folded for: a rate on a device, or the highest rate that its budget allows."""

    device: Device
    #: samples a second; None for the highest rate that fits
    fps: float | None = None
    #: share of every resource of the device that may be taken
    budget: float = 1.0
    #: None for the clock that designs on the device are assumed to reach
    clock_mhz: float | None = None
    #: further limits by resource, below what the budget leaves
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no pipeline can be folded for."""
        for name, value in (("frame rate", self.fps), ("clock", self.clock_mhz)):
            if value is not None and not 0 < value < math.inf:
                raise InvalidValueError(f"{name} must be a number above 0, not {value:g}")
        if not 0 < self.budget <= 1:
            raise InvalidValueError(f"budget must be a share of the device, above 0 and at most 1, not {self.budget:g}")
        for name in self.limits:
            if name not in RESOURCES:
                raise unknown_name("resource", name, RESOURCES)

    @property
    def clock_hz(self) -> float:
        """Clock in Hz."""
        return (self.device.clock_mhz if self.clock_mhz is None else self.clock_mhz) * 1e6

    @property
    def allowed(self) -> Usage:
        """What may be taken of each resource."""
        shares = {name: math.floor(self.budget * amount) for name, amount in self.device.available._asdict().items()}
        return Usage(**{name: min(amount, self.limits.get(name, math.inf)) for name, amount in shares.items()})


@dataclass(frozen=True, kw_only=True)
class LayerDesign:
    """What a layer came to: its stages, how each is built, and what they take together."""

    plan: LayerPlan
    stages: tuple[tuple[Stage, Option], ...]
    energy_pj: float

    @property
    def matrix(self) -> Option:
        """The stage that multiplies."""
        return next(option for stage, option in self.stages if stage.kind == "matrix")

    @property
    def slowest(self) -> tuple[Stage, Option]:
        """The stage with the most cycles."""
        return max(self.stages, key=lambda built: built[1].cycles)

    @property
    def cycles(self) -> int:
        """Cycles from one sample to the next."""
        return self.slowest[1].cycles

    @property
    def usage(self) -> Usage:
        """Resources of all its stages."""
        return Usage(*(sum(amounts) for amounts in zip(*(option.usage for _, option in self.stages), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A folded network on a device."""

    target: Target
    layers: tuple[LayerDesign, ...]
    #: whether it keeps within what is allowed
    fits: bool

    @cached_property
    def usage(self) -> Usage:
        """Resources of all layers."""
        return Usage(*(sum(amounts) for amounts in zip(*(layer.usage for layer in self.layers), strict=True)))

    @property
    def bottleneck(self) -> LayerDesign:
        """The slowest layer; of equal ones the first."""
        return max(self.layers, key=lambda layer: layer.cycles)

    @property
    def fps(self) -> float:
        """Samples a second."""
        return self.target.clock_hz / self.bottleneck.cycles

    @property
    def latency_us(self) -> float:
        """Time from a sample's first value to its last result, in microseconds."""
        return latency_cycles(self.layers) / self.target.clock_hz * 1e6

    @property
    def energy_pj(self) -> float:
        """Energy of a sample."""
        return sum(layer.energy_pj for layer in self.layers)

    @property
    def binding(self) -> tuple[str, float]:
        """The resource of which the largest share of what is allowed is taken, and the share; above 1 it does not fit."""
        return fold_search.binding(self.usage, self.target.allowed)

    @property
    def remarks(self) -> dict[str, str]:
        """The layer that limits the rate and the resource that binds, in words."""
        layer, (stage, option) = self.bottleneck, self.bottleneck.slowest
        longest = max(self.layers, key=lambda layer: layer.matrix.arrival_ps)
        name, share = self.binding
        used, allowed = getattr(self.usage, name), getattr(self.target.allowed, name)
        return {
            "bottleneck": f"{layer.plan.workload.name} ({stage.kind} stage, {option.cycles} cycles)",
            "binding resource": f"{LABELS[name]}, {used:.0f} of {allowed:.0f} allowed on {self.target.device.name} ({share:.1%})",
            "longest path": _path(longest.plan.workload.name, longest.matrix.arrival_ps, 1e12 / self.target.clock_hz),
        }


def _path(layer: str, arrival_ps: float, cycle_ps: float) -> str:
    """Say how the longest way through a unit compares with a clock cycle."""
    said = f"{arrival_ps:.0f} ps over the cells of a unit of {layer}, as on 7 series; a cycle has {cycle_ps:.0f} ps"
    return said + (PIPELINED if arrival_ps > cycle_ps else "")


def latency_cycles(layers: Sequence[LayerDesign]) -> int:
    """Cycles from a sample's first value to its last result, by the formula at the top of this module."""
    everything = sum(option.cycles for layer in layers for _, option in layer.stages)
    filled, upstream = 0, layers[0].cycles
    for layer in layers:
        workload = layer.plan.workload
        filled += math.ceil(share_needed(workload) * upstream) + layer.matrix.cycles // workload.vectors
        upstream = max(upstream, layer.cycles)
    return min(everything, upstream + filled)


def share_needed(workload: LayerWorkload) -> float:
    """Part of its input that a layer must have before its first output."""
    shape = workload.convolution
    if workload.kind == "product":
        return 1.0
    if shape is None or shape.pointwise:
        return 1.0 / workload.vectors
    return window_span(shape) / math.prod(shape.padded_size)
