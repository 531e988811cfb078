"""How a format's codes are decoded in registers, as data: chosen from the definition alone, and proved against it.

Kinds, in order of preference:

- ``planes``: ternary codes; bit 0 says that it is not zero, bit 1 is the sign.
- ``integer``: ``(code ^ flip) - offset``.
- ``floating``: sign, exponent and mantissa fields; moved to where a wider float has them and multiplied by the quotient of the
  biases, which is exact for subnormals too.
- ``power``: an optional sign and a magnitude that is an exponent, going up or down.
- ``table``: any other; looked up.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from formats.definition import Definition
from formats.errors import InvalidValueError
from formats.minifloat import Layout

Kind = Literal["planes", "integer", "floating", "power", "table"]
#: what a decoded value is put into
Carrier = Literal["float16", "bfloat16", "float32"]
WIDEST, NARROWEST = 8, 2
#: exponents of normal numbers
_FLOAT16_EXPONENTS = (-14, 15)
_FLOAT32_EXPONENTS = (-126, 127)
#: largest offset whose sums with codes of 8 bits are exact in float16
_FLOAT16_OFFSET = 1024
#: largest offset that, added to 128, is exact in bfloat16
_BFLOAT16_OFFSET = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """A kind and its parameters: what does not belong to the kind is 0."""

    kind: Kind
    bits: int
    #: of integers
    flip: int = 0
    offset: int = 0
    #: of floats and powers
    signed: bool = False
    #: of floats
    mantissa_bits: int = 0
    bias: int = 0
    #: magnitude code of infinity; -1 without one
    infinity: int = -1
    #: of powers: exponent of magnitude 0, what each further magnitude adds, and the magnitude that is zero (-1: none)
    first: int = 0
    step: int = 0
    zero: int = -1
    #: what the codes are worth, float32 of shape (2**bits,): what a table is made of, and what each kind is proved against
    values: NDArray[np.float32] = field(repr=False)

    @property
    def exponent_bits(self) -> int:
        """Width of a float's exponent field."""
        return self.bits - self.signed - self.mantissa_bits

    def in_float16(self) -> bool:
        """Whether integer operations on 16 bits give the values, all of which float16 has."""
        if self.kind == "floating":
            return self.exponent_bits < 5 or (self.exponent_bits == 5 and self.bias == 15 and self.infinity >= 0)
        if self.kind == "power":
            return _within(self, _FLOAT16_EXPONENTS)
        return self.kind == "planes" or (self.kind == "integer" and abs(self.offset) <= _FLOAT16_OFFSET)

    def in_halves(self, carrier: Carrier) -> bool:
        """Whether two codes at a time can be decoded in the halves of 32 bits, to values that the carrier has every one of."""
        if carrier == "float32" or (carrier == "float16" and not self.in_float16()):
            return False
        if self.kind == "integer" and carrier == "bfloat16":
            return self.bits < WIDEST and abs(self.offset) <= _BFLOAT16_OFFSET
        if self.kind == "floating":
            return self.infinity < 0 or (carrier == "float16" and self.bias == 15)
        if self.kind == "power":
            return self.zero == 0 and self.step == 1 and (carrier == "bfloat16" or self.bits - self.signed <= 5)
        return self.kind in ("planes", "integer")


def decoding(fmt: Definition) -> Decoding:
    """Return how the codes of a scalar format of 2 to 8 bits are decoded; ``ValueError`` for other widths."""
    if not NARROWEST <= fmt.bits <= WIDEST:
        raise InvalidValueError(
            f"bits of a format decoded in registers must be {NARROWEST} to {WIDEST}, not {fmt.bits}: {fmt.name}"
        )
    used = np.array([code for code in range(2**fmt.bits) if code not in fmt.unused and code not in fmt.nan])
    for kind in (_planes, _integer, _floating, _power):
        found = kind(fmt, used)
        if found is not None:
            return found
    return Decoding(kind="table", bits=fmt.bits, values=fmt.float32_values)


def rounded(found: Decoding, values: NDArray[np.float32]) -> Decoding:
    """Return a table of other values in place of a decoding, such as the same rounded to a narrower type."""
    return Decoding(kind="table", bits=found.bits, values=values)


def _planes(fmt: Definition, used: NDArray[np.int64]) -> Decoding | None:
    if fmt.bits != 2 or used.tolist() != [0b00, 0b01, 0b11] or fmt.values[used].tolist() != [0, 1, -1]:
        return None
    return Decoding(kind="planes", bits=2, values=fmt.float32_values)


def _integer(fmt: Definition, used: NDArray[np.int64]) -> Decoding | None:
    values = fmt.values[used]
    for flip in (0, 2 ** (fmt.bits - 1)):
        differences = (used ^ flip) - values
        offset = differences[0]
        if np.isfinite(offset) and offset == np.rint(offset) and (differences == offset).all() and not _negative_zero(values):
            return Decoding(kind="integer", bits=fmt.bits, flip=flip, offset=int(offset), values=fmt.float32_values)
    return None


def _negative_zero(values: NDArray[np.float64]) -> bool:
    return bool(((values == 0) & np.signbit(values)).any())


def _floating(fmt: Definition, used: NDArray[np.int64]) -> Decoding | None:
    form = fmt.closed_form
    if form is None or form.kind not in ("floating", "shortened"):
        return None
    bias = 1 - form.minimum_exponent
    exponent_bits = fmt.bits - form.signed - form.mantissa_bits
    layout = Layout(exponent_bits=exponent_bits, mantissa_bits=form.mantissa_bits, bias=bias, signed=form.signed)
    finite = used[np.isfinite(fmt.values[used])]
    same = (layout.significand == fmt.significand) & (layout.exponent == fmt.exponent)
    if exponent_bits > 7 or not same[finite].all():
        return None
    infinity = -1 if fmt.infinities is None else fmt.infinities[1]
    found = {"mantissa_bits": form.mantissa_bits, "bias": bias, "infinity": infinity}
    return Decoding(kind="floating", bits=fmt.bits, signed=form.signed, values=fmt.float32_values, **found)


def _power(fmt: Definition, used: NDArray[np.int64]) -> Decoding | None:
    """Find a sign bit or none, the code of zero or none, and a line through the exponents of the rest."""
    values = fmt.values[used]
    signed = bool(np.signbit(values).any())
    magnitudes = used & (2 ** (fmt.bits - signed) - 1)
    mantissas, exponents = np.frexp(np.abs(values))
    nonzero, zeros = values != 0, np.unique(magnitudes[values == 0])
    if len(zeros) > 1 or (mantissas[nonzero] != 0.5).any() or (signed and (np.signbit(values) != (used != magnitudes)).any()):
        return None
    among, powers = magnitudes[nonzero], exponents[nonzero] - 1
    lowest, highest = int(among.argmin()), int(among.argmax())
    step = int(np.sign(powers[highest] - powers[lowest]))
    first = int(powers[lowest] - step * among[lowest])
    if step == 0 or (powers != first + step * among).any():
        return None
    zero = int(zeros[0]) if len(zeros) else -1
    found = Decoding(kind="power", bits=fmt.bits, signed=signed, first=first, step=step, zero=zero, values=fmt.float32_values)
    return found if _within(found, _FLOAT32_EXPONENTS) else None


def _within(powers: Decoding, exponents: tuple[int, int]) -> bool:
    magnitudes = np.array([code for code in range(2 ** (powers.bits - powers.signed)) if code != powers.zero])
    usable = magnitudes[np.isfinite(powers.values[magnitudes])]
    found = powers.first + powers.step * usable
    return exponents[0] <= int(found.min()) and int(found.max()) <= exponents[1]
