"""Whether mixed precision was worth it: the chosen point and the front beside the uniform assignments."""

from dataclasses import dataclass

from dse.objectives import MEASURED, Objective
from dse.report import Outcome
from dse.search import Evaluated
from dse.volume import Box


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The chosen point beside the best uniform assignment at its cost, and the front beside that of the uniform ones alone."""

    chosen: Evaluated | None
    #: the uniform trial that the chosen one equals, whatever proposed it; None where the chosen one is mixed
    same: Evaluated | None
    #: the best uniform trial that costs no more than the chosen one, and the cheapest that is as good; None where there is none
    at_cost: Evaluated | None
    as_good: Evaluated | None
    #: the feasible uniform trial of the lowest first cost
    cheapest: Evaluated | None
    #: by what they are compared: the first objective that is measured, and the costs among the objectives
    measured: Objective
    costs: tuple[Objective, ...]
    #: points of the front, and how many of them are mixed; whether anything but uniform assignments was measured
    front: int
    mixed_front: int
    others: bool
    #: hypervolume of the front and of the uniform trials alone, and where it is measured; None where there is no such box
    volume: float
    uniform_volume: float
    box: Box | None
    #: uniform assignments that were measured in full, and how many there are; 0 where that is not known
    uniform_measured: int = 0
    uniform_total: int = 0

    @property
    def incomplete(self) -> bool:
        """Whether there are uniform assignments that were not measured."""
        return self.uniform_measured < self.uniform_total

    @property
    def beaten(self) -> bool:
        """Whether the chosen point is mixed and better than every uniform assignment at its cost."""
        if self.chosen is None or self.same is not None:
            return False
        return self.at_cost is None or self.measured.loss(self.chosen.figures) < self.measured.loss(self.at_cost.figures)


def judge(found: Outcome, chosen: Evaluated | None) -> Verdict:
    """Compare the chosen point and the front with the uniform assignments: trials measured in full that keep every bound.

    Compared is the first objective that is measured, KL where none is; at the same cost means that no objective that is a cost is
    worse. Of equally good ones the cheaper counts, by the first cost, then the earlier.
    """
    measured = next((objective for objective in found.objectives if not objective.is_cost), MEASURED[1])
    costs = tuple(objective for objective in found.objectives if objective.is_cost)
    feasible = [trial for trial in found.trials if trial.feasible(found.bounds)]
    uniform = [trial for trial in feasible if trial.uniform]
    by_digest = {trial.assignment.digest: trial for trial in reversed(found.trials) if trial.uniform}

    def cost(trial: Evaluated) -> tuple[float, ...]:
        return (*(objective.loss(trial.figures) for objective in costs), trial.number)

    def loss(trial: Evaluated) -> float:
        return measured.loss(trial.figures)

    no_dearer = [trial for trial in uniform if chosen and all(o.loss(trial.figures) <= o.loss(chosen.figures) for o in costs)]
    no_worse = [trial for trial in uniform if chosen and loss(trial) <= loss(chosen)]
    box = Box.of(found)
    return Verdict(
        chosen=chosen,
        same=by_digest.get(chosen.assignment.digest) if chosen else None,
        at_cost=min(no_dearer, key=lambda trial: (loss(trial), cost(trial)), default=None),
        as_good=min(no_worse, key=cost, default=None),
        cheapest=min(uniform, key=cost, default=None),
        measured=measured,
        costs=costs,
        front=len(found.front),
        mixed_front=sum(trial.assignment.digest not in by_digest for trial in found.front_trials),
        others=len(feasible) > len(uniform),
        volume=box.share(box.place(found.front_trials)) if box else 0.0,
        uniform_volume=box.share(box.place(uniform)) if box and uniform else 0.0,
        box=box,
        uniform_measured=len({(t.origin, t.assignment.steps) for t in found.trials if t.uniform and not t.dropped}),
        uniform_total=found.uniform_total,
    )


def lines(verdict: Verdict) -> list[str]:
    """Return the verdict in one to four sentences: on the chosen point, on the price of a uniform one as good, on the front."""
    if verdict.chosen is None:
        return ["no point is chosen, so there is nothing to compare with uniform assignments"]
    found = [_on_chosen(verdict, verdict.chosen), *_on_price(verdict, verdict.chosen), _on_front(verdict)]
    if verdict.incomplete:
        counted = f"{verdict.uniform_measured} of {verdict.uniform_total} uniform assignments were measured"
        found.append(f"{counted}, those that promised most first; the others are not compared")
    return found


def _name(trial: Evaluated) -> str:
    """Return what a uniform trial is: ``uniform int4/int4``, and the steps of the network before it."""
    return trial.origin + (f" after {'+'.join(trial.assignment.steps)}" if trial.assignment.steps else "")


def _on_chosen(verdict: Verdict, chosen: Evaluated) -> str:
    mine = f"trial {chosen.number} has {_figures(verdict, chosen)}"
    if verdict.cheapest is None:
        return f"no uniform assignment that keeps the bounds was measured, so none is compared; {mine}"
    if verdict.same is not None:
        tried = "" if verdict.others else ", and no other assignment that keeps the bounds was measured"
        figures = _figures(verdict, chosen)
        return f"mixed precision does not beat {_name(verdict.same)} here, which is what is chosen{tried}: {figures}"
    if verdict.at_cost is None:
        cheapest = f"the cheapest, {_name(verdict.cheapest)}, {_figures(verdict, verdict.cheapest)}"
        return f"no uniform assignment{_those(verdict)} costs as little: {mine}, {cheapest}"
    best = verdict.at_cost
    which = f"the best uniform assignment{' at no higher cost' if verdict.costs else ''} (trial {best.number})"
    compared = f"{mine}; {which}, {_figures(verdict, best)}"
    if not verdict.beaten:
        return f"mixed precision does not beat {_name(best)} here: {compared}"
    return f"mixed precision beats {_name(best)} here: {compared}{_worse(chosen, best)}"


def _those(verdict: Verdict) -> str:
    return " that was measured" if verdict.incomplete else ""


def _worse(chosen: Evaluated, best: Evaluated) -> str:
    found = [o.name for o in MEASURED if o.loss(chosen.figures) > o.loss(best.figures)]
    return f"; not in {' and '.join(found)}" if found else ""


def _on_price(verdict: Verdict, chosen: Evaluated) -> list[str]:
    """Say what a uniform assignment as good costs, where the chosen one is better than those at its cost."""
    if not verdict.beaten or not verdict.costs or verdict.cheapest is None:
        return []
    cost, measured = verdict.costs[0], verdict.measured
    if verdict.as_good is None:
        return [f"no uniform assignment{_those(verdict)} has a {measured.name} as good"]
    theirs, mine = verdict.as_good.figures[cost.name], chosen.figures[cost.name]
    times = f": {theirs / mine:.3g} times the {cost.name}" if mine > 0 else ""
    return [
        f"the cheapest uniform assignment with a {measured.name} as good is {_name(verdict.as_good)}, "
        f"{_figures(verdict, verdict.as_good)}{times}"
    ]


def _on_front(verdict: Verdict) -> str:
    mixed = f"{verdict.mixed_front} of {verdict.front} points of the front are mixed"
    if verdict.box is None:
        return f"{mixed}; fewer than two objectives differ among the feasible trials, so there is no hypervolume to compare"
    gain = verdict.volume - verdict.uniform_volume
    return (
        f"{mixed}; its hypervolume is {verdict.volume:.4f}, {gain:.4f} above the {verdict.uniform_volume:.4f} "
        f"of the uniform assignments alone ({verdict.box})"
    )


def _figures(verdict: Verdict, trial: Evaluated) -> str:
    names = list(dict.fromkeys([verdict.measured, *MEASURED, *verdict.costs]))
    return ", ".join(f"{o.name} {trial.figures[o.name]:.5g}" + ("" if o.unit == "share" else f" {o.unit}") for o in names)
