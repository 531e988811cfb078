"""The least additive loss within budgets on several additive costs: a mixed-integer program, solved by HiGHS through scipy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from dse.proposals.table import ChoiceTable, Column, Selection
from formats.errors import BitatlasError

#: HiGHS stops within this absolute distance of the optimum, whatever gap is asked for
_ABSOLUTE_GAP = 1e-6
#: what the objective is scaled to, so that the absolute gap is 1e-9 of it
_SCALE = 1e3
#: share of the loss within which it counts as equal to its bound
_CLOSED = 1e-8
#: what a budget is widened by, as a share of it, before the solver sees it
_MARGIN = 1e-5
#: selections outside a budget by less than HiGHS' tolerance that are cut off before giving up
_CUTS = 100


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A selection within every budget; no selection within them has a loss below ``bound``.

    ``proved`` says that loss and bound are equal but for the relative gap that was asked for and 1e-8 of the loss.
    """

    selection: Selection
    loss: float
    bound: float
    proved: bool
    costs: Mapping[str, float] = field(default_factory=dict)


def solve(
    table: ChoiceTable, budgets: Mapping[str, float], *, time_limit: float | None = None, relative_gap: float = 0.0
) -> Solution:
    """Return the selection of least loss whose every budgeted cost is at most its budget.

    Raises ``BitatlasError`` where no selection keeps the budgets, naming each with the least value that can be reached, and where
    the time limit, in seconds, passes without any selection found. One found by then is returned, with ``proved`` false.
    """
    _check_each(table, budgets)
    options = {"mip_rel_gap": relative_gap} | ({} if time_limit is None else {"time_limit": time_limit})
    first = _minimum(table, table.losses, budgets, options, limit=np.inf)
    if first is None:
        raise BitatlasError(f"budgets must be within reach together, not {_together(table, budgets)}")
    selection, bound, proved = first
    best = table.loss(selection)
    if proved and best > 0:
        # once more without the options that alone cost more than what was found: the rest spans fewer orders of magnitude
        again = _minimum(table, table.losses, budgets, options, limit=best)
        if again is not None:
            candidate, bound, proved = again
            selection = min(selection, candidate, key=table.loss)
    loss = table.loss(selection)
    costs = {name: table.cost(name, selection) for name in table.costs}
    closed = loss - bound <= (relative_gap + _CLOSED) * loss
    return Solution(selection=selection, loss=loss, bound=min(bound, loss), proved=proved and closed, costs=costs)


def _minimum(
    table: ChoiceTable, column: Column, budgets: Mapping[str, float], options: Mapping[str, float], limit: float
) -> tuple[Selection, float, bool] | None:
    """Minimise a column's total within the budgets; None where nothing keeps them, else selection, lower bound, whether proved."""
    sizes = table.sizes
    values = np.concatenate(column)
    upper = (values <= limit).astype(float)
    top = limit if np.isfinite(limit) else sum(float(part.max()) for part in column)
    scale = _SCALE / top if top > 0 else 1.0
    constraints = [LinearConstraint(_one_of_each(sizes), 1, 1)]
    for name, budget in budgets.items():
        costs = np.concatenate(table.column(name))
        unit = budget if budget > 0 else max(float(costs.max()), 1.0)
        # a little more than its tolerance, so that the solver loses nothing that lies on the budget; what lies beyond is cut off
        constraints.append(LinearConstraint(csr_array(costs[None, :] / unit), -np.inf, budget / unit + _MARGIN))
    for _ in range(_CUTS):
        result = milp(
            values * scale * upper,
            integrality=np.ones(len(values)),
            bounds=Bounds(np.zeros(len(values)), upper),
            constraints=constraints,
            options=dict(options),
        )
        if result.status == 2:
            return None
        if result.x is None:
            raise BitatlasError(f"solver must find a selection within its time limit, not stop without one ({result.message})")
        selection = _selected(result.x, sizes)
        if all(table.cost(name, selection) <= budget for name, budget in budgets.items()):
            bound = (float(result.mip_dual_bound) - _ABSOLUTE_GAP) / scale
            return selection, max(bound, 0.0), result.status == 0
        constraints.append(_cut(selection, sizes))
    raise BitatlasError(f"solver must keep the budgets, not miss them by less than its tolerance {_CUTS} times")


def _one_of_each(sizes: tuple[int, ...]) -> Any:
    rows = np.repeat(np.arange(len(sizes)), sizes)
    return csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(sizes), len(rows)))


def _selected(x: NDArray[np.float64], sizes: tuple[int, ...]) -> Selection:
    parts = np.split(x, np.cumsum(sizes)[:-1])
    return tuple(int(part.argmax()) for part in parts)


def _cut(selection: Selection, sizes: tuple[int, ...]) -> LinearConstraint:
    """Exclude one selection."""
    chosen = np.zeros((1, sum(sizes)))
    chosen[0, np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int) + np.array(selection)] = 1
    return LinearConstraint(csr_array(chosen), -np.inf, len(sizes) - 1)


def least(table: ChoiceTable, name: str) -> float:
    """Return the least that a cost can come to: every group's cheapest option."""
    return table.cost(name, tuple(int(values.argmin()) for values in table.column(name)))


def least_within(table: ChoiceTable, name: str, budgets: Mapping[str, float]) -> float:
    """Return the least that a cost can come to within the budgets on the other costs."""
    others = {other: budget for other, budget in budgets.items() if other != name}
    found = _minimum(table, table.column(name), others, {"mip_rel_gap": 0.0}, limit=np.inf)
    if found is None:
        raise BitatlasError(f"budgets must be within reach together, not {_together(table, others)}")
    return table.cost(name, found[0])


def _check_each(table: ChoiceTable, budgets: Mapping[str, float]) -> None:
    missed = [f"{name}<={budget:.12g} (least {least(table, name):.12g})" for name, budget in budgets.items()]
    if any(not least(table, name) <= budget for name, budget in budgets.items()):
        raise BitatlasError(f"budgets must be within reach of the options, not {', '.join(missed)}")


def _together(table: ChoiceTable, budgets: Mapping[str, float]) -> str:
    """Name each budget with the least that its cost can come to within the others."""
    parts = []
    for name, budget in budgets.items():
        others = {other: limit for other, limit in budgets.items() if other != name}
        found = _minimum(table, table.column(name), others, {"mip_rel_gap": 0.0}, limit=np.inf)
        reach = "out of reach within the others" if found is None else f"least {table.cost(name, found[0]):.12g} within the others"
        parts.append(f"{name}<={budget:.12g} ({reach})")
    return ", ".join(parts)
