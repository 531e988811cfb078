"""What an assignment does to a network's predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.assignment import Assignment
from dse.data import Split
from dse.quantize import Preparation
from formats.errors import BitatlasError


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Accuracy as a share of samples, and the mean Kullback-Leibler divergence from the float network's predictions, in nats."""

    accuracy: float
    kl: float


def figures(logits: NDArray[np.float32], float_logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Figures:
    """Compare logits of shape (N, classes) with the float network's and with the labels."""
    if not np.isfinite(logits).all():
        raise BitatlasError(f"logits must be finite, not NaN or Inf in {int((~np.isfinite(logits)).sum())} values")
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    reference, quantized = _log_softmax(float_logits), _log_softmax(logits)
    divergence = (np.exp(reference) * (reference - quantized)).sum(axis=1)
    return Figures(accuracy=accuracy, kl=float(max(divergence.mean(), 0.0)))


def quantized_logits(preparation: Preparation, assignment: Assignment, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the network on (N, …) samples under an assignment."""
    prepared = preparation.after(assignment.steps)
    with prepared.network.filled(prepared.fillings(assignment)):
        return prepared.network.logits(images)


def measure(preparation: Preparation, assignment: Assignment, split: Split, float_logits: NDArray[np.float32]) -> Figures:
    """Measure an assignment on a split whose float logits are at hand."""
    return figures(quantized_logits(preparation, assignment, split.images), float_logits, split.labels)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
