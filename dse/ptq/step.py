"""What a post-training step is: a change of the float network that keeps its function, or a better way to store a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import fx

from dse.network import Layer, Network
from formats.tensor_quantizer import EncodedTensor, TensorQuantizer


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerData:
    """What a step may look at when it prepares one layer's weight; the same data give the same result."""

    #: with the float weight as network-wide steps left it
    layer: Layer
    #: the layer's operator in the graph, with its stride, padding, dilation and groups
    node: fx.Node
    #: float bias, float32 of shape (output channels,)
    bias: NDArray[np.float32]
    #: calibration operands that the layer reads in the float network, float32 of shape (samples, …)
    inputs: NDArray[np.float32]
    seed: int = 0

    @property
    def weight(self) -> NDArray[np.float32]:
        """The float weight, output channels first."""
        assert self.layer.weight is not None
        return self.layer.weight


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """Two factors whose product is added to a decoded weight, as they are stored: (output channels, r) and (r, rest)."""

    left: EncodedTensor
    right: EncodedTensor

    def values(self) -> NDArray[np.float32]:
        """Return the product, float32 of shape (output channels, rest)."""
        return self.left.decode() @ self.right.decode()


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedWeight:
    """What is stored for a layer in place of its float weight."""

    encoded: EncodedTensor
    low_rank: LowRank | None = None
    #: added to the float bias, float32 of shape (output channels,)
    bias_shift: NDArray[np.float32] | None = None

    def values(self) -> NDArray[np.float32]:
        """Return the weight that the layer computes with, float32 in the float weight's shape."""
        decoded = self.encoded.decode()
        if self.low_rank is None:
            return decoded
        return (decoded + self.low_rank.values().reshape(decoded.shape)).astype(np.float32)

    def with_codes(self, encoded: EncodedTensor) -> "PreparedWeight":
        """Return the same with other codes."""
        return replace(self, encoded=encoded)


class NetworkStep(Protocol):
    """A step that changes the stored tensors of the float network and leaves its function, its graph and its layers as they are."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def apply(self, network: Network, images: NDArray[np.float32]) -> Network:
        """Return the changed network; ``images`` are calibration samples, float32 of shape (N, …)."""


class LayerStep(Protocol):
    """A step that prepares the weight of one layer for one quantizer."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def apply(self, data: LayerData, quantizer: TensorQuantizer, prepared: PreparedWeight) -> PreparedWeight:
        """Return a better ``prepared``, which came rounded to the nearest codes or as an earlier step left it."""


class BlockStep(Protocol):
    """A step that prepares the weights of several layers at once, for the output of the block that they make up."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def apply(
        self,
        network: Network,
        layers: Sequence[str],
        quantizers: Mapping[str, TensorQuantizer],
        prepared: Mapping[str, PreparedWeight],
        images: NDArray[np.float32],
    ) -> Mapping[str, PreparedWeight]:
        """Return better weights by layer name; ``images`` are calibration samples, float32 of shape (N, …)."""


Step = NetworkStep | LayerStep | BlockStep
