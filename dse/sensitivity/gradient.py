"""Sensitivities from gradients: how much the loss would change for what quantization does to each layer's output.

The Kullback-Leibler divergence between the float network's predictions and those of one whose layer's output is off by d is, to
second order, ½ dᵀ F d, with F the Fisher information of the predictions: the mean, over labels drawn from the predictions
themselves, of the outer product of the gradient g of the label's cross-entropy (no given labels are needed). Two estimates of it:

- ``full``: ½ (g·d)², unbiased. Errors that go in one direction together add up as they do.
- ``diagonal``: ½ Σ g² d², element by element, the form of ModelOpt's AutoQuantize. It takes errors of different elements for
  independent, and has less noise.

Both are means over samples, in nats, and sums over the layers of a group.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.nn import functional

from dse.network import Filling, Network, channels_last
from dse.sensitivity.groups import Fillings, Group, filled_copy
from dse.sensitivity.interpreter import Runner, Values, layer_nodes, slot_nodes

Form = Literal["diagonal", "full"]


def batch_scores(
    network: Network,
    groups: Sequence[Group],
    fillings: Sequence[Sequence[Fillings]],
    images: NDArray[np.float32],
    seed: Sequence[int],
    form: Form,
) -> list[NDArray[np.float64]]:
    """Return for one batch the sums over its samples, float64 of shape (options,) for each group."""
    nodes = layer_nodes(network)
    values, gradients = _gradients(network, images, seed, [nodes[name] for group in groups for name in group.layers])
    scores = []
    for group, options in zip(groups, fillings, strict=True):
        total = np.zeros(len(options))
        for name in group.layers:
            local = _Local(network, name, nodes[name], values)
            total += [_divergence(local.change(of_option), gradients[nodes[name]], form) for of_option in options]
        scores.append(total)
    return scores


def _gradients(
    network: Network, images: NDArray[np.float32], seed: Sequence[int], nodes: Sequence[fx.Node]
) -> tuple[Values, Mapping[fx.Node, Tensor]]:
    """Run the float network forwards and back; return every node's value, and the gradients at the layers' outputs."""
    with torch.inference_mode(False), torch.enable_grad():
        samples = channels_last(torch.from_numpy(images).clone()).requires_grad_()
        runner = Runner(network, keep=True)
        logits: Tensor = runner.run(samples)
        probabilities = torch.softmax(logits.detach().double(), dim=1).numpy()
        labels = _drawn(probabilities, np.random.default_rng(seed))
        loss = functional.cross_entropy(logits, torch.from_numpy(labels), reduction="sum")
        found = torch.autograd.grad(loss, [runner.env[node] for node in nodes])
    values = {node: value.detach() if isinstance(value, Tensor) else value for node, value in runner.env.items()}
    return values, dict(zip(nodes, found, strict=True))


def _drawn(probabilities: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw one label for each row of probabilities, by the inverse of the cumulative distribution."""
    thresholds = generator.random((len(probabilities), 1)) * probabilities.sum(axis=1, keepdims=True)
    drawn = (np.cumsum(probabilities, axis=1) <= thresholds).sum(axis=1)
    labels: NDArray[np.int64] = np.minimum(drawn, probabilities.shape[1] - 1).astype(np.int64)
    return labels


def _divergence(change: Tensor, gradient: Tensor, form: Form) -> float:
    """Return half the quadratic form, summed over samples."""
    weighted = (change * gradient).double().flatten(1)
    if form == "diagonal":
        return 0.5 * float(weighted.square().sum())
    return 0.5 * float(weighted.sum(dim=1).square().sum())


class _Local:
    """One layer on its float operands; what fillings make of them is computed once for each filling."""

    def __init__(self, network: Network, name: str, node: fx.Node, values: Values) -> None:
        self._node, self._values = node, values
        self._slots = slot_nodes(network, (name,))
        self._filled: dict[tuple[fx.Node, int], Tensor] = {}

    def change(self, fillings: Fillings) -> Tensor:
        """Return the layer's output on filled operands less its float output."""
        replaced = {slot: self._through(slot, fillings.get(key)) for key, slot in self._slots.items()}

        def value(node: fx.Node) -> Any:
            return replaced[node] if node in replaced else self._values[node]

        assert callable(self._node.target)
        output: Tensor = self._node.target(*fx.map_arg(self._node.args, value), **fx.map_arg(self._node.kwargs, value))
        changed: Tensor = output - self._values[self._node]
        return changed

    def _through(self, slot: fx.Node, filling: Filling | None) -> Any:
        operand = self._values[slot]
        if filling is None:
            return operand
        key = (slot, id(filling))
        if key not in self._filled:
            # a filling may write to memory that the next one writes to again
            self._filled[key] = filled_copy(filling, operand).clone()
        return self._filled[key]
