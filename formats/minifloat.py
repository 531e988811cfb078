"""Small floating-point formats without Inf and NaN: every code is a number.

Bias 2**(E-1) - 1, subnormals, largest value (2 - 2**-M) * 2**(2**E - 1 - bias), as in Brevitas and in
"Shedding the Bits" (arXiv 2311.12359). With one exponent bit the format is sign and magnitude of an integer grid.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from formats.definition import ClosedForm
from formats.format import Format


def build(exponent_bits: int, mantissa_bits: int, *, signed: bool) -> Format:
    """``e{E}m{M}``, or ``ue{E}m{M}`` without the sign bit."""
    bias = 2 ** (exponent_bits - 1) - 1
    name = f"e{exponent_bits}m{mantissa_bits}"
    layout = Layout(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits, bias=bias, signed=signed)
    return Format(
        name=name if signed else f"u{name}",
        bits=layout.bits,
        significand=layout.significand,
        exponent=layout.exponent,
        root=np.zeros_like(layout.exponent),
        negative_zero=layout.sign_bit if signed else None,
        closed_form=layout.closed_form,
        # the bit that held the sign goes to the mantissa of the counterpart that needs none
        unsigned_counterpart=f"ue{exponent_bits}m{mantissa_bits + 1}" if signed else f"u{name}",
        summary=f"{'' if signed else 'unsigned '}minifloat, {exponent_bits} exponent and {mantissa_bits} mantissa bits, all finite",
    )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sign, exponent and mantissa fields, and what their codes are worth where they stand for finite numbers."""

    exponent_bits: int
    mantissa_bits: int
    bias: int
    signed: bool = True

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.exponent_bits + self.mantissa_bits + self.signed

    @property
    def sign_bit(self) -> int:
        """Code with nothing but the sign set."""
        return 1 << (self.exponent_bits + self.mantissa_bits)

    @property
    def codes(self) -> NDArray[np.int64]:
        """Every code."""
        return np.arange(2**self.bits, dtype=np.int64)

    @property
    def field(self) -> NDArray[np.int64]:
        """Exponent field of every code."""
        return (self.codes >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1)

    @property
    def mantissa(self) -> NDArray[np.int64]:
        """Mantissa field of every code."""
        return self.codes & ((1 << self.mantissa_bits) - 1)

    @property
    def significand(self) -> NDArray[np.int64]:
        """Signed significand of every code, the hidden bit included; exponent field 0 holds subnormals."""
        magnitude = np.where(self.field == 0, self.mantissa, self.mantissa + 2**self.mantissa_bits)
        return np.where(self.codes >= self.sign_bit, -magnitude, magnitude)

    @property
    def exponent(self) -> NDArray[np.int64]:
        """Exponent of every code's last place."""
        return np.maximum(self.field, 1) - self.bias - self.mantissa_bits

    @property
    def closed_form(self) -> ClosedForm | None:
        """The fast rounding: of exponents that leave room in float32, and of those that are just as wide; others go by table."""
        if self.exponent_bits > 8 or (self.exponent_bits == 8 and self.mantissa_bits == 0):
            return None
        kind: Literal["floating", "shortened"] = "floating" if self.exponent_bits < 8 else "shortened"
        return ClosedForm(kind=kind, signed=self.signed, mantissa_bits=self.mantissa_bits, minimum_exponent=1 - self.bias)
