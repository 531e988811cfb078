"""What the sums of a layer are: whole numbers of how many bits, and what one of them is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.assignment import LayerAssignment
from dse.network import Fillings, Layer
from dse.quantize import ActivationQuantizer, StoredWeight, WholeBias, accumulator_unit
from formats import Accumulator, Format, bound_bits, required_bits
from formats.arithmetic.products import lsb_exponent
from formats.errors import InvalidValueError
from formats.quantizer import QuantizedTensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Whole numbers of some width in two's complement times a unit for each output channel, float64."""

    bits: int
    unit: NDArray[np.float64]

    @property
    def data_type(self) -> str:
        """Name of the data type in QONNX: ``INT20``, or ``SCALEDINT<20>`` where the unit is not 1."""
        return f"INT{self.bits}" if (self.unit == 1).all() else f"SCALEDINT<{self.bits}>"


def sums(layer: Layer, chosen: LayerAssignment, fillings: Fillings) -> Sums | None:
    """Return what a layer's sums need, the bias included where the accumulator is of whole numbers.

    None where float32 is all that can be said of them: where float32 is the accumulator of other than integers, and for weights
    with scales by group or factors beside them. Raises ``ValueError`` for an accumulator that some sum does not fit.
    """
    activation, weight = fillings[layer.name, "activation"], fillings[layer.name, "weight"]
    assert isinstance(activation, ActivationQuantizer)
    if not chosen.whole_numbers and not (_integer(_format(weight)) and _integer(activation.format)):
        return None
    if isinstance(weight, ActivationQuantizer):
        bits = bound_bits(activation.format, weight.format, layer.workload.dot_length)
        exponent = lsb_exponent(weight.format) + lsb_exponent(activation.format)
        unit = np.ldexp(np.array([np.float64(np.float32(weight.scale)) * np.float64(np.float32(activation.scale))]), exponent)
        return Sums(bits=_register(bits, chosen, layer.name), unit=unit)
    assert isinstance(weight, StoredWeight)
    encoded = weight.encoded
    if not isinstance(encoded, QuantizedTensor) or encoded.quantizer.granularity.name not in ("tensor", "channel"):
        return None
    if weight.prepared.low_rank is not None:
        return None
    codes = encoded.codes.reshape(len(encoded.codes), -1).T
    bits = required_bits(codes, encoded.quantizer.format, activation.format).overall
    bias = fillings.get((layer.name, "bias"))
    if isinstance(bias, WholeBias) and bias.numbers.any():
        bits = max(bits, int(np.abs(bias.numbers).max()).bit_length() + 1) + 1
    unit = accumulator_unit(weight.prepared, activation.format, activation.scale, layer.name)
    return Sums(bits=_register(bits, chosen, layer.name), unit=unit)


def _integer(fmt: Format | None) -> bool:
    return fmt is not None and fmt.closed_form is not None and fmt.closed_form.kind == "uniform"


def _format(filling: object) -> Format | None:
    if isinstance(filling, ActivationQuantizer):
        return filling.format
    encoded = filling.encoded if isinstance(filling, StoredWeight) else None
    return encoded.quantizer.format if isinstance(encoded, QuantizedTensor) else None


def _register(bits: int, chosen: LayerAssignment, layer: str) -> int:
    """Return the width of the accumulator: the one chosen, where it holds every sum, or ``bits``."""
    accumulator = Accumulator.parse(chosen.accumulator) if chosen.whole_numbers else Accumulator.exact()
    if accumulator.bits is None:
        return bits
    if accumulator.bits < bits:
        raise InvalidValueError(
            f"accumulator exported by qonnx must hold every sum, which has no limits there, so {bits} bits or exact, "
            f"not {chosen.accumulator} (layer {layer!r})"
        )
    return accumulator.bits
