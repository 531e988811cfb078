"""Fill a network's slots by an assignment: weights prepared once for each layer and quantizer, activations on the way."""

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.assignment import Assignment, LayerAssignment
from dse.calibrate import OperandStatistics, calibrate
from dse.data import Split
from dse.network import ROLES, Filling, Layer, Network, Operand, Place, Role, channels_last
from dse.ptq import steps as stepping
from dse.ptq.step import NetworkStep, PreparedWeight
from dse.ptq.weights import SAMPLES, Recipe, WeightPreparer
from formats import Format, Quantizer, torch_bridge
from formats.arithmetic.products import lsb_exponent
from formats.errors import InvalidValueError
from formats.quantizer import QuantizedTensor
from formats.tensor_quantizer import EncodedTensor, TensorQuantizer

#: activation formats whose quantizers are kept ready for every operand
FORMATS_KEPT = 8


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

    prepared: PreparedWeight
    values: Tensor

    @property
    def encoded(self) -> EncodedTensor:
        """Codes and scales."""
        return self.prepared.encoded

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the quantized weight."""
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class BiasShift:
    """Corrects a bias by what was found when its layer's weight was prepared."""

    shift: Tensor

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the corrected bias."""
        return operand + self.shift


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeBias:
    """A bias as the accumulator of whole numbers begins with it; takes the float bias's place."""

    #: in units of the accumulator's LSB, int64 of shape (output channels,)
    numbers: NDArray[np.int64]
    values: Tensor

    @staticmethod
    def of(bias: NDArray[np.float32], unit: NDArray[np.float64]) -> "WholeBias":
        """Round a bias, float32 of shape (output channels,), to multiples of the accumulator's LSB, ties to even."""
        numbers = np.round(bias.astype(np.float64) / unit)
        values = torch.from_numpy((numbers * unit).astype(np.float32))
        return WholeBias(numbers=numbers.astype(np.int64), values=values)

    def __call__(self, operand: Tensor) -> Tensor:
        """Return the rounded bias."""
        return self.values


