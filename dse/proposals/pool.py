"""Candidates with predicted figures, and the batch of them that promises the most hypervolume."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.proposals.frame import Frame
from dse.proposals.hypervolume import Points, gains
from dse.proposals.table import ChoiceTable, Selection
from formats.errors import InvalidValueError

Figures = Mapping[str, float]
#: what a selection truly costs, by name, where costs are not sums over groups
TrueCost = Callable[[Selection], Figures]
#: candidates whose true costs are asked for, for each one picked
ASKED = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Candidates: selections, int64 of shape (N, groups), and predicted figures in the frame's order, float64 (N, objectives)."""

    selections: NDArray[np.int64]
    figures: Points
    origins: tuple[str, ...]

    def rows(self, chosen: NDArray[np.int64]) -> "Pool":
        """Return some of the candidates."""
        origins = tuple(self.origins[row] for row in chosen)
        return Pool(selections=self.selections[chosen], figures=self.figures[chosen], origins=origins)

    def selection(self, row: int) -> Selection:
        """Return one candidate's selection."""
        found: Selection = tuple(self.selections[row].tolist())
        return found

    def of_table(self, index: int) -> "Pool":
        """Return the candidates with the index of their table before each selection."""
        first = np.full((len(self.selections), 1), index, np.int64)
        return Pool(selections=np.hstack([first, self.selections]), figures=self.figures, origins=self.origins)

    def without(self, tried: Set[Selection]) -> "Pool":
        """Return the candidates that were not tried, each once: the first with its selection."""
        seen = set(tried)
        kept = []
        for row, selection in enumerate(map(tuple, self.selections.tolist())):
            if selection not in seen:
                seen.add(selection)
                kept.append(row)
        return self.rows(np.array(kept, np.int64))

    def within(self, table: ChoiceTable, budgets: Mapping[str, float]) -> "Pool":
        """Return the candidates whose additive costs keep the budgets."""
        kept = np.ones(len(self.selections), bool)
        for name, budget in budgets.items():
            kept &= table.totals(table.column(name), self.selections) <= budget
        return self.rows(np.flatnonzero(kept))


def predicted(table: ChoiceTable, frame: Frame, selections: NDArray[np.int64], origin: str, correction: float = 1.0) -> Pool:
    """Return candidates with the table's figures, losses times a correction."""
    loss = table.totals(table.losses, selections) * correction
    costs = [table.totals(table.column(name), selections) for name in frame.names[1:]]
    return Pool(selections=selections, figures=np.stack([loss, *costs], axis=1), origins=(origin,) * len(selections))


def joined(pools: Sequence[Pool]) -> Pool:
    """Return the candidates of several pools as one."""
    return Pool(
        selections=np.concatenate([pool.selections for pool in pools]),
        figures=np.concatenate([pool.figures for pool in pools]),
        origins=tuple(origin for pool in pools for origin in pool.origins),
    )


def pick(
    pool: Pool,
    count: int,
    *,
    frame: Frame,
    known: Points,
    cost: TrueCost | None = None,
    budgets: Mapping[str, float] | None = None,
) -> Pool:
    """Return up to ``count`` candidates, each the one that adds most hypervolume to ``known`` points and those picked before it.

    ``known`` are points on the frame's axes. Candidates that promise to add nothing are passed over. Where ``cost`` is given, it is
    asked about the most promising by the figures at hand, and what it answers decides, on ``budgets`` too.
    """
    if cost is None:
        return pool.rows(_greedy(pool.figures, count, frame, known))
    likely = pool.rows(_greedy(pool.figures, ASKED * count, frame, known))
    answers = [cost(likely.selection(row)) for row in range(len(likely.selections))]
    figures = likely.figures.copy()
    for axis, name in enumerate(frame.names):
        figures[:, axis] = [answer.get(name, figure) for answer, figure in zip(answers, figures[:, axis], strict=True)]
    kept = np.array([row for row, answer in enumerate(answers) if _keeps(answer, budgets or {})], np.int64)
    true = Pool(selections=likely.selections, figures=figures, origins=likely.origins).rows(kept)
    return true.rows(_greedy(true.figures, count, frame, known))


def _keeps(answer: Figures, budgets: Mapping[str, float]) -> bool:
    return all(answer[name] <= budget for name, budget in budgets.items() if name in answer)


def _greedy(figures: Points, count: int, frame: Frame, known: Points) -> NDArray[np.int64]:
    """Return rows in the order in which they add most; gains only fall as points are added, so few are computed again."""
    if count < 1:
        raise InvalidValueError(f"count must be at least 1, not {count}")
    if not len(figures):
        return np.zeros(0, np.int64)
    points = frame.points(figures)
    bounds = gains(known, points, frame.reference)
    picked: list[int] = []
    fresh = np.ones(len(points), bool)
    while len(picked) < count:
        best = int(bounds.argmax())
        if bounds[best] <= 0:
            break
        if not fresh[best]:
            bounds[best] = gains(known, points[best : best + 1], frame.reference)[0]
            fresh[best] = True
            continue
        picked.append(best)
        known = np.vstack([known, points[best : best + 1]])
        bounds[best] = 0.0
        fresh[:] = False
    return np.array(picked, np.int64)
