"""Activation-aware scaling of weights: channels that activations make salient are rounded finer (AWQ, arXiv 2306.00978)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dse.network import Network
from dse.ptq import capture
from dse.ptq.moments import Moments, moments
from dse.ptq.observe import Floats, magnitudes, observe
from dse.ptq.rewrite import Change, factors, layer_nodes, require, rewritten, stored_operand, stored_tensor
from dse.ptq.spaces import Member, Reading, Space, spaces
from dse.ptq.step import LayerData
from formats import Quantizer, TensorQuantizer
from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class Awq:
    """Multiply the weights that read channel j by ``s_j = mean|X_j|^alpha`` and divide what writes the channel by it.

    alpha is the one of 0, 1/grid, … (grid - 1)/grid with the least squared error of the outputs,
    ``|Q(W s) (X / s) - W X|^2`` for the quantizer Q called ``format`` (equations 4 and 5), searched for one space after the other;
    scales are divided by ``sqrt(max(s) min(s))`` first. The errors of all layers of a space count, each as a share of its output's
    power: those that read it, and those that write it, whose weights the division changes; where output channels have scales of
    their own it hardly bears on them. Channels that are always zero are left alone.
    """

    name: ClassVar[str] = "awq"
    summary: ClassVar[str] = "weights of salient channels scaled up before rounding (AWQ)"
    format: str = "int4:channel:absmax"
    grid: int = 20

    def __post_init__(self) -> None:
        """Refuse what is no quantizer, or an empty grid."""
        _quantizer(self.format)
        if self.grid < 1:
            raise InvalidValueError(f"grid of awq must be at least 1, not {self.grid}")

    def apply(self, network: Network, images: NDArray[np.float32]) -> Network:
        """Return the network with scaled weights; ``images`` are what errors and means are taken over."""
        found = [space for space in spaces(network, "diagonal") if _readers(space)]
        require(found, network, self.name, "weights whose input channels can be scaled where they are written")
        search = _Search(network, images, found, _quantizer(self.format))
        means = [_mean(space, observed) for space, observed in zip(found, observe(network, found, images, magnitudes), strict=True)]
        alphas = np.arange(self.grid) / self.grid
        progress = tqdm(list(zip(found, means, strict=True)), desc="awq", unit="space", disable=None)
        changes = [
            Change(space=space, map=search.best(space, [_scales(mean, alpha) for alpha in alphas])) for space, mean in progress
        ]
        return rewritten(network, changes, images)


def _quantizer(text: str) -> TensorQuantizer:
    return Quantizer.parse(text, granularity="channel")


def _layers(members: Iterable[Member]) -> list[str]:
    return list(dict.fromkeys(member.owner for member in members if member.role == "weight"))


def _readers(space: Space) -> list[str]:
    """Return the layers whose weights read channels of the space as their input."""
    reading = {part.layer for part in space.readings if part.sign > 0 and part.place == "activation"}
    return [name for name in _layers(space.weights(-1)) if name in reading]


def _mean(space: Space, observed: list[tuple[Reading, Floats]]) -> Floats:
    """Return the mean magnitude of every channel over all layers that read it as their input."""
    readers = _readers(space)
    sums, values = np.sum([part.sum(axis=0) for reading, part in observed if reading.layer in readers], axis=0)
    mean: Floats = sums / np.maximum(values, 1)
    return mean


def _scales(mean: Floats, alpha: float) -> Floats:
    """Return what is written is multiplied by: the inverse of s."""
    alive = mean > 0
    if not alive.any():
        return np.ones_like(mean)
    powers = mean[alive] ** alpha
    scales = np.ones_like(mean)
    scales[alive] = np.sqrt(powers.max() * powers.min()) / powers
    return scales


class _Search:
    """The factors found so far, by tensor, and what errors are computed from: the float network's weights and operands."""

    def __init__(self, network: Network, images: NDArray[np.float32], found: list[Space], quantizer: TensorQuantizer) -> None:
        self.quantizer = quantizer
        nodes = layer_nodes(network)
        names = [name for space in found for sign in (1, -1) for name in _layers(space.weights(sign))]
        self.names = {name: str(stored_operand(nodes[name], 1)) for name in dict.fromkeys(names)}
        self.weights: dict[str, Floats] = {}
        self.moments: dict[str, Moments] = {}
        for name in tqdm(self.names, desc="awq operands", unit="layer", disable=None):
            bias = stored_tensor(network, str(stored_operand(nodes[name], 2))).numpy()
            inputs = capture.operands(network, [name], images)[name]
            data = LayerData(layer=network.layer(name), node=nodes[name], bias=bias, inputs=inputs)
            self.weights[name], self.moments[name] = data.weight.astype(np.float64), moments(data)
        self.power = {name: float(self.moments[name].squared_errors(weight).sum()) for name, weight in self.weights.items()}
        self.factors: dict[str, Floats] = {tensor: np.ones(1) for tensor in self.names.values()}

    def best(self, space: Space, candidates: list[Floats]) -> Floats:
        """Return the candidate with the least error, the first of equals, and keep the factors that it brings."""
        tried = [self._with(space, scales) for scales in candidates]
        names = [name for name, tensor in self.names.items() if tensor in tried[0]]
        errors = [sum(self._error(name, made[self.names[name]]) for name in names) for made in tried]
        chosen = int(np.argmin(errors))
        self.factors.update(tried[chosen])
        return candidates[chosen]

    def _with(self, space: Space, scales: Floats) -> dict[str, Floats]:
        """Return the factors of the weights of a space as they would be with these scales."""
        made: dict[str, Floats] = {}
        for member in (*space.weights(1), *space.weights(-1)):
            if member.role == "weight":
                made[member.tensor] = made.get(member.tensor, self.factors[member.tensor]) * factors(member, scales)
        return made

    def _error(self, name: str, factor: Floats) -> float:
        """Return the error of a layer's output, in the units of the float network, as a share of its power."""
        scaled = (self.weights[name] * factor).astype(np.float32)
        error = self.quantizer.encode(scaled).decode() / factor - self.weights[name]
        return float(self.moments[name].squared_errors(error).sum()) / self.power[name] if self.power[name] > 0 else 0.0
