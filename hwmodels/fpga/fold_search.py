"""Exact search for the folding of a pipeline: least area at a rate, or the highest rate, within what resources there are.

Every stage takes one of its options. A design keeps an interval where no stage takes more cycles, so at a given interval the
stages are free of each other but for the resources that they share. Its *area* is the sum, over the resources, of the share of
the device that it takes: additive, so that each stage's least is the design's least wherever resources suffice. Where they do
not, the choice is a knapsack with several constraints, which HiGHS solves to optimality (``scipy.optimize.milp``). Of equal areas
the fewest LUTs are taken where the stages are free of each other.

The highest rate is the least interval that some design keeps: found by bisection among the cycles of the options, since more
time never needs more resources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.errors import BitatlasError
from hwmodels.fpga.dataflow import Option, Stage
from hwmodels.fpga.devices import LABELS, RESOURCES, Usage
from hwmodels.fpga.quiet import c_output_dropped

#: what a limit is scaled to for HiGHS, so that its tolerance of 1e-6 stays far below one unit of any resource
SOLVER_ROOM = 1000.0
#: what the whole device's area is scaled to, so that HiGHS's absolute gap of 1e-6 stays below one LUT of the largest
SOLVER_AREA = 1e6


@dataclass(frozen=True, kw_only=True)
class Design:
    """An option for every stage, and what they come to."""

    stages: tuple[Stage, ...]
    options: tuple[Option, ...]

    @property
    def interval(self) -> int:
        """Clock cycles from one sample to the next: those of the slowest stage."""
        return max(option.cycles for option in self.options)

    @property
    def usage(self) -> Usage:
        """Resources of all stages together."""
        return Usage(*(sum(amounts) for amounts in zip(*(option.usage for option in self.options), strict=True)))


class InfeasibleError(BitatlasError):
    """No design keeps the interval within the resources; ``resource`` is the one that binds, by its name in ``Usage``."""

    def __init__(self, message: str, *, resource: str, needed: float, allowed: float) -> None:
        """Keep the figures beside the message."""
        super().__init__(message)
        self.resource = resource
        self.needed = needed
        self.allowed = allowed


def fastest_interval(stages: Sequence[Stage]) -> tuple[int, Stage]:
    """Return the least interval that unlimited resources allow, and the stage that sets it."""
    slowest = max(stages, key=lambda stage: int(stage.cycles.min()))
    return int(slowest.cycles.min()), slowest


def least_area(stages: Sequence[Stage], interval: int, limits: Usage, device: Usage) -> Design | None:
    """Return a design of least area that keeps the interval and the limits; None where there is none."""
    free = freely(stages, interval, device)
    if free is None:
        return None
    allowed = np.array(limits)
    if (np.array(free.usage) <= allowed).all():
        return free
    if (least_of_each(stages, interval) > allowed).any():
        return None
    return _knapsack(stages, interval, allowed, weights(device))


def highest_rate(stages: Sequence[Stage], limits: Usage, device: Usage) -> Design | None:
    """Return the design of least area among those of the least interval that the limits allow; None where nothing fits."""
    fastest, _ = fastest_interval(stages)
    intervals = np.unique(np.concatenate([stage.cycles for stage in stages]))
    intervals = intervals[intervals >= fastest]
    found = least_area(stages, int(intervals[-1]), limits, device)
    if found is None:
        return None
    low, high = 0, int(np.searchsorted(intervals, found.interval))
    while low < high:
        middle = (low + high) // 2
        tried = least_area(stages, int(intervals[middle]), limits, device)
        if tried is None:
            low = middle + 1
        else:
            found, high = tried, min(middle, int(np.searchsorted(intervals, tried.interval)))
    return found


def freely(stages: Sequence[Stage], interval: int, device: Usage) -> Design | None:
    """Return the design of least area that keeps the interval, whatever it takes; None where a stage cannot keep it."""
    scale = weights(device)
    chosen = []
    for stage in stages:
        kept = np.flatnonzero(stage.cycles <= interval)
        if not len(kept):
            return None
        usage = stage.usage[kept]
        best = np.lexsort((stage.cycles[kept], usage[:, 0], usage @ scale))[0]
        chosen.append(stage.options[kept[best]])
    return Design(stages=tuple(stages), options=tuple(chosen))


def weights(device: Usage) -> NDArray[np.float64]:
    """Return the area of one unit of each resource, float64: the share of the device; a device's lack is dearer than all of it."""
    amounts = np.array(device, dtype=np.float64)
    return np.where(amounts > 0, 1 / np.maximum(amounts, 1), 1e3)


