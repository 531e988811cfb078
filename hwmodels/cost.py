"""The one interface of every cost model: named figures with units, for each layer and for the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from formats.errors import InvalidValueError
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.workload import LayerWorkload


class NotPricedError(InvalidValueError):
    """A cost model knows no price of a layer's quantizer; ``layer`` is the layer's name where it is known."""

    def __init__(self, message: str, layer: str = "") -> None:
        """Keep the message and the layer apart, so that the name of the model can come between."""
        super().__init__(message)
        self.layer = layer


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure that a cost model gives."""

    name: str
    unit: str
    #: what is counted and by which model, printed below tables
    summary: str
    #: where the network's figure comes from: the ``sum`` over the layers, the model itself for the whole ``network`` (and for no
    #: layer), or there is ``none``
    total: Literal["sum", "network", "none"] = "sum"
    direction: Literal["minimize", "maximize"] = "minimize"


@dataclass(frozen=True, kw_only=True)
class Factors:
    """Two factors whose product is added to a decoded weight: (output channels, rank) and (rank, the rest)."""

    rank: int
    quantizer: TensorQuantizer


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """A layer with the quantizers chosen for its two operands."""

    workload: LayerWorkload
    weight: TensorQuantizer
    activation: TensorQuantizer
    #: what the layers that read this one's result quantize it by; empty where it leaves the network as it is
    outputs: tuple[TensorQuantizer, ...] = ()
    #: what is stored and computed beside the weight's codes
    factors: Factors | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkFigures:
    """What a model says of a network."""

    #: for each layer, in order, every metric but those of the network as a whole
    layers: tuple[Mapping[str, float], ...]
    #: the metrics of the network as a whole
    network: Mapping[str, float] = field(default_factory=dict)
    #: what is worth saying beside the figures, by a short name, such as the layer that limits the rate
    remarks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """A function from the layers of a network, with their quantizers, to figures, one for each of ``metrics``.

    A model that prices every layer by itself is written as a function of one plan, in ``per_layer``.
    """

    name: str
    metrics: tuple[Metric, ...]
    figures: Callable[[Sequence[LayerPlan]], NetworkFigures]
    #: whether a layer's figures depend on that layer's quantizers alone
    separable: bool = True


def require_codes_alone(plan: LayerPlan) -> None:
    """Refuse a weight that is more than its codes, for models that know no price of the rest."""
    if plan.factors is not None:
        raise InvalidValueError(f"weights must be codes alone, not have factors of rank {plan.factors.rank} beside them")


def per_layer(function: Callable[[LayerPlan], Mapping[str, float]]) -> Callable[[Sequence[LayerPlan]], NetworkFigures]:
    """Return the function of a network that asks ``function`` for each layer, and names the layer in its errors."""

    def figures(plans: Sequence[LayerPlan]) -> NetworkFigures:
        return NetworkFigures(layers=tuple(_priced(function, plan) for plan in plans))

    return figures


def _priced(function: Callable[[LayerPlan], Mapping[str, float]], plan: LayerPlan) -> Mapping[str, float]:
    try:
        return function(plan)
    except InvalidValueError as error:
        raise NotPricedError(str(error), plan.workload.name) from None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Figures by metric name: for each layer, in order, and for the network."""

    metrics: tuple[Metric, ...]
    layers: Mapping[str, Mapping[str, float]]
    #: the metrics of the network as a whole
    network: Mapping[str, float] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> dict[str, float]:
        """The network's figure of every metric that has one, in the order of the metrics."""
        found = {}
        for metric in self.metrics:
            if metric.total == "sum":
                found[metric.name] = sum(figures[metric.name] for figures in self.layers.values())
            elif metric.total == "network":
                found[metric.name] = self.network[metric.name]
        return found


def evaluate(models: Sequence[CostModel], plans: Sequence[LayerPlan]) -> Cost:
    """Ask every model for its figures.

    Raises ``NotPricedError``, naming the model and the layer, for a quantizer that a model knows no price of.
    """
    layers: list[dict[str, float]] = [{} for _ in plans]
    network: dict[str, float] = {}
    remarks: dict[str, str] = {}
    for model in models:
        given = _figures(model, plans)
        for figures, found in zip(layers, given.layers, strict=True):
            figures |= {metric.name: float(found[metric.name]) for metric in model.metrics if metric.total != "network"}
        network |= {metric.name: float(given.network[metric.name]) for metric in model.metrics if metric.total == "network"}
        remarks |= given.remarks
    return Cost(
        metrics=tuple(metric for model in models for metric in model.metrics),
        layers={plan.workload.name: figures for plan, figures in zip(plans, layers, strict=True)},
        network=network,
        remarks=remarks,
    )


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


def _figures(model: CostModel, plans: Sequence[LayerPlan]) -> NetworkFigures:
    try:
        return model.figures(plans)
    except NotPricedError as error:
        where = f", layer {error.layer!r}" if error.layer else ""
        raise NotPricedError(f"{error} (cost model {model.name!r}{where})", error.layer) from None
