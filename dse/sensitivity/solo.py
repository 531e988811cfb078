"""Sensitivities by trying: the divergence with one group's layers quantized, all others float."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from dse.network import Network, channels_last
from dse.sensitivity.groups import Fillings, Group
from dse.sensitivity.interpreter import Runner, Values, all_values, downstream, slot_nodes, slots
from formats.errors import BitatlasError


def batch_scores(
    network: Network, groups: Sequence[Group], fillings: Sequence[Sequence[Fillings]], images: NDArray[np.float32]
) -> list[NDArray[np.float64]]:
    """Return for one batch the sums over its samples of KL(float || quantized) in nats, float64 of shape (options,) by group."""
    values, reference = all_values(network, channels_last(torch.from_numpy(images)))
    scores = []
    for group, options in zip(groups, fillings, strict=True):
        start = unchanged(network, group, values)
        scores.append(np.array([divergence(reference, logits(network, option, start)) for option in options]))
    return scores


def divergence(reference: Tensor, changed: Tensor) -> float:
    """Return the sum over samples of the Kullback-Leibler divergence of softmax(changed) from softmax(reference), in nats."""
    if not torch.isfinite(changed).all():
        raise BitatlasError(f"logits must be finite, not NaN or Inf in {int((~torch.isfinite(changed)).sum())} values")
    expected, found = (log_softmax(part.numpy().astype(np.float64), axis=1) for part in (reference, changed))
    return float(max((np.exp(expected) * (expected - found)).sum(), 0.0))


def unchanged(network: Network, group: Group, values: Values) -> Values:
    """Return the float values that do not depend on what stands in a group's slots."""
    changed = downstream(set(slot_nodes(network, group.layers).values()), network)
    return {node: value for node, value in values.items() if node not in changed}


def logits(network: Network, fillings: Fillings, start: Values) -> Tensor:
    """Run the rest of the network from float values that are at hand, with some slots filled."""
    result: Tensor = Runner(network, slots(network, fillings)).run(initial_env=dict(start))
    return result