def least_of_each(stages: Sequence[Stage], interval: int) -> NDArray[np.float64]:
    """Return, for each resource by itself, the least that any design of the interval takes."""
    total = np.zeros(len(RESOURCES))
    for stage in stages:
        total += stage.usage[stage.cycles <= interval].min(axis=0)
    return total


def _knapsack(stages: Sequence[Stage], interval: int, allowed: NDArray[np.float64], scale: NDArray[np.float64]) -> Design | None:
    """Solve the choice of one option for each stage under all limits at once."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]
    from scipy.sparse import csr_array  # type: ignore[import-untyped]

    kept = [_contenders(stage, interval, allowed) for stage in stages]
    if not all(len(indices) for indices in kept):
        return None
    usage = np.concatenate([stage.usage[indices] for stage, indices in zip(stages, kept, strict=True)])
    owner = np.repeat(np.arange(len(stages)), [len(indices) for indices in kept])
    one_each = csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(len(stages), len(owner)))
    floor = np.floor(allowed)
    room = np.maximum(floor, 1) / SOLVER_ROOM
    with c_output_dropped():  # HiGHS reports a step of its own whatever its options say
        result = milp(
            usage @ scale * SOLVER_AREA,
            integrality=np.ones(len(owner)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(usage.T / room[:, None], -np.inf, floor / room),
            ],
            options={"mip_rel_gap": 0.0},
        )
    if result.status == 2:  # infeasible
        return None
    if result.x is None or result.status != 0:
        raise RuntimeError(f"HiGHS must solve the choice of foldings, not stop ({result.message})")
    options = [stage.options[index] for stage, indices in zip(stages, kept, strict=True) for index in indices]
    chosen = tuple(options[index] for index in np.flatnonzero(result.x > 0.5))
    return Design(stages=tuple(stages), options=chosen)


def _contenders(stage: Stage, interval: int, allowed: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the options that keep the interval and the limits by themselves, less those that another one beats in resources."""
    kept = np.flatnonzero((stage.cycles <= interval) & (stage.usage <= allowed).all(axis=1))
    usage = stage.usage[kept]
    order = np.lexsort(usage.T[::-1])
    front: list[int] = []
    for index in order:
        if not (usage[front] <= usage[index]).all(axis=1).any():
            front.append(int(index))
    return kept[np.array(sorted(front), dtype=np.intp)]


def binding(usage: Usage, limits: Usage) -> tuple[str, float]:
    """Return the resource of which the largest share of its limit is taken, and the share.

    Of a resource of which nothing may be taken, the share is one more than what is: finite, above 1, and larger for more.
    """
    shares = {
        name: used / limit if limit else (1.0 + used if used else 0.0)
        for name, used, limit in zip(RESOURCES, usage, limits, strict=True)
    }
    name = max(shares, key=lambda resource: shares[resource])
    return name, shares[name]


def infeasible(stages: Sequence[Stage], interval: int, limits: Usage, device: Usage, what: str) -> InfeasibleError:
    """Build the error for limits that no design of the interval keeps, naming the resource that binds.

    That is one that even the design sparest of it exceeds; where each resource could be kept by itself, the one that the design
    of least area exceeds most.
    """
    least = Usage(*least_of_each(stages, interval))
    name, share = binding(least, limits)
    alone = share > 1
    if not alone:
        free = freely(stages, interval, device)
        assert free is not None
        least = free.usage
        name, _ = binding(least, limits)
    needed, allowed = getattr(least, name), getattr(limits, name)
    qualifier = "at least " if alone else ""
    message = f"{what} must fit in {allowed:.0f} {LABELS[name]}, not need {qualifier}{needed:.0f}"
    if not alone:
        message += " in its least design, with no other that keeps all resources"
    return InfeasibleError(message, resource=name, needed=needed, allowed=allowed)
