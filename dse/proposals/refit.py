"""Refit an additive table of losses to measured totals: ridge regression towards the table, in relative errors.

Every option's loss is its prior times a factor. The factors minimise

    Σ over measurements (predicted / measured − 1)² + ridge · [Σ over options (factor − common)² + (common − 1)²],

none negative: measured losses span orders of magnitude, and each weighs the same whatever its size. ``common`` lets a prior that
is off by one factor everywhere be corrected from few measurements. ``ridge`` is the ratio of two variances: of what addition
itself gets wrong (about a tenth of a total) to the prior's own relative error.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from dse.proposals.table import ChoiceTable, Selection
from formats.errors import InvalidValueError

RIDGE = 0.02
#: priors below this share of the greatest of their group are raised to it: a factor could not move them from zero
FLOOR = 1e-9
#: measured losses below this, in nats per sample where they are Kullback-Leibler divergences, count as this when weighed
RESOLUTION = 1e-9


def refit(table: ChoiceTable, measured: Mapping[Selection, float], ridge: float = RIDGE) -> ChoiceTable:
    """Return the table with losses refitted to measured totals; without measurements, the table itself.

    Losses stay non-negative; the order of options is not kept. Options that were never measured move by the common factor.
    """
    if not ridge > 0:
        raise InvalidValueError(f"ridge must be positive, not {ridge}")
    for selection, loss in measured.items():
        table.check(selection)
        if not (np.isfinite(loss) and loss >= 0):
            raise InvalidValueError(f"measured loss must be finite and not negative, not {loss} (selection {selection})")
    if not measured:
        return table
    prior = np.concatenate([np.maximum(part, FLOOR * part.max()) for part in table.losses])
    offsets = np.concatenate([[0], np.cumsum(table.sizes)[:-1]])
    columns = np.array(list(measured)) + offsets
    totals = np.maximum(np.array(list(measured.values())), RESOLUTION)
    seen, positions = np.unique(columns, return_inverse=True)
    rows = np.zeros((len(measured), len(seen) + 1))
    np.put_along_axis(rows[:, :-1], positions.reshape(columns.shape), prior[columns] / totals[:, None], axis=1)
    factors = _factors(rows, np.array(list(measured.values())) / totals, ridge)
    fitted = prior * factors[-1]
    fitted[seen] = prior[seen] * factors[:-1]
    return replace(table, losses=tuple(np.split(fitted, offsets[1:])))


def _factors(rows: NDArray[np.float64], wanted: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """Return the factors of the options seen, and the common one last."""
    options = rows.shape[1] - 1
    weight = np.sqrt(ridge)
    towards_common = np.hstack([weight * np.eye(options), np.full((options, 1), -weight)])
    towards_one = np.zeros((1, options + 1))
    towards_one[0, -1] = weight
    system = np.vstack([rows, towards_common, towards_one])
    target = np.concatenate([wanted, np.zeros(options), [weight]])
    free = np.linalg.solve(system.T @ system, system.T @ target)
    if (free >= 0).all():
        return free
    constrained: NDArray[np.float64] = nnls(system, target)[0]
    return constrained
