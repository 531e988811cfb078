"""How the codes of whole numbers become what integer tensor cores multiply."""

from dataclasses import dataclass

import numpy as np

from formats.errors import InvalidValueError
from formats.format import Format


@dataclass(frozen=True, kw_only=True)
class Operand:
    """How a code becomes int8: ``value = int8((code ^ flip) << (8 - bits)) / 2**(8 - bits) + offset``."""

    bits: int
    flip: int
    offset: int
    #: largest magnitude of a value
    reach: int


def operand(fmt: Format) -> Operand:
    """Return how the codes of an integer format enter the tensor cores; ``ValueError`` for other formats."""
    codes = np.flatnonzero(np.isfinite(fmt.values))
    values = fmt.values[codes]
    for flip in (0, 2 ** (fmt.bits - 1)):
        flipped = codes ^ flip
        numbers = np.where(flipped >= 2 ** (fmt.bits - 1), flipped - 2**fmt.bits, flipped)
        offset = values[0] - numbers[0]
        if 2 <= fmt.bits <= 8 and offset == int(offset) and np.array_equal(values, numbers + offset):
            return Operand(bits=fmt.bits, flip=flip, offset=int(offset), reach=int(np.abs(values).max()))
    raise InvalidValueError(f"format of an integer product must be an integer of 2 to 8 bits, not {fmt.name}")
