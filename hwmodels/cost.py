"""The one interface of every cost model: named figures with units, for each layer and in total."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from formats.errors import InvalidValueError
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.workload import LayerWorkload


class NotPricedError(InvalidValueError):
    """A cost model knows no price of a layer's quantizer."""


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
    weight: TensorQuantizer
    activation: TensorQuantizer


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
    """Ask every model for the figures of every layer.

    Raises ``NotPricedError``, naming the model and the layer, for a quantizer that a model knows no price of.
    """
    layers: dict[str, Mapping[str, float]] = {}
    for plan in plans:
        figures: dict[str, float] = {}
        for model in models:
            given = _figures(model, plan)
            figures.update({metric.name: float(given[metric.name]) for metric in model.metrics})
        layers[plan.workload.name] = figures
    return Cost(metrics=tuple(metric for model in models for metric in model.metrics), layers=layers)


def evaluate_priced(models: Sequence[CostModel], plans: Sequence[LayerPlan]) -> tuple[Cost, tuple[str, ...]]:
    """Ask the models that can price every layer; also return why each of the others was left out, one line each."""
    kept: list[CostModel] = []
    reasons: list[str] = []
    for model in models:
        try:
            evaluate([model], plans)
        except NotPricedError as error:
            reasons.append(str(error))
        else:
            kept.append(model)
    return evaluate(kept, plans), tuple(reasons)


def _figures(model: CostModel, plan: LayerPlan) -> Mapping[str, float]:
    try:
        return model.figures(plan)
    except InvalidValueError as error:
        raise NotPricedError(f"{error} (cost model {model.name!r}, layer {plan.workload.name!r})") from None
