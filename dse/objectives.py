"""What a search optimises and what bounds it: names, units, directions, comparisons."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from formats.errors import InvalidValueError
from formats.names import unknown_name
from hwmodels.cost import CostModel


def header(name: str, unit: str, model: str = "") -> str:
    """Return a column's header: the name, its unit, and the model that the figure is from."""
    return f"{name} [{unit}, {model}]" if model else f"{name} [{unit}]"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A figure with its unit and the direction in which it is better."""

    name: str
    unit: str
    direction: Literal["minimize", "maximize"] = "minimize"
    #: the cost model that the figure is from; empty for what is measured by running the network
    model: str = ""
    #: whether the figure is a sum over layers of what each layer's own quantizers settle
    by_layer: bool = False

    @property
    def is_cost(self) -> bool:
        """Whether the figure is a cost, known without running the network."""
        return bool(self.model)

    @property
    def header(self) -> str:
        """Name, unit and model, as a table's header has them."""
        return header(self.name, self.unit, self.model)

    def loss(self, figures: Mapping[str, float]) -> float:
        """Return the figure with the sign that makes less better."""
        return figures[self.name] if self.direction == "minimize" else -figures[self.name]


MEASURED = (Objective(name="accuracy", unit="share", direction="maximize"), Objective(name="kl", unit="nat"))

#: lowest and highest value of each
MEASURED_RANGES = {"accuracy": (0.0, 1.0), "kl": (0.0, float("inf"))}


def available(models: Sequence[CostModel]) -> dict[str, Objective]:
    """Return every objective by name: the measured figures and the metrics of the cost models that a network has a figure of."""
    costs = [
        Objective(
            name=metric.name,
            unit=metric.unit,
            direction=metric.direction,
            model=model.name,
            by_layer=model.separable and metric.total == "sum",
        )
        for model in models
        for metric in model.metrics
        if metric.total != "none"
    ]
    return {objective.name: objective for objective in (*MEASURED, *costs)}


def find(name: str, objectives: Mapping[str, Objective]) -> Objective:
    """Return the objective called ``name``; ``KeyError`` names the nearest."""
    if name not in objectives:
        raise unknown_name("objective", name, objectives)
    return objectives[name]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A figure that must be at most, or at least, a limit: ``lut<=20000``."""

    objective: Objective
    comparison: Literal["<=", ">="]
    limit: float

    @staticmethod
    def parse(text: str, objectives: Mapping[str, Objective]) -> "Bound":
        """Read the text form; ``KeyError`` for an unknown figure, ``ValueError`` for anything else that is off."""
        match = re.fullmatch(r"\s*([\w@]+)\s*(<=|>=)\s*(\S+)\s*", text)
        try:
            limit = float(match[3]) if match else float("nan")
        except ValueError:
            limit = float("nan")
        if match is None or limit != limit:
            raise InvalidValueError(f"a bound must be NAME<=NUMBER or NAME>=NUMBER, such as lut<=20000, not {text!r}")
        return Bound(objective=find(match[1], objectives), comparison="<=" if match[2] == "<=" else ">=", limit=limit)

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.objective.name}{self.comparison}{self.limit:.12g}"

    def violation(self, figures: Mapping[str, float]) -> float:
        """Return by how much the figure misses the bound: at most 0 where it keeps it."""
        value = figures[self.objective.name]
        return value - self.limit if self.comparison == "<=" else self.limit - value
