"""Tables of one choice for networks that were prepared in different ways; selections as a trial's parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.distributions import CategoricalDistribution

from dse.proposals.table import ChoiceTable, Selection
from dse.space import NETWORK, PARTS
from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True, eq=False)
class Variants:
    """Tables by name, all of the same groups and options; a selection begins with the index of its table.

    An option's text has one part or several with blanks between them; each part is a parameter of its own. The table is one where
    there are several.
    """

    tables: Mapping[str, ChoiceTable]

    def __post_init__(self) -> None:
        """Refuse tables of different choices."""
        if not self.tables:
            raise InvalidValueError("tables must be at least one, not none")
        if len({(table.groups, table.options) for table in self.tables.values()}) > 1:
            raise InvalidValueError(f"tables must be of the same groups and options, not different ones ({', '.join(self.tables)})")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the tables, by index."""
        return tuple(self.tables)

    @cached_property
    def first(self) -> ChoiceTable:
        """The first table, whose groups and options are those of all."""
        return next(iter(self.tables.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of tables, and of options of each group."""
        return (len(self.tables), *self.first.sizes)

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Names of each group's parameters."""
        counts = {group: max(text.count(" ") + 1 for text in texts) for group, texts in self._options.items()}
        return {group: (group,) if count == 1 else tuple(f"{group}/{p}" for p in PARTS[:count]) for group, count in counts.items()}

    @cached_property
    def _options(self) -> dict[str, tuple[str, ...]]:
        return dict(zip(self.first.groups, self.first.options, strict=True))

    def _texts(self, group: str, option: str) -> list[str]:
        """Return an option's parts, ``none`` for those at the end that it does not name."""
        given = option.split(" ")
        return given + ["none"] * (len(self.parts[group]) - len(given))

    def params(self, selection: Selection) -> dict[str, str]:
        """Return the parameters of a trial for a selection."""
        found = {NETWORK: self.names[selection[0]]} if len(self.names) > 1 else {}
        for group, option in self.first.names(selection[1:]).items():
            found |= dict(zip(self.parts[group], self._texts(group, option), strict=True))
        return found

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether parameters are whole: those of a trial that has begun may be missing."""
        return all(name in params for names in self.parts.values() for name in names) and (
            len(self.names) == 1 or NETWORK in params
        )

    def selection(self, params: Mapping[str, Any]) -> Selection:
        """Return the selection that a trial's parameters stand for."""
        index = self.names.index(params[NETWORK]) if len(self.names) > 1 else 0
        named = {}
        for group, names in self.parts.items():
            texts = [str(params[name]) for name in names]
            named[group] = next((o for o in self._options[group] if self._texts(group, o) == texts), " ".join(texts))
        return (index, *self.first.selection(named))

    def distributions(self) -> dict[str, CategoricalDistribution]:
        """Return one categorical parameter for each part of each group, and one for the table where there are several."""
        found = {NETWORK: CategoricalDistribution(self.names)} if len(self.names) > 1 else {}
        for group, names in self.parts.items():
            columns = zip(*(self._texts(group, option) for option in self._options[group]), strict=True)
            found |= {n: CategoricalDistribution(tuple(dict.fromkeys(column))) for n, column in zip(names, columns, strict=True)}
        return found

    def to_json(self) -> str:
        """Return the tables as JSON."""
        return json.dumps({name: json.loads(table.to_json()) for name, table in self.tables.items()})

    @staticmethod
    def from_json(text: str) -> "Variants":
        """Read what ``to_json`` wrote."""
        return Variants(tables={name: ChoiceTable.from_json(json.dumps(table)) for name, table in json.loads(text).items()})
