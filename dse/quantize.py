"""Fill a network's slots by an assignment: weights prepared once for each layer and quantizer, activations on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dse.assignment import Assignment, LayerAssignment
from dse.calibrate import OperandStatistics
from dse.network import ROLES, Filling, Layer, Network, Role, channels_last
from formats import Format, Quantizer, torch_bridge
from formats.quantizer import Granularity, QuantizedTensor


class Scratch:
    """Memory that activation quantizers write to in turn; what they write is read before the next one of the role runs."""

    def __init__(self) -> None:
        """Start with no memory; it grows to the largest operand."""
        self._memory = torch.empty(0)

    def like(self, x: Tensor) -> Tensor:
        """Return a tensor with the shape and strides of ``x``."""
        if self._memory.numel() < x.numel():
            self._memory = torch.empty(x.numel())
        return self._memory.as_strided(x.shape, x.stride()) if _dense(x) else torch.empty_like(x)


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.is_contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight:
    """A weight that was quantized beforehand; takes the float weight's place."""

    encoded: QuantizedTensor
    values: Tensor

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the quantized weight."""
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationQuantizer:
    """Quantizes an operand with one scale as it passes."""

    format: Format
    scale: float
    scratch: Scratch

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the quantized operand."""
        return torch_bridge.quantize(self.format, operand, self.scale, out=self.scratch.like(operand))


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """A network with its calibration, and everything quantized for it so far."""

    network: Network
    statistics: Mapping[tuple[str, Role], OperandStatistics]
    _fillings: dict[tuple[str, Role, str], Filling] = field(default_factory=dict)
    _scratch: dict[Role, Scratch] = field(default_factory=lambda: {role: Scratch() for role in ROLES})

    def filling(self, layer: Layer, role: Role, quantizer: Quantizer) -> Filling:
        """Return what goes into a slot, made at the first call and kept."""
        key = (layer.name, role, str(quantizer))
        if key not in self._fillings:
            stored = role == "weight" and layer.weight is not None
            self._fillings[key] = encode_weight(layer, quantizer) if stored else self._activation(layer, role, quantizer)
        return self._fillings[key]

    def fillings(self, assignment: Assignment) -> dict[tuple[str, Role], Filling]:
        """Return what goes into every slot."""
        return {
            (layer.name, role): self.filling(layer, role, assignment.layers[layer.name].quantizer(role))
            for layer in self.network.layers
            for role in ROLES
        }

    def _activation(self, layer: Layer, role: Role, quantizer: Quantizer) -> ActivationQuantizer:
        sample = self.statistics[layer.name, role].sample
        scale = float(quantizer.scales(sample)[0])
        return ActivationQuantizer(format=quantizer.format, scale=scale, scratch=self._scratch[role])

    def resolve(self, layer: Layer, weight: Quantizer, activation: Quantizer) -> LayerAssignment:
        """Fit quantizers named for the whole network to one layer.

        Operands that are never negative on the calibration split get the format's unsigned counterpart; the second operand of
        a product, which is computed, gets one scale.
        """
        if layer.weight is None:
            weight = self._fitted(layer, "weight", replace(weight, granularity=Granularity(name="tensor")))
        return LayerAssignment(weight=weight, activation=self._fitted(layer, "activation", activation))

    def _fitted(self, layer: Layer, role: Role, quantizer: Quantizer) -> Quantizer:
        counterpart = quantizer.format.unsigned_counterpart
        if counterpart is None or not self.statistics[layer.name, role].never_negative:
            return quantizer
        return replace(quantizer, format_name=counterpart)

    def uniform(self, model: str, data: str, weight: Quantizer, activation: Quantizer) -> Assignment:
        """Return the assignment with the same two quantizers everywhere, fitted to each layer."""
        layers = {layer.name: self.resolve(layer, weight, activation) for layer in self.network.layers}
        return Assignment(model=model, data=data, layers=layers)


def encode_weight(layer: Layer, quantizer: Quantizer) -> StoredWeight:
    """Encode a layer's weight with its output channels as the first axis."""
    assert layer.weight is not None
    encoded = quantizer.encode(np.ascontiguousarray(np.moveaxis(layer.weight, layer.channel_axis, 0)))
    values = np.moveaxis(encoded.decode(), 0, layer.channel_axis)
    return StoredWeight(encoded=encoded, values=channels_last(torch.from_numpy(np.ascontiguousarray(values))))
