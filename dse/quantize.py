"""Fill a network's slots by an assignment: weights prepared once for each layer and quantizer, activations on the way."""

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dse.assignment import Assignment, LayerAssignment
from dse.calibrate import OperandStatistics
from dse.network import ROLES, Filling, Layer, Network, Operand, Place, Role, channels_last
from formats import Format, Quantizer, torch_bridge
from formats.tensor_quantizer import EncodedTensor, TensorQuantizer


class Scratch:
    """Memory that activation quantizers write to in turn; what they write is read before the next one of the role runs.

    Every thread has its own; it grows to the largest operand.
    """

    def __init__(self) -> None:
        """Start with no memory."""
        self._local = threading.local()

    def like(self, x: Tensor) -> Tensor:
        """Return a tensor with the shape and strides of ``x``."""
        memory: Tensor | None = getattr(self._local, "memory", None)
        if memory is None or memory.numel() < x.numel():
            memory = self._local.memory = torch.empty(x.numel())
        return memory.as_strided(x.shape, x.stride()) if _dense(x) else torch.empty_like(x)


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.is_contiguous()


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight:
    """A weight that was quantized beforehand; takes the float weight's place."""

    encoded: EncodedTensor
    values: Tensor

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the quantized weight."""
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationQuantizer:
    """Quantizes an operand with one scale as it passes, once for all the layers that read it."""

    format: Format
    scale: float
    operand: Operand
    #: memory to write to; an operand that nothing else reads is overwritten instead
    scratch: Scratch
    #: what this thread quantized last, for the other readers of the same tensor
    _last: threading.local = field(default_factory=threading.local)

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the quantized operand."""
        seen: tuple[weakref.ref[Tensor], Tensor] | None = getattr(self._last, "seen", None)
        if seen is not None and seen[0]() is operand:
            return seen[1]
        out = operand if self.operand.overwritable else self.scratch.like(operand)
        result = torch_bridge.quantize(self.format, operand, self.scale, out=out)
        if self.operand.readers > 1:
            self._last.seen = (weakref.ref(operand), result)
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """A network with its calibration, and everything quantized for it so far."""

    network: Network
    statistics: Mapping[tuple[str, Role], OperandStatistics]
    _fillings: dict[tuple[str, Role, str], Filling] = field(default_factory=dict)
    _scratch: dict[Role, Scratch] = field(default_factory=lambda: {role: Scratch() for role in ROLES})

    def filling(self, layer: Layer, role: Role, quantizer: TensorQuantizer) -> Filling:
        """Return what goes into a slot, made at the first call and kept."""
        operand = layer.operands.get(role)
        key = (layer.name if operand is None else operand.source, role, str(quantizer))
        if key not in self._fillings:
            if operand is None:
                self._fillings[key] = encode_weight(layer, quantizer)
            else:
                self._fillings[key] = self._activation(layer, role, operand, quantizer)
        return self._fillings[key]

    def fillings(self, assignment: Assignment) -> dict[tuple[str, Place], Filling]:
        """Return what goes into every slot."""
        return {
            (layer.name, role): self.filling(layer, role, assignment.layers[layer.name].quantizer(role))
            for layer in self.network.layers
            for role in ROLES
        }

    def _activation(self, layer: Layer, role: Role, operand: Operand, quantizer: TensorQuantizer) -> ActivationQuantizer:
        fmt, scale = quantizer.fit(self.statistics[layer.name, role].sample)
        # what a later layer will read again must not lie in memory that the layers between write to
        scratch = self._scratch[role] if operand.readers == 1 else Scratch()
        return ActivationQuantizer(format=fmt, scale=scale, operand=operand, scratch=scratch)

    def resolve(self, layer: Layer, weight: TensorQuantizer, activation: TensorQuantizer) -> LayerAssignment:
        """Fit quantizers named for the whole network to one layer.

        Operands that are never negative on the calibration split get the format's unsigned counterpart. The second operand of
        a product is computed, as an activation is: it gets one scale, and the activation's quantizer where the weight's cannot be
        fixed beforehand to one scale.
        """
        if layer.weight is None:
            one_scale = weight.per_tensor()
            weight = self._fitted(layer, "weight", one_scale if one_scale.static else activation)
        return LayerAssignment(weight=weight, activation=self._fitted(layer, "activation", activation))

    def _fitted(self, layer: Layer, role: Role, quantizer: TensorQuantizer) -> TensorQuantizer:
        if not isinstance(quantizer, Quantizer) or quantizer.choice.format_name is not None:
            return quantizer  # a rule made for one format has no meaning for its counterpart
        counterpart = quantizer.format.unsigned_counterpart
        if counterpart is None or not self.statistics[layer.name, role].never_negative:
            return quantizer
        return replace(quantizer, format_name=counterpart)

    def uniform(self, model: str, data: str, weight: TensorQuantizer, activation: TensorQuantizer) -> Assignment:
        """Return the assignment with the same two quantizers everywhere, fitted to each layer."""
        layers = {layer.name: self.resolve(layer, weight, activation) for layer in self.network.layers}
        return Assignment(model=model, data=data, layers=layers)


def encode_weight(layer: Layer, quantizer: TensorQuantizer) -> StoredWeight:
    """Encode a layer's weight."""
    assert layer.weight is not None
    encoded = quantizer.encode(layer.weight)
    return StoredWeight(encoded=encoded, values=channels_last(torch.from_numpy(encoded.decode())))
