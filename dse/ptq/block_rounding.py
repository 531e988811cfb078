"""Learned rounding of all layers of a block at once, for the output of the block.

Block reconstruction (Li et al., "BRECQ", arXiv 2102.05426) with AdaRound's choices, on any grid (see ``dse.ptq.rounding``, whose
conventions hold): what is compared is the tensor that leaves the block, behind its activation functions and residual sums, over
the block's input in the float network, by mini-batches drawn from a seed. The error is divided by that of the weights as they
came. Choices begin near the codes that came, ``START`` of the way from the weight itself, so that what earlier steps found is
built upon: best after ``round``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from tqdm import tqdm

from dse.network import Filling, Layer, Network, Place, channels_last
from dse.ptq.alone import alone
from dse.ptq.blocks import block_of, part, run
from dse.ptq.capture import BATCH, stored
from dse.ptq.grid import Grid, grid
from dse.ptq.rounding import Choice, check_learning
from dse.ptq.step import PreparedWeight
from formats.errors import InvalidValueError
from formats.tensor_quantizer import EncodedTensor, TensorQuantizer

#: how far each choice begins on the way from the weight itself to the code that came
START = 0.9


@dataclass(frozen=True, kw_only=True)
class RoundBlock:
    """Learned rounding of a block's layers."""

    name: ClassVar[str] = "round_block"
    summary: ClassVar[str] = "learn all roundings of a block at once, for the block's output"

    iterations: int = 300
    #: weight of the regulariser that draws each choice to 0 or 1
    regularisation: float = 30.0
    learning_rate: float = 0.1
    #: samples that each step looks at
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options out of their range."""
        check_learning(self.name, self.iterations, self.learning_rate)
        if self.batch < 1:
            raise InvalidValueError(f"batch of round_block must be at least 1, not {self.batch}")

    def apply(
        self,
        network: Network,
        layers: Sequence[str],
        quantizers: Mapping[str, TensorQuantizer],
        prepared: Mapping[str, PreparedWeight],
        images: NDArray[np.float32],
    ) -> Mapping[str, PreparedWeight]:
        """Return the block's weights with new codes, or as they came where the block's output would err more on ``images``.

        Raises ``ValueError`` for layers that are not those of one block (see ``dse.ptq.blocks``).
        """
        block = block_of(network, layers)
        with alone():
            entry = images if block.entry.op == "placeholder" else run(part(network, _input(network), block.entry), images, BATCH)
            module = part(network, block.entry, block.exit)
            wanted = run(module, entry, BATCH)
            softs = {name: _Soft(stored(network.layer(name)), prepared[name]) for name in block.layers}
            came = _error(network, module, entry, wanted, softs, "came")
        with alone(learning=True), network.filled(_fillings(softs, "soft")):
            self._learn(module, entry, wanted, list(softs.values()), came)
        with alone():
            learned = _error(network, module, entry, wanted, softs, "hard")
        return {
            name: prepared[name] if learned >= came else prepared[name].with_codes(soft.stored()) for name, soft in softs.items()
        }

    def _learn(
        self, module: fx.GraphModule, entry: NDArray[np.float32], wanted: NDArray[np.float32], softs: Sequence["_Soft"], came: float
    ) -> None:
        draws = np.random.default_rng(self.seed)
        optimizer = torch.optim.Adam([soft.choice.logits for soft in softs], lr=self.learning_rate)
        for step in tqdm(range(self.iterations), desc=f"rounding {softs[0].layer.name} …", disable=None, leave=False):
            chosen = draws.integers(0, len(entry), min(self.batch, len(entry)))
            found = module(channels_last(torch.from_numpy(entry[chosen])), len(chosen))
            error = (found - torch.from_numpy(wanted[chosen])).square().mean() / max(came, float(np.finfo(np.float32).tiny))
            undecided = torch.cat([soft.choice.undecided(step / self.iterations).reshape(-1) for soft in softs])
            optimizer.zero_grad()
            (error + self.regularisation * undecided.mean()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


class _Soft:
    """One layer's choices, and what it computes with while they are learned."""

    def __init__(self, layer: Layer, prepared: PreparedWeight) -> None:
        assert layer.weight is not None
        self.layer, self.prepared = layer, prepared
        self.grid: Grid = grid(prepared.encoded)
        self.added = np.zeros((), np.float32)
        if prepared.low_rank is not None:
            self.added = prepared.low_rank.values().reshape(layer.weight.shape)
        decoded = prepared.encoded.decode()
        aim = (layer.weight - self.added).astype(np.float32)
        self.choice = Choice.between_neighbours(self.grid, (aim + np.float32(START) * (decoded - aim)).astype(np.float32))

    def soft(self, operand: Tensor) -> Tensor:
        """Return the soft weight."""
        return channels_last(self.choice.soft() + torch.tensor(self.added))

    def hard(self, operand: Tensor) -> Tensor:
        """Return the weight that the choices come to."""
        return self._weight(self.stored().decode())

    def came(self, operand: Tensor) -> Tensor:
        """Return the weight that came."""
        return self._weight(self.prepared.encoded.decode())

    def stored(self) -> EncodedTensor:
        """Return what the choices come to, with the scales as they were."""
        return self.grid.store(self.choice.codes(self.grid, self.choice.upper()))

    def bias(self, operand: Tensor) -> Tensor:
        """Return the bias with its shift."""
        return operand if self.prepared.bias_shift is None else operand + torch.tensor(self.prepared.bias_shift)

    def _weight(self, decoded: NDArray[np.float32]) -> Tensor:
        return channels_last(torch.from_numpy((decoded + self.added).astype(np.float32)))


def _fillings(softs: Mapping[str, _Soft], kind: Literal["soft", "hard", "came"]) -> dict[tuple[str, Place], Filling]:
    found: dict[tuple[str, Place], Filling] = {}
    for name, soft in softs.items():
        found[name, "weight"], found[name, "bias"] = getattr(soft, kind), soft.bias
    return found


def _error(
    network: Network,
    module: fx.GraphModule,
    entry: NDArray[np.float32],
    wanted: NDArray[np.float32],
    softs: Mapping[str, _Soft],
    kind: Literal["hard", "came"],
) -> float:
    """Return the mean squared error of the block's output over all samples."""
    with network.filled(_fillings(softs, kind)):
        return float(np.square(run(module, entry, BATCH) - wanted, dtype=np.float64).mean())


def _input(network: Network) -> fx.Node:
    found: fx.Node = next(node for node in network.graph_module.graph.nodes if node.op == "placeholder")
    return found
