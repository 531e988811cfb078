"""Exchanges: selections one to three options away from those on the measured front."""

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dse.proposals.frame import Frame
from dse.proposals.hypervolume import non_dominated
from dse.proposals.pool import Figures, Pool, joined, predicted
from dse.proposals.table import ChoiceTable, Selection

ORIGIN = "exchange"
#: single exchanges of one selection that are combined to double and triple ones
COMBINED = 16

_Flip = tuple[int, int]


def exchanges(table: ChoiceTable, frame: Frame, measured: Mapping[Selection, Figures], combined: int = COMBINED) -> Pool:
    """Return every exchange of one option in the selections on the measured front, and those of two and three of the best.

    The predicted loss is the table's times what the table got wrong of the selection exchanged from: measured over predicted. The
    fewest exchanges come first, so that of several ways to one selection the shortest is the first.
    Options that another of their group beats in loss and in every cost are not exchanged for.
    """
    empty = predicted(table, frame, np.zeros((0, len(table.groups)), np.int64), ORIGIN)
    if not measured:
        return empty
    selections = list(measured)
    useful = _useful(table, frame)
    pools, distances = [empty], [np.zeros(0, np.int64)]
    for row in np.flatnonzero(non_dominated(frame.place([measured[selection] for selection in selections]))):
        base = selections[row]
        expected = table.loss(base)
        correction = measured[base][frame.names[0]] / expected if expected > 0 else 1.0
        around = _around(table, frame, base, useful, combined)
        pools.append(predicted(table, frame, around, ORIGIN, correction))
        distances.append((around != np.array(base)).sum(axis=1))
    return joined(pools).rows(np.argsort(np.concatenate(distances), kind="stable"))


def _useful(table: ChoiceTable, frame: Frame) -> list[list[int]]:
    """Return the options of each group that no other of it dominates."""
    columns = [table.losses, *(table.column(name) for name in frame.names[1:])]
    parts = [np.stack([column[group] for column in columns], axis=1) for group in range(len(table.groups))]
    return [np.flatnonzero(non_dominated(part)).tolist() for part in parts]


def _around(table: ChoiceTable, frame: Frame, base: Selection, useful: list[list[int]], combined: int) -> NDArray[np.int64]:
    """Return the selections one, two and three exchanges away, int64 of shape (N, groups)."""
    single = [(group, option) for group, options in enumerate(useful) for option in options if option != base[group]]
    best = _most_efficient(table, frame, base, single, combined)
    sets: list[tuple[_Flip, ...]] = [(flip,) for flip in single]
    for size in (2, 3):
        sets += [flips for flips in itertools.combinations(best, size) if len({group for group, _ in flips}) == size]
    made = np.tile(np.array(base, np.int64), (len(sets), 1))
    for row, flips in enumerate(sets):
        for group, option in flips:
            made[row, group] = option
    return made


def _most_efficient(table: ChoiceTable, frame: Frame, base: Selection, single: list[_Flip], count: int) -> list[_Flip]:
    """Return the exchanges that gain most for what they take, half of those that gain loss, half of those that gain costs.

    Changes are measured in shares of the base's own totals; a change of the costs is the mean over costs.
    """
    if not single:
        return []
    loss = _shares(table.losses, base, single)
    cost = np.mean([_shares(table.column(name), base, single) for name in frame.names[1:]], axis=0)
    chosen = [*_ranked(-loss, cost)[: count - count // 2], *_ranked(-cost, loss)[: count // 2]]
    return [single[row] for row in dict.fromkeys(chosen)]


def _shares(column: tuple[NDArray[np.float64], ...], base: Selection, flips: list[_Flip]) -> NDArray[np.float64]:
    total = sum(float(values[option]) for values, option in zip(column, base, strict=True))
    changes = np.array([column[group][option] - column[group][base[group]] for group, option in flips])
    return changes / total if total > 0 else changes


def _ranked(gained: NDArray[np.float64], taken: NDArray[np.float64]) -> list[int]:
    """Return the rows that gain, those first that gain most for what they take."""
    rows = np.flatnonzero(gained > 0)
    efficiency = gained[rows] / np.maximum(taken[rows], 1e-12)
    found: list[int] = rows[np.argsort(-efficiency, kind="stable")].tolist()
    return found