def accumulator_unit(weight: PreparedWeight, activation: Format, scale: float, layer: str) -> NDArray[np.float64]:
    """Return what one LSB of a layer's accumulator is worth: the operands' scales times their LSBs, float64 (output channels,).

    Raises ``ValueError`` where products of one output channel have different units, and where some of them are no codes' at all.
    """
    encoded = weight.encoded
    sums = f"for sums of whole numbers (layer {layer!r})"
    if weight.low_rank is not None:
        raise InvalidValueError(f"weight must be codes alone, not have factors beside them by lorc, {sums}")
    if not isinstance(encoded, QuantizedTensor) or encoded.quantizer.granularity.name not in ("tensor", "channel"):
        found = str(getattr(encoded, "quantizer", type(encoded).__name__))
        raise InvalidValueError(f"weight must have scales by tensor or channel, not {found}, {sums}; nearest: FORMAT:channel:mse")
    exponent = lsb_exponent(encoded.quantizer.format) + lsb_exponent(activation)
    scales = np.broadcast_to(encoded.scales.astype(np.float64), encoded.shape[:1])
    return np.asarray(np.ldexp(scales * np.float64(np.float32(scale)), exponent))


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
    #: the samples that ranges come from and that steps look at
    calibration: Split
    #: what was done to the float network already
    steps: tuple[str, ...] = ()
    _after: dict[tuple[str, ...], "Preparation"] = field(default_factory=dict)
    _fillings: dict[tuple[str, Role, str], Filling] = field(default_factory=dict)
    _fitted_scales: dict[tuple[str, str], tuple[Format, float]] = field(default_factory=dict)
    _weights: dict[str, StoredWeight] = field(default_factory=dict)
    _scratch: dict[Role, Scratch] = field(default_factory=lambda: {role: Scratch() for role in ROLES})

    @cached_property
    def preparer(self) -> WeightPreparer:
        """What prepares this network's weights."""
        return WeightPreparer(network=self.network, images=self.calibration.images, digest=self.calibration.digest)

    def after(self, steps: tuple[str, ...]) -> "Preparation":
        """Return the network after network-wide steps, calibrated anew; made at the first call and kept."""
        if steps == self.steps:
            return self
        if self.steps:
            raise InvalidValueError(f"steps must be run on the network as it was, not after {stepping.row(self.steps)}")
        if steps not in self._after:
            network = self.network
            for text in steps:
                step = cast(NetworkStep, stepping.parse(text, "network"))
                network = step.apply(network, self.calibration.images[:SAMPLES])
            statistics = calibrate(network, self.calibration)
            self._after[steps] = Preparation(network=network, statistics=statistics, calibration=self.calibration, steps=steps)
        return self._after[steps]

    def fillings(self, assignment: Assignment) -> dict[tuple[str, Place], Filling]:
        """Return what goes into every slot of this network, which must have been through the assignment's steps."""
        if assignment.steps != self.steps:
            there, wanted = stepping.row(self.steps), stepping.row(assignment.steps)
            raise InvalidValueError(f"network must be prepared by the assignment's steps, {wanted}, not by {there}")
        return self.layer_fillings(assignment.layers)

    def layer_fillings(self, chosen: Mapping[str, LayerAssignment]) -> dict[tuple[str, Place], Filling]:
        """Return what goes into the slots of some layers, by layer name."""
        found: dict[tuple[str, Place], Filling] = {}
        layers = [self.network.layer(name) for name in chosen]
        for layer in layers:
            for role, operand in layer.operands.items():
                found[layer.name, role] = self._activation(layer, role, operand, chosen[layer.name].quantizer(role))
        for name, stored in self.stored_weights(
            {layer.name: chosen[layer.name] for layer in layers if layer.weight is not None}
        ).items():
            found[name, "weight"] = stored
            if chosen[name].whole_numbers:
                activation = found[name, "activation"]
                assert isinstance(activation, ActivationQuantizer)
                found[name, "bias"] = self._whole_bias(name, stored, activation)
            elif stored.prepared.bias_shift is not None:
                found[name, "bias"] = BiasShift(shift=torch.from_numpy(stored.prepared.bias_shift))
        return found

    def _whole_bias(self, name: str, stored: StoredWeight, activation: ActivationQuantizer) -> WholeBias:
        bias, shift = self.network.bias(name), stored.prepared.bias_shift
        unit = accumulator_unit(stored.prepared, activation.format, activation.scale, name)
        return WholeBias.of(bias if shift is None else bias + shift, unit)

    def stored_weights(self, chosen: Mapping[str, LayerAssignment]) -> dict[str, StoredWeight]:
        """Return the prepared weights of some layers that have a stored one, by layer name."""
        made = self.preparer.prepare({name: Recipe(quantizer=given.weight, steps=given.steps) for name, given in chosen.items()})
        for history, weight in made.values():
            if history not in self._weights:
                self._weights[history] = StoredWeight(prepared=weight, values=channels_last(torch.from_numpy(weight.values())))
        return {name: self._weights[history] for name, (history, _) in made.items()}

    def _activation(self, layer: Layer, role: Role, operand: Operand, quantizer: TensorQuantizer) -> Filling:
        key = (operand.source, role, str(quantizer))
        if key not in self._fillings:
            # each has memory of its own in every thread, as large as the operand: only so many are kept
            while len(self._fillings) >= FORMATS_KEPT * len(self.statistics):
                del self._fillings[next(iter(self._fillings))]
            self._fillings[key] = self._activation_quantizer(layer, role, operand, quantizer)
        return self._fillings[key]

    def _activation_quantizer(self, layer: Layer, role: Role, operand: Operand, quantizer: TensorQuantizer) -> ActivationQuantizer:
        key = (operand.source, str(quantizer))
        if key not in self._fitted_scales:
            self._fitted_scales[key] = quantizer.fit(self.statistics[layer.name, role].sample)
        fmt, scale = self._fitted_scales[key]
        # what a later layer will read again must not lie in memory that the layers between write to
        scratch = self._scratch[role] if operand.readers == 1 else Scratch()
        return ActivationQuantizer(format=fmt, scale=scale, operand=operand, scratch=scratch)

    def resolve(
        self, layer: Layer, weight: TensorQuantizer, activation: TensorQuantizer, steps: tuple[str, ...] = ()
    ) -> LayerAssignment:
        """Fit quantizers and steps named for the whole network to one layer.

        Operands that are never negative on the calibration split get the format's unsigned counterpart. The second operand of
        a product is computed, as an activation is: it gets one scale, and the activation's quantizer where the weight's cannot be
        fixed beforehand to one scale. Nor is there a weight in it for steps to prepare.
        """
        if layer.weight is None:
            one_scale = weight.per_tensor()
            weight = self._fitted(layer, "weight", one_scale if one_scale.static else activation)
        fitted = self._fitted(layer, "activation", activation)
        return LayerAssignment(weight=weight, activation=fitted, steps=steps if layer.weight is not None else ())

    def _fitted(self, layer: Layer, role: Role, quantizer: TensorQuantizer) -> TensorQuantizer:
        if not isinstance(quantizer, Quantizer) or quantizer.choice.format_name is not None:
            return quantizer  # a rule made for one format has no meaning for its counterpart
        counterpart = quantizer.format.unsigned_counterpart
        if counterpart is None or not self.statistics[layer.name, role].never_negative:
            return quantizer
        return replace(quantizer, format_name=counterpart)

    def uniform(
        self, model: str, data: str, weight: TensorQuantizer, activation: TensorQuantizer, steps: tuple[str, ...] = ()
    ) -> Assignment:
        """Return the assignment with the same two quantizers and layer steps everywhere, fitted to each layer of this network."""
        layers = {layer.name: self.resolve(layer, weight, activation, steps) for layer in self.network.layers}
        return Assignment(model=model, data=data, layers=layers, steps=self.steps)
