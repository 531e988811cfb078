"""A subject made ready: traced, calibrated, its float predictions known, its measurements cached."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dse import results
from dse.assignment import Assignment
from dse.calibrate import calibrate
from dse.data import Split
from dse.definitions import definitions
from dse.evaluate import Figures, figures, measure
from dse.models.loading import Subject
from dse.network import Layer, build
from dse.ptq import steps as stepping
from dse.ptq.low_rank import LowRankCompensation
from dse.quantize import Preparation
from formats.quantizer import Quantizer
from formats.tensor_quantizer import TensorQuantizer
from hwmodels import cost
from hwmodels.cost import Cost, CostModel, Factors, LayerPlan
from hwmodels.finn_formula import CYCLES, finn_formula
from hwmodels.fpga import prices
from hwmodels.fpga.dataflow_model import dataflow
from hwmodels.fpga.pipeline import Target
from hwmodels.storage import BIT_OPERATIONS, WEIGHT_MEMORY


def cost_models(cycles: int = CYCLES, target: Target | None = None, gpus: Sequence[CostModel] = ()) -> tuple[CostModel, ...]:
    """Return the cost models: for a pipeline folded for ``target``, or by formula for ``cycles`` clock cycles for a sample.

    Those of GPUs follow.
    """
    return (WEIGHT_MEMORY, BIT_OPERATIONS, finn_formula(cycles) if target is None else dataflow(target, prices.DEFAULT), *gpus)


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Measures assignments of one subject; a measurement made before, in this run or another, is looked up."""

    subject: Subject
    preparation: Preparation
    cost_models: tuple[CostModel, ...]
    store: results.ResultStore
    _float_logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, str]:
        """What every measurement depends on beside the assignment: digests by name."""
        return {"model weights": self.preparation.network.digest, "data set": self.subject.dataset.digest}

    def split(self, name: str) -> Split:
        """Return a split of the subject's data."""
        return self.subject.dataset.split(name)

    def float_logits(self, split: str) -> NDArray[np.float32]:
        """Return the float network's logits on a split, computed once."""
        if split not in self._float_logits:
            self._float_logits[split] = self.preparation.network.logits(self.split(split).images)
        return self._float_logits[split]

    def float_figures(self, split: str) -> Figures:
        """Return the float network's own figures."""
        logits = self.float_logits(split)
        return figures(logits, logits, self.split(split).labels)

    def measure(self, assignment: Assignment, split: str = "validation", samples: int | None = None) -> Figures:
        """Return accuracy and KL of an assignment on a split or its first samples, from the cache where it is there."""
        part = split if samples is None else f"{split}[:{samples}]"
        wanted = results.key(*self.identity.values(), part, assignment.digest, _definitions(assignment))
        found = self.store.get(wanted)
        if found is None or set(found) != {"accuracy", "kl"}:
            whole = self.split(split)
            first = Split(images=whole.images[:samples], labels=whole.labels[:samples])
            measured = measure(self.preparation, assignment, first, self.float_logits(split)[:samples])
            found = {"accuracy": measured.accuracy, "kl": measured.kl}
            self.store.put(wanted, found)
        return Figures(accuracy=found["accuracy"], kl=found["kl"])

    def cost(self, assignment: Assignment) -> Cost:
        """Return the costs of an assignment by every cost model; ``NotPricedError`` where one knows no price of a quantizer."""
        return cost.evaluate(self.cost_models, self.plans(assignment))

    def priced_cost(self, assignment: Assignment) -> tuple[Cost, tuple[str, ...]]:
        """Return the costs by the models that can price the assignment, and why the others were left out."""
        return cost.evaluate_priced(self.cost_models, self.plans(assignment))

    def plans(self, assignment: Assignment) -> list[LayerPlan]:
        """Return every layer's workload with its quantizers, and those that its readers quantize its result by."""
        outputs = self._outputs(assignment)
        return [
            LayerPlan(
                workload=layer.workload,
                weight=assignment.layers[layer.name].weight,
                activation=assignment.layers[layer.name].activation,
                outputs=tuple(outputs.get(layer.name, {}).values()),
                factors=_factors(layer, assignment.layers[layer.name].steps),
            )
            for layer in self.preparation.network.layers
        ]

    def _outputs(self, assignment: Assignment) -> dict[str, dict[tuple[str, str], TensorQuantizer]]:
        """Collect for each layer the different quantizers of the tensors that it is the last to make, by tensor and text."""
        found: dict[str, dict[tuple[str, str], TensorQuantizer]] = {}
        for layer in self.preparation.network.layers:
            for role, operand in layer.operands.items():
                if operand.producer is not None:
                    quantizer = assignment.layers[layer.name].quantizer(role)
                    found.setdefault(operand.producer, {})[operand.source, str(quantizer)] = quantizer
        return found


def _factors(layer: Layer, steps: Sequence[str]) -> Factors | None:
    """Return what steps store beside a layer's codes."""
    for step in map(stepping.parse, steps):
        if isinstance(step, LowRankCompensation):
            assert layer.weight is not None
            rank = min(step.rank, len(layer.weight), layer.weight[0].size)
            return Factors(rank=rank, quantizer=Quantizer.parse(step.factors, granularity="channel"))
    return None


def _definitions(assignment: Assignment) -> str:
    return definitions(quantizer for layer in assignment.layers.values() for quantizer in (layer.weight, layer.activation))


def prepare(
    subject: Subject,
    cycles: int = CYCLES,
    store: results.ResultStore | None = None,
    target: Target | None = None,
    gpus: Sequence[CostModel] = (),
) -> Experiment:
    """Trace and calibrate a subject."""
    network = build(subject.model, subject.module, subject.dataset.sample_shape)
    statistics = calibrate(network, subject.dataset.calibration)
    return Experiment(
        subject=subject,
        preparation=Preparation(network=network, statistics=statistics, calibration=subject.dataset.calibration),
        cost_models=cost_models(cycles, target, gpus),
        store=store or results.ResultStore(),
    )
