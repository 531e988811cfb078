"""What a matrix product or a convolution returns: the accumulators' content, and the numbers that are read out of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic import root_kernels as kernels
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.sums import FLOAT64, Sums, round_with_root
from formats.errors import InvalidValueError

#: sums of two int64 in Z[sqrt(2)] are at least 2**-66 unless zero: times this power of two they are no subnormal numbers
_LEAST_FOR_FAST = -1022 + 66


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(ABC):
    """Accumulators of a dot product for every output."""

    accumulator: Accumulator
    #: name of the arithmetic that was used
    path: str
    #: exponent of the LSB where there is one
    unit_exponent: int | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the outputs."""

    @property
    def lsb_exponent(self) -> int:
        """Exponent of the accumulator's LSB, the product of the operands' LSBs; ``ValueError`` in floating point."""
        if self.unit_exponent is None:
            raise InvalidValueError(f"accumulator must be exact or fixed for an LSB of its own, not {self.accumulator}")
        return self.unit_exponent

    @abstractmethod
    def to_integers(self) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
        """Return the content in units of one LSB: int64 where all of it fits, else an object array of Python integers.

        Where a format has powers of the square root of two: a pair of arrays, even and odd, of which the odd one is to be
        multiplied by the root. Raises ``ValueError`` for an accumulator in floating point.
        """

    @abstractmethod
    def to_float(self) -> NDArray[np.float64]:
        """Return the content rounded once to float64, to nearest even; what lies beyond float64 is Inf."""


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerResult(Result):
    """Sums in whole LSBs."""

    sums: Sums

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outputs."""
        return self.sums.shape

    def to_integers(self) -> NDArray[Any]:
        """Return the sums: int64 where all fit, else Python integers."""
        return self.sums.to_integers()

    def to_float(self) -> NDArray[np.float64]:
        """Return the sums as float64, each rounded once."""
        return self.sums.to_float(self.lsb_exponent)


@dataclass(frozen=True, kw_only=True, eq=False)
class RootResult(Result):
    """Sums in Z[sqrt(2)], even and odd powers of the root apart."""

    even: Sums
    odd: Sums

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outputs."""
        return self.even.shape

    def to_integers(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the even and the odd sums, each int64 where all of it fits, else Python integers."""
        return self.even.to_integers(), self.odd.to_integers()

    def to_float(self) -> NDArray[np.float64]:
        """Return even + odd * sqrt(2) as float64, each rounded once.

        A sum in twice float64's precision settles nearly all of them; those it leaves open go by the integer square root.
        """
        even, odd = self.to_integers()
        made = np.empty(even.size, np.float64)
        fast = even.dtype == odd.dtype == np.int64 and self.lsb_exponent >= _LEAST_FOR_FAST
        if fast:
            settled = np.empty(even.size, np.bool_)
            kernels.combine(even.reshape(-1), odd.reshape(-1), made, settled)
            with np.errstate(over="ignore"):
                made = np.ldexp(made, self.lsb_exponent)
        for i in np.flatnonzero(~settled) if fast else range(even.size):
            made[i] = round_with_root(int(even.flat[i]), int(odd.flat[i]), self.lsb_exponent, *FLOAT64)
        return made.reshape(self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatResult(Result):
    """Sums in floating point."""

    #: float32 that holds the accumulator's type exactly
    numbers: NDArray[np.float32]
    #: what they are multiplied by at the very end: the scales of whole tensors
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outputs."""
        return self.numbers.shape

    def to_integers(self) -> NDArray[Any]:
        """Refuse: these sums are no whole numbers."""
        raise InvalidValueError(f"accumulator must be exact or fixed for whole numbers, not {self.accumulator}")

    def to_float(self) -> NDArray[np.float64]:
        """Return the numbers as float64, times the scales of whole tensors, if any, rounded once."""
        return self.numbers.astype(np.float64) * self.factor
