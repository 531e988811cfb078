"""Proposals round by round, a pure function of what was tried: exact fronts, uniforms, then refits and exchanges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dse.proposals import knapsack, milp
from dse.proposals.exchange import exchanges
from dse.proposals.frame import Frame
from dse.proposals.hypervolume import Points, non_dominated
from dse.proposals.pool import Figures, Pool, TrueCost, joined, pick, predicted
from dse.proposals.refit import refit
from dse.proposals.table import ChoiceTable, Selection
from formats.errors import InvalidValueError

#: points of each exact front that are proposed first
POINTS = 24
#: points of each refitted front that compete with exchanges
REFITTED_POINTS = 64
#: relative gap of proposals that a mixed-integer program makes: what they are predicted by is no nearer to the truth
GAP = 1e-3
#: hypervolume that a round must add for a search to go on, as a share of the frame
EPSILON = 2e-4
#: name of the front of all costs added up
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A selection to measure and where it comes from: ``uniform``, ``front:COST``, ``refit:COST``, ``exchange``."""

    selection: Selection
    origin: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched beside the table: objectives, budgets on costs of the table, and what to try before anything else."""

    frame: Frame
    budgets: Mapping[str, float] = field(default_factory=dict)
    first: tuple[Proposal, ...] = ()
    #: points of each refitted front that compete with exchanges
    refitted_points: int = REFITTED_POINTS


def plan(
    tables: Sequence[ChoiceTable],
    frame: Frame,
    *,
    uniform: Sequence[Proposal] = (),
    budgets: Mapping[str, float] | None = None,
    points: int = POINTS,
    refitted_points: int = REFITTED_POINTS,
) -> Plan:
    """Return the plan: the best of the caller's uniform selections, the exact fronts, then the other uniform ones for comparison.

    There is a table for each way to prepare the network, all of the same groups and options; the selections of the plan begin with
    the index of their table, the caller's, which are tried with every table, do not.
    """
    budgets = dict(budgets or {})
    first = []
    for index, table in enumerate(tables):
        found = front_proposals(table, frame, budgets, points)
        first += [replace(proposal, selection=(index, *proposal.selection)) for proposal in found]
    alike = [replace(p, selection=(index, *p.selection)) for index in range(len(tables)) for p in uniform]
    # a point of a front that is uniform is called so
    origins = {proposal.selection: proposal.origin for proposal in alike}
    best = _promising(tables, frame, alike)
    named = [replace(p, origin=origins.get(p.selection, p.origin)) for p in _different([*best, *first, *alike])]
    return Plan(frame=frame, budgets=budgets, first=tuple(named), refitted_points=refitted_points)


def _promising(tables: Sequence[ChoiceTable], frame: Frame, alike: Sequence[Proposal]) -> list[Proposal]:
    """Return those of the uniform selections that no other one is expected to be better than: what one would try by hand."""
    if not alike:
        return []
    figures = []
    for proposal in alike:
        table, chosen = tables[proposal.selection[0]], proposal.selection[1:]
        figures.append([table.loss(chosen), *(table.cost(name, chosen) for name in frame.names[1:])])
    return [proposal for proposal, keep in zip(alike, non_dominated(np.array(figures)), strict=True) if keep]


def propose(
    tables: Sequence[ChoiceTable],
    tried: Mapping[Selection, Figures | None],
    count: int,
    plan: Plan,
    cost: TrueCost | None = None,
) -> list[Proposal]:
    """Return up to ``count`` selections that were not tried; fewer, or none, where nothing promises to add to the front.

    Every selection begins with the index of its table. ``tried`` holds the measured figures of each selection, None while they are
    not known: those count as if they had come out as predicted. ``cost`` gives true costs that are not sums over groups; the tables
    then hold additive stand-ins by the same names. First comes what the plan says; then, by predicted hypervolume, points of the
    fronts of the refitted tables and exchanges of options in the measured front.
    """
    if count < 1:
        raise InvalidValueError(f"count must be at least 1, not {count}")
    new = [proposal for proposal in plan.first if proposal.selection not in tried]
    return new[:count] or _refined(tables, tried, count, plan, cost)


def front_proposals(
    table: ChoiceTable, frame: Frame, budgets: Mapping[str, float], points: int, origin: str = "front"
) -> list[Proposal]:
    """Return points of the table's exact fronts at budgets even in the logarithm of the cost: at most ``points`` for each cost.

    Where there are several costs, a front of their sum, each as a share of its greatest total, comes last (``front:all``).
    """
    names = frame.names[1:]
    if len(names) > 1:
        table, names = _with_sum(table, names), (*names, ALL)
    return _different([
        Proposal(selection=tuple(row), origin=f"{origin}:{name}")
        for name in names
        for row in _front(table, name, budgets, points).tolist()
    ])  # fmt: skip


def _different(proposals: Sequence[Proposal]) -> list[Proposal]:
    found: dict[Selection, Proposal] = {}
    for proposal in proposals:
        found.setdefault(proposal.selection, proposal)
    return list(found.values())


def _with_sum(table: ChoiceTable, names: Sequence[str]) -> ChoiceTable:
    columns = [table.column(name) for name in names]
    totals = [sum(float(part.max()) for part in column) for column in columns]
    mixed = tuple(sum(part / total for part, total in zip(parts, totals, strict=True)) for parts in zip(*columns, strict=True))
    return table.with_costs({**table.costs, ALL: mixed})


def _front(table: ChoiceTable, name: str, budgets: Mapping[str, float], points: int) -> NDArray[np.int64]:
    """Return at most ``points`` selections of the front of loss against one cost within the budgets, int64 of shape (N, groups)."""
    front = knapsack.front(table, name)
    others = {other: budget for other, budget in budgets.items() if other != name}
    if others:
        return _front_within(table, front, name, budgets, points)
    if name in budgets:
        front.best(budgets[name])  # raises where the budget is out of reach
    within = int(np.searchsorted(front.costs, budgets.get(name, np.inf), side="right"))
    return front.selections[knapsack.spread(front.costs[:within], points)]


def _front_within(
    table: ChoiceTable, front: knapsack.Front, name: str, budgets: Mapping[str, float], points: int
) -> NDArray[np.int64]:
    """Solve for budgets on one cost, even in its logarithm, each together with the budgets on the others."""
    loosest = milp.solve(table, budgets, relative_gap=GAP)
    greatest, smallest = loosest.costs[name], milp.least_within(table, name, budgets)
    found = [loosest.selection]
    if greatest > smallest:
        for limit in np.geomspace(max(smallest, 1e-6 * greatest), greatest, min(points, POINTS))[:-1].tolist():
            # the lowest limit is the least there is: rounding must not put it out of reach
            together = {**budgets, name: max(limit, smallest)}
            best = front.best(together[name])
            if any(table.cost(other, best) > budget for other, budget in budgets.items() if other != name):
                best = milp.solve(table, together, relative_gap=GAP).selection
            found.append(best)
    return np.array(list(dict.fromkeys(found)), np.int64)


def _refined(
    tables: Sequence[ChoiceTable], tried: Mapping[Selection, Figures | None], count: int, plan: Plan, cost: TrueCost | None
) -> list[Proposal]:
    frame = plan.frame
    known = [frame.place([figures for figures in tried.values() if figures is not None and _feasible(figures, plan.budgets)])]
    pools = []
    for index, table in enumerate(tables):
        own = {selection[1:]: figures for selection, figures in tried.items() if selection[0] == index}
        pool, pending = _candidates(table, own, plan)
        pools.append(pool.of_table(index))
        known.append(pending)
    pool = joined(pools).without(tried.keys())
    picked = pick(pool, count, frame=frame, known=np.vstack(known), cost=cost, budgets=plan.budgets)
    return [Proposal(selection=picked.selection(row), origin=origin) for row, origin in enumerate(picked.origins)]


def _candidates(table: ChoiceTable, tried: Mapping[Selection, Figures | None], plan: Plan) -> tuple[Pool, Points]:
    """Return candidates by the refitted table, and where its selections are predicted to lie that are being measured."""
    frame, loss = plan.frame, plan.frame.names[0]
    measured = {selection: figures for selection, figures in tried.items() if figures is not None}
    fitted = refit(table, {selection: figures[loss] for selection, figures in measured.items()})
    pending = np.array([s for s, figures in tried.items() if figures is None], np.int64).reshape(-1, len(table.groups))
    pools = [_as_pool(fitted, frame, front_proposals(fitted, frame, plan.budgets, plan.refitted_points, "refit"))]
    pools.append(exchanges(fitted, frame, {s: figures for s, figures in measured.items() if _feasible(figures, plan.budgets)}))
    return joined(pools).within(table, plan.budgets), frame.points(predicted(fitted, frame, pending, "").figures)


def _feasible(figures: Figures, budgets: Mapping[str, float]) -> bool:
    return all(figures[name] <= budget for name, budget in budgets.items())


def _as_pool(table: ChoiceTable, frame: Frame, proposals: Sequence[Proposal]) -> Pool:
    selections = np.array([proposal.selection for proposal in proposals], np.int64)
    pool = predicted(table, frame, selections, "")
    return Pool(selections=pool.selections, figures=pool.figures, origins=tuple(proposal.origin for proposal in proposals))


@dataclass(frozen=True, kw_only=True)
class Stall:
    """A search that gains no more: the hypervolume after the last rounds and what each of them added."""

    hypervolume: float
    gains: tuple[float, ...]
    epsilon: float

    def __str__(self) -> str:
        """Say so, with the figures."""
        added = ", ".join(f"{gain:.3g}" for gain in self.gains)
        rounds = f"the last {len(self.gains)} rounds added {added}, all below {self.epsilon:g}"
        return f"stalled at hypervolume {self.hypervolume:.6g}: {rounds}"


def stalled(history: Sequence[float], epsilon: float = EPSILON, rounds: int = 2) -> Stall | None:
    """Return the stall where each of the last ``rounds`` rounds added less than ``epsilon`` to the hypervolume, else None.

    ``history`` holds the hypervolume after each round, in order.
    """
    if rounds < 1:
        raise InvalidValueError(f"rounds must be at least 1, not {rounds}")
    added = np.diff(np.array(history, np.float64))[-rounds:]
    if len(added) < rounds or (added >= epsilon).any():
        return None
    return Stall(hypervolume=float(history[-1]), gains=tuple(added.tolist()), epsilon=epsilon)
