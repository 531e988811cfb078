"""From an accumulator to a minifloat, for scales that are powers of two: leading one, shift, round to nearest even, saturate.

The code of a minifloat without its sign counts its magnitudes up, so that rounding may carry from the mantissa into the exponent.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from amaranth import Cat, Const, Module, Mux, Value

from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl.requantizer.specification import Requantizer, RequantizerHardware
from hwmodels.fpga.rtl.wires import extended, wired

#: most places between the accumulator's LSB and the output's
FURTHEST = 200


@dataclass(frozen=True, kw_only=True)
class MinifloatFields:
    """Fields of a minifloat: as ``e{E}m{M}`` or ``ue{E}m{M}``."""

    exponent_bits: int
    mantissa_bits: int
    signed: bool
    #: exponent of the smallest positive number
    lsb_exponent: int


def minifloat_fields(output: Format) -> MinifloatFields:
    """Return the fields of a format; ``ValueError`` where its values are not those of a minifloat without Inf and NaN."""
    is_signed = output.negative_zero is not None
    bits = output.bits - is_signed
    values = output.values[: 2**bits]
    if bits >= 1 and np.isfinite(values).all() and values[0] == 0 and (np.diff(values) > 0).all():
        lsb_exponent = int(np.frexp(values[1])[1]) - 1
        for mantissa_bits in range(bits):
            codes = np.arange(2**bits)
            field, mantissa = codes >> mantissa_bits, codes & (2**mantissa_bits - 1)
            significand = np.where(field == 0, mantissa, mantissa + 2**mantissa_bits)
            same = np.array_equal(values, np.ldexp(significand.astype(np.float64), np.maximum(field, 1) - 1 + lsb_exponent))
            if same and output.spacing == "linear":
                return MinifloatFields(
                    exponent_bits=bits - mantissa_bits, mantissa_bits=mantissa_bits, signed=is_signed, lsb_exponent=lsb_exponent
                )
    raise InvalidValueError(f"output format of a normaliser must be a minifloat without Inf and NaN, not {output.name}")


@dataclass(frozen=True, kw_only=True, eq=False)
class NormaliseRequantizer(Requantizer):
    """The code of the exact number accumulator * 2**lsb_exponent."""

    family: ClassVar[str] = "normalise"
    #: exponent of the accumulator's LSB, less that of the scale
    lsb_exponent: int = 0

    def __post_init__(self) -> None:
        """Check that the requantizer can be built."""
        super().__post_init__()
        minifloat_fields(self.output)
        if abs(self.raised) > FURTHEST:
            raise InvalidValueError(
                f"LSB of the accumulator must be 2**-{FURTHEST} to 2**{FURTHEST} of the least magnitude of {self.output.name}, "
                f"not 2**{self.raised}"
            )

    @property
    def raised(self) -> int:
        """Exponent of the accumulator's LSB in units of the output's smallest magnitude."""
        return self.lsb_exponent - minifloat_fields(self.output).lsb_exponent

    def hardware(self) -> "NormaliseHardware":
        """Return the requantizer as logic."""
        return NormaliseHardware(self)


class NormaliseHardware(RequantizerHardware):
    """Input ``accumulator``."""

    def __init__(self, design: NormaliseRequantizer) -> None:
        """Make the ports."""
        super().__init__(design)
        self.design = design

    def result(self, m: Module) -> Value:
        """Take the magnitude, move its leading one to the top, round, saturate, and put the sign back."""
        fields = minifloat_fields(self.design.output)
        negative = self.accumulator[-1]
        if fields.signed:
            inverted = self.accumulator ^ negative.replicate(len(self.accumulator))
            magnitude = wired(m, (inverted + negative)[: len(self.accumulator)].as_unsigned())
        else:
            magnitude = wired(m, self.accumulator[:-1] & (~negative).replicate(len(self.accumulator) - 1))
        code = _normalised(m, magnitude, self.design.raised, fields)
        return Cat(code, negative) if fields.signed else code


def _normalised(m: Module, magnitude: Value, raised: int, fields: MinifloatFields) -> Value:
    """Return the code, without sign, of ``magnitude * 2**raised`` smallest magnitudes."""
    significant = fields.mantissa_bits + 1
    whole = max(len(magnitude) + raised, significant)
    # the exponent field is that of the highest place, less the places that the leading one is moved up
    steps = (whole - significant).bit_length()
    width = significant + 2**steps - 1
    fraction = max(-raised, 0)
    value = wired(m, extended(Cat(Const(0, max(raised, 0)), magnitude), width + fraction)[: width + fraction])
    moved: list[Value] = []
    for step in reversed(range(steps)):
        places = 2**step
        empty = wired(m, ~value[-places:].any())
        value = wired(m, Mux(empty, Cat(Const(0, places), value)[: len(value)], value))
        moved.insert(0, empty)
    top, below = value[-significant:], value[:-significant]
    half = below[-1] if len(below) else Const(0, 1)
    rest = below[:-1].any() if len(below) > 1 else Const(0, 1)
    up = wired(m, half & (rest | top[0]))
    field = Cat(*(~empty for empty in moved))
    # a leading one is worth an exponent of its own: without it the number is subnormal
    total = wired(m, Cat(top[:-1], field) + Cat(Const(0, fields.mantissa_bits), top[-1]) + up)
    bits = fields.exponent_bits + fields.mantissa_bits
    if len(total) <= bits:
        return extended(total, bits)[:bits]
    return total[:bits] | total[bits:].any().replicate(bits)
