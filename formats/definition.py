"""What a number format is, as data: a finite set of codes, the exact value of each, and how a real number is rounded to one."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray


class Spacing(StrEnum):
    """Where "nearest" is measured."""

    #: on the number line: the boundary of two levels is their arithmetic mean
    LINEAR = "linear"
    #: on the logarithmic line: the boundary is the geometric mean; levels are whole powers of two
    POWERS_OF_TWO = "powers of two"
    #: as above; levels are whole powers of the square root of two
    POWERS_OF_ROOT_TWO = "powers of the square root of two"


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Arithmetic that gives the same codes as the boundary table, only faster.

    It speeds up ``nearest_even`` and adds nothing to the meaning of a format: a format without one works alike, by table. That of
    a ``uniform`` format, whose levels are neighbouring whole numbers, gives the level plus the code of zero, modulo 2**bits.
    """

    kind: Literal["uniform", "floating", "shortened", "logarithmic"]
    signed: bool
    #: stored mantissa bits of a floating format, or of a float32 cut short; steps per octave of a logarithmic one
    mantissa_bits: int = 0
    #: exponent of a floating format's smallest normal number
    minimum_exponent: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Definition:
    """One number format, defined by what each code is worth.

    The value of a code is ``significand * 2**exponent * sqrt(2)**root``, exactly. Formats hold no scale.
    """

    #: what a user types, a search samples and a file holds
    name: str
    #: width of a code in bits, 1 to 16
    bits: int
    #: int64 of shape (2**bits,)
    significand: NDArray[np.int64]
    #: int64 of shape (2**bits,)
    exponent: NDArray[np.int64]
    #: 0 or 1, int64 of shape (2**bits,): whether the value has a factor of the square root of two
    root: NDArray[np.int64]
    #: codes that stand for nothing at all
    unused: frozenset[int] = frozenset()
    #: codes of NaN; the first is the one that encoders write, the second, if any, its negative
    nan: tuple[int, ...] = ()
    #: codes of minus and plus infinity, if there are any
    infinities: tuple[int, int] | None = None
    #: the code of minus zero, if there is one
    negative_zero: int | None = None
    spacing: Spacing = Spacing.LINEAR
    closed_form: ClosedForm | None = None
    #: the name of the format of the same width for values that are never negative; itself where it is one
    unsigned_counterpart: str | None = None
    #: one line for listings
    summary: str = ""

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Value of every code, float64 of shape (2**bits,); NaN for NaN and unused codes, read-only."""
        values = np.ldexp(self.significand.astype(np.float64), self.exponent.astype(np.int32))
        values = np.where(self.root == 1, values * np.sqrt(2.0), values)
        values[[*self.unused, *self.nan]] = np.nan
        if self.infinities is not None:
            values[list(self.infinities)] = -np.inf, np.inf
        if self.negative_zero is not None:
            values[self.negative_zero] = -0.0
        values.setflags(write=False)
        return values

    @cached_property
    def float32_values(self) -> NDArray[np.float32]:
        """Value of every code as decoding gives it: rounded to float32."""
        with np.errstate(over="ignore"):
            values = self.values.astype(np.float32)
        values.setflags(write=False)
        return values

    @cached_property
    def largest(self) -> np.float32:
        """Largest value that float32 can carry, and so the largest that anything is quantized to."""
        return np.float32(self.float32_values[np.isfinite(self.float32_values)].max())

    @property
    def maximum(self) -> float:
        """Largest finite value."""
        return float(self.values[np.isfinite(self.values)].max())

    @property
    def minimum(self) -> float:
        """Smallest finite value: at least 0 for formats of values that are never negative."""
        return float(self.values[np.isfinite(self.values)].min())

    @property
    def signed(self) -> bool:
        """Whether some value is negative."""
        return self.minimum < 0

    @property
    def code_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Dtype of code arrays: uint8 up to 8 bits, else uint16."""
        return np.uint8 if self.bits <= 8 else np.uint16
