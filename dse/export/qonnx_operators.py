"""Which of QONNX' quantizers rounds exactly as a number format does.

QONNX 1.0, domain ``qonnx.custom_op.general`` version 2: ``Quant`` clips and rounds ``x / scale`` to whole numbers, ``FloatQuant``
to numbers of some exponent and mantissa bits, ``BipolarQuant`` to the sign. All work in float32 and round to nearest even.
``FloatQuant`` knows signed numbers with subnormals only, and loses the smallest numbers of eight exponent bits. What is beyond
float32 after the division by its scale becomes NaN there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from formats import Format

DOMAIN = "qonnx.custom_op.general"
VERSION = 2
ROUNDING = "ROUND"
#: exponent bits that FloatQuant computes with exactly
EXPONENT_BITS = 7
NEEDS = f"an integer, ternary, binary or a minifloat of at most {EXPONENT_BITS} exponent bits"


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A quantizer of QONNX with everything but the tensor and its scale."""

    name: str
    attributes: Mapping[str, int | str] = field(default_factory=dict)
    #: scalar inputs after x and the scale, in order, by name
    parameters: Mapping[str, float] = field(default_factory=dict)
    #: whether negative numbers must be cut off before it
    cuts_negatives: bool = False


def operator(fmt: Format) -> Operator | None:
    """Return the quantizer that rounds every number as ``fmt`` does; None where there is none."""
    if fmt.name == "binary":
        return Operator(name="BipolarQuant")
    if fmt.closed_form is None:
        return None
    if fmt.closed_form.kind == "uniform":
        return _integer(fmt)
    return _minifloat(fmt) if fmt.closed_form.kind == "floating" else None


def storing_operator(fmt: Format) -> Operator | None:
    """Return a quantizer that leaves every value of ``fmt`` as it is, which is all that a stored weight asks for.

    Powers of two are minifloats without mantissa, and whole numbers with a zero point are what ``Quant`` has too: only what lies
    between their levels is rounded otherwise, there because the zero point is added before rounding.
    """
    found = operator(fmt)
    if found is not None or fmt.closed_form is None or fmt.root.any():
        return found
    if fmt.closed_form.kind == "uniform":
        parameters = {"zero_point": -fmt.minimum, "bit_width": fmt.bits}
        return Operator(name="Quant", attributes={"signed": 0, "narrow": 0, "rounding_mode": ROUNDING}, parameters=parameters)
    if fmt.closed_form.kind != "logarithmic":
        return None
    positive = fmt.values[fmt.values > 0]
    smallest, largest = (int(np.frexp(end)[1]) - 1 for end in (positive.min(), positive.max()))
    exponent_bits = (largest - smallest + 1).bit_length()
    if exponent_bits > EXPONENT_BITS:
        return None
    return _float_quant(fmt, exponent_bits=exponent_bits, mantissa_bits=0, minimum_exponent=smallest)


def _integer(fmt: Format) -> Operator | None:
    """Return ``Quant`` for a range that it has: unsigned, two's complement, or that without the most negative number."""
    low, high = int(fmt.minimum), int(fmt.maximum)
    bits = high.bit_length() + (low < 0)
    if high != 2 ** (bits - (low < 0)) - 1 or low not in (0, -high, -high - 1):
        return None
    return Operator(
        name="Quant",
        attributes={"signed": int(low < 0), "narrow": int(low == -high), "rounding_mode": ROUNDING},
        parameters={"zero_point": 0, "bit_width": bits},
    )


def _minifloat(fmt: Format) -> Operator | None:
    assert fmt.closed_form is not None
    mantissa_bits = fmt.closed_form.mantissa_bits
    exponent_bits = fmt.bits - fmt.signed - mantissa_bits
    if exponent_bits > EXPONENT_BITS:
        return None
    return _float_quant(
        fmt,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        minimum_exponent=fmt.closed_form.minimum_exponent,
    )


def _float_quant(fmt: Format, *, exponent_bits: int, mantissa_bits: int, minimum_exponent: int) -> Operator:
    return Operator(
        name="FloatQuant",
        attributes={
            "has_inf": int(fmt.infinities is not None),
            "has_nan": int(bool(fmt.nan)),
            "has_subnormal": 1,
            "saturation": 1,
            "rounding_mode": ROUNDING,
        },
        parameters={
            "exponent_bit_width": exponent_bits,
            "mantissa_bit_width": mantissa_bits,
            "exponent_bias": 1 - minimum_exponent,
            "max_val": fmt.maximum,
        },
        cuts_negatives=not fmt.signed,
    )
