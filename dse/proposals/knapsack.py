"""The exact front of additive loss against one additive cost: a multiple-choice knapsack, for every budget at once.

Lists of non-dominated partial selections are merged group by group (Nemhauser and Ullmann, Management Science 15(9), 1969): a
partial selection that another beats in both figures cannot be part of a better whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.proposals.table import ChoiceTable, Selection
from formats.errors import InvalidValueError

#: partial selections kept between groups before lists are thinned
LIMIT = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """Non-dominated selections in order of rising cost and falling loss.

    ``losses`` and ``costs`` are float64 of shape (N,), ``selections`` int64 of shape (N, groups). Of selections with equal figures
    one is here. For every selection there is, a point of the front has no higher loss and at most ``factor`` times its cost: the
    front is exact where ``factor`` is 1, which it is unless lists had to be thinned.
    """

    losses: NDArray[np.float64]
    costs: NDArray[np.float64]
    selections: NDArray[np.int64]
    factor: float = 1.0

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.losses)

    def __iter__(self) -> Iterator[tuple[float, float, Selection]]:
        """Yield loss, cost and selection of each point."""
        rows = [tuple(row) for row in self.selections.tolist()]
        return iter(zip(self.losses.tolist(), self.costs.tolist(), rows, strict=True))

    def best(self, budget: float) -> Selection:
        """Return the selection of least loss that costs at most ``budget``."""
        within = int(np.searchsorted(self.costs, budget, side="right"))
        if within == 0:
            raise InvalidValueError(f"budget must be at least {self.costs[0]:.12g}, the least there is, not {budget:.12g}")
        row: Selection = tuple(self.selections[within - 1].tolist())
        return row


@dataclass(frozen=True, kw_only=True, eq=False)
class _List:
    """Non-dominated partial selections: figures, and for each the one that it extends and by which option."""

    losses: NDArray[np.float64]
    costs: NDArray[np.float64]
    parents: NDArray[np.int64]
    options: NDArray[np.int64]


def front(table: ChoiceTable, cost: str, limit: int | None = LIMIT) -> Front:
    """Return the front of the table's loss against one of its costs.

    Lists longer than ``limit`` are thinned on a logarithmic grid of costs, and ``Front.factor`` says by how much at most that
    moved the front; None never thins.
    """
    if limit is not None and limit < 2:
        raise InvalidValueError(f"limit must be at least 2, not {limit}")
    start = np.zeros(1)
    lists = [_List(losses=start, costs=start, parents=np.zeros(1, np.int64), options=np.zeros(1, np.int64))]
    factor = 1.0
    for losses, costs in zip(table.losses, table.column(cost), strict=True):
        merged = _merged(lists[-1], losses, costs)
        if limit is not None and len(merged.losses) > limit:
            merged, moved = _thinned(merged, limit)
            factor *= moved  # costs are not negative: what is added later only brings the ratio of two sums nearer to 1
        lists.append(merged)
    return Front(losses=lists[-1].losses, costs=lists[-1].costs, selections=_traced(lists[1:]), factor=factor)


def _merged(so_far: _List, losses: NDArray[np.float64], costs: NDArray[np.float64]) -> _List:
    options = np.flatnonzero(~_dominated(losses, costs))
    # one sorted run for each option: a stable sort merges runs in linear time
    all_losses = (so_far.losses[None, :] + losses[options, None]).reshape(-1)
    all_costs = (so_far.costs[None, :] + costs[options, None]).reshape(-1)
    order = np.argsort(all_costs, kind="stable")
    kept = order[_falling(all_losses[order], all_costs[order])]
    return _List(
        losses=all_losses[kept],
        costs=all_costs[kept],
        parents=kept % len(so_far.losses),
        options=options[kept // len(so_far.losses)],
    )


def _dominated(losses: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    order = np.lexsort((losses, costs))
    dominated = np.ones(len(losses), bool)
    dominated[order[_falling(losses[order], costs[order])]] = False
    return dominated


def _falling(losses: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices of the non-dominated points among points in order of cost."""
    least_before = np.concatenate([[np.inf], np.minimum.accumulate(losses)[:-1]])
    kept = np.flatnonzero(losses < least_before)
    last_of_its_cost = np.append(costs[kept][1:] != costs[kept][:-1], True)
    found: NDArray[np.int64] = kept[last_of_its_cost]
    return found


def _thinned(full: _List, limit: int) -> tuple[_List, float]:
    """Keep the last, which has the least loss, of the points in each cell of costs; return the largest ratio within a cell."""
    positive = full.costs > 0
    logs = np.log(full.costs[positive])
    cells = np.zeros(len(full.costs), np.int64)
    width = max((logs[-1] - logs[0]) / (limit - 1), np.finfo(np.float64).tiny)
    cells[positive] = 1 + np.minimum((logs - logs[0]) / width, limit - 2).astype(np.int64)
    last = np.append(cells[1:] != cells[:-1], True)
    first = np.append(True, cells[1:] != cells[:-1])
    kept = np.flatnonzero(last)
    from_costs, to_costs = full.costs[first], full.costs[last]
    ratios = np.divide(to_costs, from_costs, out=np.ones_like(to_costs), where=from_costs > 0)
    thin = _List(losses=full.losses[kept], costs=full.costs[kept], parents=full.parents[kept], options=full.options[kept])
    return thin, float(ratios.max())


def _traced(lists: list[_List]) -> NDArray[np.int64]:
    """Follow every point of the last list back to the options it took."""
    selections = np.zeros((len(lists[-1].losses), len(lists)), np.int64)
    at = np.arange(len(lists[-1].losses))
    for group in range(len(lists) - 1, -1, -1):
        selections[:, group] = lists[group].options[at]
        at = lists[group].parents[at]
    return selections


def spread(costs: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return indices of at most ``count`` of a front's points, nearest to budgets even in the logarithm of the cost.

    ``costs`` are in rising order; both ends are among the points, and those of cost zero count as the least positive cost.
    """
    if count < 2:
        raise InvalidValueError(f"count must be at least 2, for both ends, not {count}")
    if len(costs) <= count:
        return np.arange(len(costs))
    logs = np.log(np.maximum(costs, costs[costs > 0][0]))  # costs rise: at most the first is zero
    wanted = np.linspace(logs[0], logs[-1], count)
    nearest = np.abs(logs[:, None] - wanted[None, :]).argmin(axis=0)
    return np.unique(np.concatenate([nearest, [0, len(costs) - 1]]))
