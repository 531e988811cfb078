"""Where hypervolumes are measured: objectives, their axes, and the box that a table's own extremes span."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dse.proposals.hypervolume import Points, hypervolume, normalise
from dse.proposals.table import ChoiceTable, Column
from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Objectives by name, the loss first, and the least and greatest figure of each; all are minimised on logarithmic axes.

    The ideal lies at 0 and the reference at 1 of every axis, so hypervolumes in one frame can be compared.
    """

    names: tuple[str, ...]
    ideals: tuple[float, ...]
    references: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse axes without an extent."""
        if len(self.names) < 2 or len(set(self.names)) != len(self.names):
            raise InvalidValueError(f"objectives must be different names, at least two, not {', '.join(self.names) or 'none'}")
        for name, ideal, reference in zip(self.names, self.ideals, self.references, strict=True):
            if not (0 < ideal < reference < np.inf):
                raise InvalidValueError(f"axis must run from above 0 to more than that, not from {ideal} to {reference} ({name})")

    @staticmethod
    def of(table: ChoiceTable, loss: str, costs: Sequence[str]) -> "Frame":
        """Span the frame by the least and the greatest totals of the table; a least of zero counts as 1e-6 of the greatest."""
        columns = {loss: table.losses, **{name: table.column(name) for name in costs}}
        ends = [_ends(name, column) for name, column in columns.items()]
        return Frame(names=tuple(columns), ideals=tuple(low for low, _ in ends), references=tuple(high for _, high in ends))

    @staticmethod
    def of_all(tables: Sequence[ChoiceTable], loss: str, costs: Sequence[str]) -> "Frame":
        """Span one frame over several tables."""
        frames = [Frame.of(table, loss, costs) for table in tables]
        ideals, references = (
            zip(*(frame.ideals for frame in frames), strict=True),
            zip(*(f.references for f in frames), strict=True),
        )
        return Frame(names=frames[0].names, ideals=tuple(map(min, ideals)), references=tuple(map(max, references)))

    def place(self, figures: Sequence[Mapping[str, float]]) -> Points:
        """Return (N, objectives) points for figures by name."""
        for name in self.names:
            if any(name not in row for row in figures):
                raise InvalidValueError(f"figures must hold every objective, not lack {name!r}")
        return self.points(np.array([[row[name] for name in self.names] for row in figures]).reshape(-1, len(self.names)))

    def points(self, figures: Points) -> Points:
        """Return (N, objectives) figures on the frame's axes; none counts as better than a millionth of its ideal."""
        ideals, references = np.array(self.ideals), np.array(self.references)
        return normalise(np.log(np.maximum(figures, 1e-6 * ideals)), np.log(ideals), np.log(references))

    @property
    def reference(self) -> Points:
        """The reference point on the frame's axes: ones."""
        return np.ones(len(self.names))

    def hypervolume(self, figures: Sequence[Mapping[str, float]]) -> float:
        """Return the hypervolume of measured figures."""
        return hypervolume(self.place(figures), self.reference)


def _ends(name: str, column: Column) -> tuple[float, float]:
    low, high = sum(float(part.min()) for part in column), sum(float(part.max()) for part in column)
    if not low < high:
        raise InvalidValueError(f"objective must differ between options, not be {low:.12g} for all ({name})")
    return max(low, 1e-6 * high), high
