"""Small floating-point formats without Inf and NaN: every code is a number.

Bias 2**(E-1) - 1, subnormals, largest value (2 - 2**-M) * 2**(2**E - 1 - bias), as in Brevitas and in
"Shedding the Bits" (arXiv 2311.12359). With one exponent bit the format is sign and magnitude of an integer grid.
"""

import numpy as np

from formats.definition import ClosedForm
from formats.format import Format


def build(exponent_bits: int, mantissa_bits: int, *, signed: bool) -> Format:
    """``e{E}m{M}``, or ``ue{E}m{M}`` without the sign bit."""
    magnitude_bits = exponent_bits + mantissa_bits
    bits = magnitude_bits + signed
    bias = 2 ** (exponent_bits - 1) - 1
    codes = np.arange(2**bits, dtype=np.int64)
    mantissa = codes & (2**mantissa_bits - 1)
    field = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    magnitude = np.where(field == 0, mantissa, mantissa + 2**mantissa_bits)
    negative = (codes >> magnitude_bits) == 1
    exact_in_float32 = exponent_bits < 8  # the largest power of a wider exponent is beyond float32: such formats go by table
    form = ClosedForm(kind="floating", signed=signed, mantissa_bits=mantissa_bits, minimum_exponent=1 - bias)
    name = f"e{exponent_bits}m{mantissa_bits}"
    # the bit that held the sign goes to the mantissa of the counterpart that needs none
    counterpart = f"ue{exponent_bits}m{mantissa_bits + 1}" if signed else f"u{name}"
    return Format(
        name=name if signed else f"u{name}",
        bits=bits,
        significand=np.where(negative, -magnitude, magnitude),
        exponent=np.maximum(field, 1) - bias - mantissa_bits,
        root=np.zeros_like(codes),
        negative_zero=2**magnitude_bits if signed else None,
        closed_form=form if exact_in_float32 else None,
        unsigned_counterpart=counterpart,
        summary=f"{'' if signed else 'unsigned '}minifloat, {exponent_bits} exponent and {mantissa_bits} mantissa bits, all finite",
    )
