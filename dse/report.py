"""What a search leaves behind: tables of all trials and of the front, the chosen assignment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dse import front
from dse.network import ROLES
from dse.objectives import Bound, Objective
from dse.ptq import steps as stepping
from dse.search import Evaluated
from formats.errors import BitatlasError
from hwmodels.files import write_text


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The trials of a search, what they were for, and which of them are not dominated."""

    trials: tuple[Evaluated, ...]
    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...]
    #: indices into ``trials``
    front: tuple[int, ...]
    #: uniform assignments that there are in the search's space; 0 where that is not known
    uniform_total: int = 0

    @property
    def front_trials(self) -> tuple[Evaluated, ...]:
        """The trials on the front, in order of the first objective."""
        chosen = [self.trials[i] for i in self.front]
        return tuple(sorted(chosen, key=lambda trial: [objective.loss(trial.figures) for objective in self.objectives]))


def outcome(
    trials: Sequence[Evaluated], objectives: Sequence[Objective], bounds: Sequence[Bound], uniform_total: int = 0
) -> Outcome:
    """Find the front among the trials that keep every bound."""
    feasible = [i for i, trial in enumerate(trials) if trial.feasible(bounds)]
    kept = front.non_dominated([trials[i].figures for i in feasible], objectives)
    return Outcome(
        trials=tuple(trials),
        objectives=tuple(objectives),
        bounds=tuple(bounds),
        front=tuple(feasible[i] for i in kept),
        uniform_total=uniform_total,
    )


def choose(found: Outcome, condition: Bound | None) -> Evaluated:
    """Return the knee of the front, or its cheapest point that meets ``condition``.

    Cheapest is by the first objective that is a cost, or by the first objective where none is. Raises ``BitatlasError`` where no
    trial keeps the bounds or no point of the front meets the condition, naming the nearest.
    """
    points = found.front_trials
    if not points:
        raise BitatlasError(_nothing_feasible(found))
    if condition is None:
        return points[front.knee([point.figures for point in points], found.objectives)]
    meeting = [point for point in points if condition.violation(point.figures) <= 0]
    if not meeting:
        nearest = min(points, key=lambda point: condition.violation(point.figures))
        value, missed = nearest.figures[condition.objective.name], condition.violation(nearest.figures)
        raise BitatlasError(
            f"--choose {condition} must be met by a point of the front, not missed by {missed:g} {condition.objective.unit}: "
            f"the nearest is {value:g} (trial {nearest.number})"
        )
    cost = next((objective for objective in found.objectives if objective.is_cost), found.objectives[0])
    return min(meeting, key=lambda point: (cost.loss(point.figures), point.number))


def _nothing_feasible(found: Outcome) -> str:
    def total(trial: Evaluated) -> float:
        return sum(max(0.0, bound.violation(trial.figures)) / (abs(bound.limit) or 1.0) for bound in found.bounds)

    nearest = min((trial for trial in found.trials if not trial.dropped), key=total)
    missed = [
        f"{bound} by {bound.violation(nearest.figures):g} {bound.objective.unit}"
        for bound in found.bounds
        if bound.violation(nearest.figures) > 0
    ]
    return (
        f"constraints must be kept by at least one trial, not by none of {len(found.trials)}: "
        f"the nearest, trial {nearest.number}, misses {', '.join(missed)}"
    )


def table(trials: Sequence[Evaluated], found: Outcome, headers: Mapping[str, str]) -> pd.DataFrame:
    """Return one row for each trial: where it came from, its figures with units in the header, every layer's quantizers.

    Steps have columns too, where any trial has some.
    """
    network_steps = any(trial.assignment.steps for trial in trials)
    layer_steps = any(layer.steps for trial in trials for layer in trial.assignment.layers.values())
    on_front = {found.trials[i].number for i in found.front}
    rows = []
    for trial in trials:
        row: dict[str, object] = {"trial": trial.number, "origin": trial.origin}
        if network_steps:
            row["network steps"] = stepping.row(trial.assignment.steps)
        row["feasible"] = trial.feasible(found.bounds)
        row["front"] = trial.number in on_front
        row["dropped"] = trial.dropped
        row |= {headers[name]: value for name, value in trial.figures.items()}
        row |= trial.remarks
        for name, layer in trial.assignment.layers.items():
            row |= {f"{name} {role}": str(layer.quantizer(role)) for role in ROLES}
            if layer_steps:
                row[f"{name} steps"] = stepping.row(layer.steps)
        rows.append(row)
    return pd.DataFrame(rows)


def write_tables(folder: Path, found: Outcome, objectives: Mapping[str, Objective]) -> None:
    """Write ``trials.csv`` and ``front.csv``, the latter in order of the first objective."""
    trials = table(found.trials, found, {name: objective.header for name, objective in objectives.items()})
    write_text(folder / "trials.csv", trials.to_csv(index=False))
    front_rows = trials.set_index("trial").loc[[trial.number for trial in found.front_trials]].reset_index()
    write_text(folder / "front.csv", front_rows.to_csv(index=False))


def write_chosen(folder: Path, chosen: Evaluated) -> None:
    """Write ``chosen.json``, an assignment file with its figures."""
    replace(chosen.assignment, figures=dict(chosen.figures)).write(folder / "chosen.json")
