"""The one interface of every cost model: named figures with units, for each layer and in total."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from formats import Quantizer
from hwmodels.workload import LayerWorkload


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure that a cost model gives."""

    name: str
    unit: str
    #: what is counted and by which model, printed below tables
    summary: str
    #: whether the figures of the layers add up to the network's
    additive: bool = True


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """A layer with the quantizers chosen for its two operands."""

    workload: LayerWorkload
    weight: Quantizer
    activation: Quantizer


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """A function from a layer and its quantizers to figures, one for each of ``metrics``."""

    name: str
    metrics: tuple[Metric, ...]
    figures: Callable[[LayerPlan], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Figures by metric name: for each layer, in order, and in total over the additive ones."""

    metrics: tuple[Metric, ...]
    layers: Mapping[str, Mapping[str, float]]

    @property
    def total(self) -> dict[str, float]:
        """Sum of each additive metric over the layers."""
        added = [metric.name for metric in self.metrics if metric.additive]
        return {name: sum(figures[name] for figures in self.layers.values()) for name in added}


def evaluate(models: Sequence[CostModel], plans: Sequence[LayerPlan]) -> Cost:
    """Ask every model for the figures of every layer."""
    layers: dict[str, Mapping[str, float]] = {}
    for plan in plans:
        figures: dict[str, float] = {}
        for model in models:
            given = model.figures(plan)
            figures.update({metric.name: float(given[metric.name]) for metric in model.metrics})
        layers[plan.workload.name] = figures
    return Cost(metrics=tuple(metric for model in models for metric in model.metrics), layers=layers)
