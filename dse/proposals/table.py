"""Additive losses and costs of every option of every group: all that a solver needs to know."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError

#: index of the option taken in each group, in the order of the groups
Selection = tuple[int, ...]
Column = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChoiceTable:
    """Groups, their options, and what each option adds to the loss and to every cost.

    ``losses[g]`` and ``costs[name][g]`` are float64 of shape (options of group g,), finite and not negative. Totals add group by
    group in order, in float64, so that equal selections have equal totals wherever they were computed.
    """

    groups: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    losses: Column
    costs: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a table that no selection could be priced by, naming the group and the option."""
        if not self.groups or len(set(self.groups)) != len(self.groups):
            raise InvalidValueError(f"groups must be different names, at least one, not {', '.join(self.groups) or 'none'}")
        if len(self.options) != len(self.groups):
            raise InvalidValueError(f"options must be given for {len(self.groups)} groups, not for {len(self.options)}")
        for group, names in zip(self.groups, self.options, strict=True):
            if not names or len(set(names)) != len(names):
                given = ", ".join(names) or "none"
                raise InvalidValueError(f"options must be different names, at least one, not {given} (group {group!r})")
        object.__setattr__(self, "losses", self._checked("loss", self.losses))
        object.__setattr__(self, "costs", {name: self._checked(name, column) for name, column in self.costs.items()})

    def _checked(self, what: str, column: Sequence[NDArray[np.float64]]) -> Column:
        if len(column) != len(self.groups):
            raise InvalidValueError(f"{what} must be given for {len(self.groups)} groups, not for {len(column)}")
        made = []
        for group, names, values in zip(self.groups, self.options, column, strict=True):
            values = np.array(values, dtype=np.float64)
            if values.shape != (len(names),):
                raise InvalidValueError(f"{what} must have shape ({len(names)},), not {values.shape} (group {group!r})")
            wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
            if len(wrong):
                where = f"(group {group!r}, option {names[wrong[0]]!r})"
                raise InvalidValueError(f"{what} must be finite and not negative, not {values[wrong[0]]} {where}")
            values.setflags(write=False)
            made.append(values)
        return tuple(made)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of options of each group."""
        return tuple(len(names) for names in self.options)

    def column(self, name: str) -> Column:
        """Return one cost's column; ``InvalidValueError`` names those that there are."""
        if name not in self.costs:
            raise InvalidValueError(f"cost must be one of the table's ({', '.join(self.costs) or 'none'}), not {name!r}")
        return self.costs[name]

    def loss(self, selection: Selection) -> float:
        """Return the additive loss of a selection."""
        return self._total(self.losses, selection)

    def cost(self, name: str, selection: Selection) -> float:
        """Return one additive cost of a selection."""
        return self._total(self.column(name), selection)

    def totals(self, column: Column, selections: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the totals of (N, groups) selections over one column, float64 of shape (N,)."""
        total = np.zeros(len(selections))
        for group, values in enumerate(column):
            total += values[selections[:, group]]
        return total

    def check(self, selection: Selection) -> None:
        """Refuse a selection that is not one of this table's."""
        if len(selection) != len(self.groups):
            raise InvalidValueError(f"selection must have {len(self.groups)} indices, not {len(selection)}")
        for group, index, size in zip(self.groups, selection, self.sizes, strict=True):
            if not 0 <= index < size:
                raise InvalidValueError(f"index of an option must be from 0 to {size - 1}, not {index} (group {group!r})")

    def _total(self, column: Column, selection: Selection) -> float:
        self.check(selection)
        total = 0.0
        for values, index in zip(column, selection, strict=True):
            total += float(values[index])
        return total

    def names(self, selection: Selection) -> dict[str, str]:
        """Return the options of a selection by group."""
        self.check(selection)
        return {group: self.options[g][selection[g]] for g, group in enumerate(self.groups)}

    def selection(self, names: Mapping[str, str]) -> Selection:
        """Return the selection that takes the named option in each group."""
        for group, options in zip(self.groups, self.options, strict=True):
            if names.get(group) not in options:
                given = repr(names[group]) if group in names else "none"
                raise InvalidValueError(f"option must be one of the group's, not {given} (group {group!r})")
        return tuple(options.index(names[group]) for group, options in zip(self.groups, self.options, strict=True))

    def with_costs(self, costs: Mapping[str, Sequence[NDArray[np.float64]]]) -> "ChoiceTable":
        """Return the table with other costs: losses are scored once, budgets and devices change."""
        return replace(self, costs={name: tuple(column) for name, column in costs.items()})

    def to_json(self) -> str:
        """Return the table as JSON; every float64 is written so that it reads back to the same bits."""
        content = {
            "groups": self.groups,
            "options": self.options,
            "losses": _lists(self.losses),
            "costs": {name: _lists(column) for name, column in self.costs.items()},
        }
        return json.dumps(content)

    @staticmethod
    def from_json(text: str) -> "ChoiceTable":
        """Read what ``to_json`` wrote; ``InvalidValueError`` for anything else."""
        try:
            content = json.loads(text)
            return ChoiceTable(
                groups=tuple(content["groups"]),
                options=tuple(tuple(names) for names in content["options"]),
                losses=_arrays(content["losses"]),
                costs={name: _arrays(column) for name, column in content["costs"].items()},
            )
        except InvalidValueError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidValueError(f"a table of choices must be JSON as it was written, not broken ({error!r})") from None


def _lists(column: Column) -> list[list[float]]:
    return [values.tolist() for values in column]


def _arrays(column: Sequence[Any]) -> Column:
    return tuple(np.array(values, dtype=np.float64) for values in column)
