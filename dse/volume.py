"""How much of its objectives' box a search's front covers: one number for a front as a whole, and for its history."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dse.objectives import Objective
from dse.proposals.hypervolume import Points, hypervolume, normalise
from dse.report import Outcome
from dse.search import Evaluated

#: where the reference point lies on every axis, the worst feasible figure being at 1: so the ends of a front count too
REFERENCE = 1.1


@dataclass(frozen=True, kw_only=True)
class Box:
    """Axes between the best and the worst figure of all feasible trials; objectives that are equal for all of them are left out.

    The convention is this module's own: an axis is logarithmic where all its figures are above zero, except for shares, such as
    accuracy; the reference point lies at 1.1 on every axis; the hypervolume is given as a share of all that the reference bounds.
    """

    objectives: tuple[Objective, ...]
    #: by objective, whether its axis is logarithmic, and the ends of the axis: losses, or logarithms
    logarithmic: tuple[bool, ...]
    ideals: tuple[float, ...]
    worst: tuple[float, ...]

    @staticmethod
    def of(found: Outcome) -> "Box | None":
        """Return the box of the feasible trials; None where fewer than two objectives differ among them."""
        trials = [trial for trial in found.trials if trial.feasible(found.bounds)]
        axes = []
        for objective in found.objectives:
            values = [trial.figures[objective.name] for trial in trials]
            if len(set(values)) > 1:
                logarithmic = objective.unit != "share" and min(values) > 0
                losses = _axis(objective, logarithmic, trials)
                axes.append((objective, logarithmic, float(losses.min()), float(losses.max())))
        if len(axes) < 2:
            return None
        objectives, logarithmic_axes, ideals, worst = zip(*axes, strict=True)
        return Box(objectives=objectives, logarithmic=logarithmic_axes, ideals=ideals, worst=worst)

    def place(self, trials: Sequence[Evaluated]) -> Points:
        """Return (N, axes) points in the box, 0 being best and 1 worst."""
        columns = [_axis(o, logarithmic, trials) for o, logarithmic in zip(self.objectives, self.logarithmic, strict=True)]
        return normalise(np.stack(columns, axis=1), np.array(self.ideals), np.array(self.worst))

    def share(self, points: Points) -> float:
        """Return the share of the box up to the reference that (N, axes) points dominate, in [0, 1]."""
        axes = len(self.objectives)
        return hypervolume(points, np.full(axes, REFERENCE)) / REFERENCE**axes if len(points) else 0.0

    def __str__(self) -> str:
        """Say what is measured how."""
        names = ", ".join(
            o.name + (" (logarithmic)" if logarithmic else "")
            for o, logarithmic in zip(self.objectives, self.logarithmic, strict=True)
        )
        return f"share of the box that all feasible trials span in {names}, reference {REFERENCE} of its extent"


def _axis(objective: Objective, logarithmic: bool, trials: Sequence[Evaluated]) -> Points:
    values = np.array([trial.figures[objective.name] for trial in trials], np.float64)
    values = np.log(values) if logarithmic else values
    return values if objective.direction == "minimize" else -values
