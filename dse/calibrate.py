"""What the operands of every layer look like on the calibration split, in the float network."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dse.data import Split
from dse.network import Filling, Network, Place, Role
from formats.errors import BitatlasError

#: values kept of each operand; scale choices by percentile and by MSE look at these
SAMPLE = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class OperandStatistics:
    """Range of an operand over the whole calibration split, and a random sample of its values, float32 of shape (n,).

    The sample always holds both ends of the range.
    """

    minimum: float
    maximum: float
    sample: NDArray[np.float32]

    @property
    def never_negative(self) -> bool:
        """Whether an unsigned format loses nothing: true after a ReLU or a softmax."""
        return self.minimum >= 0


class _Observer:
    """A filling that looks at the operand and passes it on."""

    def __init__(self, layer: str, source: str, batches: int) -> None:
        self.layer = layer
        self.generator = np.random.default_rng(zlib.crc32(source.encode()))
        self.share = max(1, SAMPLE // batches)
        self.minimum, self.maximum = np.float32(np.inf), np.float32(-np.inf)
        self.parts: list[NDArray[np.float32]] = []
        self.not_finite = 0

    def __call__(self, operand: Tensor) -> Tensor:
        values = operand.numpy().reshape(-1)
        self.not_finite += int((~np.isfinite(values)).sum())
        self.minimum, self.maximum = min(self.minimum, values.min()), max(self.maximum, values.max())
        if values.size > self.share:
            values = values[self.generator.integers(0, values.size, self.share)]
        self.parts.append(values.copy())
        return operand

    def statistics(self) -> OperandStatistics:
        if self.not_finite:
            raise BitatlasError(
                f"operands must be finite in the float network, not NaN or Inf in {self.not_finite} values (layer {self.layer!r})"
            )
        sample = np.concatenate([*self.parts, np.array([self.minimum, self.maximum], np.float32)])
        return OperandStatistics(minimum=float(self.minimum), maximum=float(self.maximum), sample=sample)


def calibrate(network: Network, split: Split, batch: int = 128) -> Mapping[tuple[str, Role], OperandStatistics]:
    """Run the float network over ``split`` and return the statistics of every operand that is computed.

    Keyed by layer name and role; stored weights are not among them. A tensor that several layers read is looked at once.
    """
    batches = -(-len(split) // batch)
    observers: dict[str, _Observer] = {}
    fillings: dict[tuple[str, Place], Filling] = {}
    for layer in network.layers:
        for role, operand in layer.operands.items():
            if operand.source not in observers:
                observers[operand.source] = fillings[layer.name, role] = _Observer(layer.name, operand.source, batches)
    with network.filled(fillings):
        network.logits(split.images, batch, workers=1)  # one after the other, so that the samples are the same every time
    statistics = {source: observer.statistics() for source, observer in observers.items()}
    return {(layer.name, role): statistics[operand.source] for layer in network.layers for role, operand in layer.operands.items()}
