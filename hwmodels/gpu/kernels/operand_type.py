"""What tensor cores multiply where weights are decoded: a type that has every value of the format, found from its values.

Products of such operands are exact in float32, in which they are summed, so that nothing is rounded but the sums. The first of
these that serves is taken:

- The activations' own type, float16 or bfloat16, where it has every value.
- ``tf32`` where 11 significant bits and the range of float32 are enough; it has every float16 and bfloat16 too.
- The activations' type again, every value a sum of two or three terms that it has, after a power of two has moved all of them to
  where it is finest: irrational levels and code books. Each term is a product of its own.
- ``tf32`` again, of three terms: such values over a range that float16 does not span.
- ``float32``: without tensor cores, for values so small that float32 has fewer bits of them.

Where that is asked for, values are rounded to the activations' type once instead, which is faster.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from formats.definition import Definition
from formats.errors import InvalidValueError
from hwmodels.gpu.kernels.decoding import Carrier, Decoding, decoding, rounded

Operand = Literal["float16", "bfloat16", "tf32", "float32"]
ACTIVATIONS: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
CARRIERS: dict[Carrier, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MOST_TERMS = 3
#: explicit mantissa bits of tf32, least normal exponent of float32, and exponent below which float16 is kept
_TF32_MANTISSA, _LEAST_EXPONENT, _BELOW_EXPONENT = 10, -126, 15


@dataclass(frozen=True, kw_only=True, eq=False)
class OperandType:
    """What is multiplied, and how codes become it: a value is ``factor`` times the sum of its terms."""

    operand: Operand
    decoding: Decoding
    #: float32 of shape (terms, 2**bits), of which tables are made; with one term the decoding's values
    terms: NDArray[np.float32] = field(repr=False)
    factor: float = 1.0

    @property
    def carrier(self) -> Carrier:
        """The type that the operand of tensor cores is held in."""
        return "float32" if self.operand == "tf32" else self.operand

    @property
    def table(self) -> torch.Tensor:
        """What codes of the kind ``table`` are looked up in, of shape (2**bits,).

        One term in the carrier's type; several of 16 bits side by side in an integer, the first the lowest; several of tf32 as
        the float32 that kernels cut them off.
        """
        if len(self.terms) == 1 or self.operand == "tf32":
            return torch.from_numpy(self.decoding.values.copy()).to(CARRIERS[self.carrier])
        sides = np.zeros((self.terms.shape[1], 2 if len(self.terms) == 2 else 4), np.int16)
        sides[:, : len(self.terms)] = torch.from_numpy(self.terms.T.copy()).to(CARRIERS[self.carrier]).view(torch.int16).numpy()
        return torch.from_numpy(sides.view(np.int32 if len(self.terms) == 2 else np.int64)[:, 0])

    @property
    def bytes(self) -> int:
        """Bytes of one operand."""
        return 4 if self.carrier == "float32" else 2


def exact_in(fmt: Definition, operand: Operand | Carrier) -> bool:
    """Whether a type has the value of every code in use."""
    values = _used_values(fmt)[_used(fmt)]
    if operand == "float32":
        return True
    if operand == "tf32":
        return bool((_cut(values) == values).all() and _normal(values))
    return bool((_narrowed(values, operand) == values).all())


def operand_type(fmt: Definition, activation: str, *, exact: bool = True) -> OperandType:
    """Return what is multiplied for weights of a format and ``float16`` or ``bfloat16`` activations.

    With ``exact=False`` values that the activations' type lacks are rounded to it, to nearest even; ``ValueError`` where that
    overflows, and for other activations.
    """
    own = own_operand(activation)
    found = decoding(fmt)
    if exact_in(fmt, own):
        return _single(own, found)
    if not exact:
        return _single(own, rounded(found, _rounded(fmt, activation)))
    if exact_in(fmt, "tf32"):
        return _single("tf32", found)
    return _in_terms(fmt, own, found) or _cut_in_terms(fmt, found) or _single("float32", found)


def own_operand(activation: str) -> Operand:
    """Return the type of activations as what is multiplied; ``ValueError`` for what is neither float16 nor bfloat16."""
    if activation not in ACTIVATIONS:
        raise InvalidValueError(f"activations beside weights in codes must be {' or '.join(ACTIVATIONS)}, not {activation}")
    return "float16" if activation == "float16" else "bfloat16"


def _single(operand: Operand, found: Decoding) -> OperandType:
    return OperandType(operand=operand, decoding=found, terms=found.values[np.newaxis])


def _in_terms(fmt: Definition, own: Operand, found: Decoding) -> OperandType | None:
    """Split every value into terms, each what the type is nearest to of what is left; None where three leave something over."""
    values = _used_values(fmt)
    largest = float(np.abs(values).max())
    if not math.isfinite(largest):
        return None
    exponent = _BELOW_EXPONENT - math.frexp(largest)[1] if own == "float16" else 0
    left = np.ldexp(values, exponent)
    terms: list[NDArray[np.float32]] = []
    while len(terms) < MOST_TERMS and (not terms or left.any()):
        terms.append(_narrowed(left, own))
        left = left - terms[-1]  # exact: what rounding leaves over fits float32
    if left.any():
        return None
    table = rounded(found, values)
    return OperandType(operand=own, decoding=table, terms=np.stack(terms), factor=2.0**-exponent)


def _cut_in_terms(fmt: Definition, found: Decoding) -> OperandType | None:
    """Split every value into terms of tf32, each cut off what is left: the kernel does the same; None for subnormal terms."""
    left = _used_values(fmt)
    if not np.isfinite(left).all():
        return None
    terms = []
    for _ in range(MOST_TERMS):
        terms.append(_cut(left))
        left = left - terms[-1]
    return OperandType(operand="tf32", decoding=found, terms=np.stack(terms)) if _normal(np.stack(terms)) else None


def _cut(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values without the mantissa bits that tf32 lacks."""
    kept: NDArray[np.int32] = values.view(np.int32) & ~(2 ** (23 - _TF32_MANTISSA) - 1)
    return kept.view(np.float32)


def _normal(values: NDArray[np.float32]) -> bool:
    """Whether all values are 0, normal numbers of float32, or infinite."""
    return bool(((values == 0) | (np.abs(values) >= np.float32(2.0**_LEAST_EXPONENT))).all())


def _rounded(fmt: Definition, activation: str) -> NDArray[np.float32]:
    values = _narrowed(fmt.float32_values, activation)
    if not np.array_equal(np.isfinite(values), np.isfinite(fmt.float32_values)):
        most = torch.finfo(ACTIVATIONS[activation]).max
        raise InvalidValueError(f"values to be rounded to {activation} must be at most {most:g}, not {fmt.largest:g}: {fmt.name}")
    return values


def _used(fmt: Definition) -> list[int]:
    return [code for code in range(2**fmt.bits) if code not in fmt.unused and code not in fmt.nan]


def _used_values(fmt: Definition) -> NDArray[np.float32]:
    """Return the values of all codes, those of codes that stand for no number being 0."""
    values = np.zeros(2**fmt.bits, np.float32)
    values[_used(fmt)] = fmt.float32_values[_used(fmt)]
    return values


def _narrowed(values: NDArray[np.float32], operand: str) -> NDArray[np.float32]:
    """Return the values rounded to a 16-bit type, to nearest even, and widened again."""
    return torch.from_numpy(values.copy()).to(ACTIVATIONS[operand]).float().numpy()
