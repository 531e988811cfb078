"""Matrix products of codes, with the accumulator that hardware would have.

>>> import numpy as np
>>> from formats import Accumulator, matmul
>>> a, w = np.uint8([[1, 2, 255]]), np.uint8([[3], [4], [5]])
>>> matmul(a, "int8", w, "e2m1", Accumulator.exact()).to_float()
array([[2.5]])
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from numpy.typing import ArrayLike, NDArray

from formats import registry
from formats.arithmetic import block_dot, exact, fixed, floating
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.products import Operand, Pair, as_codes, operand
from formats.arithmetic.results import FloatResult, IntegerResult, Result, RootResult
from formats.arithmetic.sums import Sums
from formats.block import BlockFormat
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from formats.names import unknown_name

EXACT = Accumulator.exact()
PATHS = (*exact.PATHS, *fixed.PATHS, *floating.PATHS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How the dot products of two operands are computed, chosen once for all of their parts."""

    accumulator: Accumulator
    pair: Pair
    steps: exact.ExactPlan | fixed.SaturatingPlan | floating.FloatingPlan

    @cached_property
    def path(self) -> str:
        """Name of the arithmetic that is used."""
        return self.steps.path

    def blank(self, rows: int, columns: int) -> list[NDArray[Any]]:
        """Return what ``run`` would return for zeros; outputs are on the last two axes."""
        return self.steps.blank(rows, columns)

    def run(self, a: NDArray[Any], w: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the raw content of the accumulators of codes (M, K) times codes (K, N)."""
        return self.steps.run(a, w)

    def result(self, numbers: list[NDArray[Any]]) -> Result:
        """Return raw content, of whatever shape its outputs are brought to, as a result."""
        if isinstance(self.steps, floating.FloatingPlan):
            return FloatResult(accumulator=self.accumulator, path=self.path, numbers=numbers[0])
        sums = self.steps.sums(numbers)
        if self.accumulator.overflow == "wrap" and self.accumulator.bits is not None:
            sums = [each.wrapped(self.accumulator.bits) for each in sums]
        return _integer_result(self.accumulator, self.path, self.pair.lsb_exponent, sums)


def _integer_result(accumulator: Accumulator, path: str, lsb_exponent: int, sums: list[Sums]) -> Result:
    if len(sums) == 1:
        return IntegerResult(accumulator=accumulator, path=path, unit_exponent=lsb_exponent, sums=sums[0])
    return RootResult(accumulator=accumulator, path=path, unit_exponent=lsb_exponent, even=sums[0], odd=sums[1])


def plan(a: Operand, w: Operand, w_codes: NDArray[Any], accumulator: Accumulator, path: str | None, rows: int) -> Plan:
    """Choose how to compute products of ``rows`` rows with ``w_codes`` (K, N); ``path`` asks for one arithmetic.

    Raises ``ValueError`` where the one asked for is not proved exact for these operands, ``KeyError`` for an unknown one.
    """
    pair = Pair(a=a, w=w)
    if path is not None and path not in PATHS:
        raise unknown_name("path", path, PATHS)
    return Plan(accumulator=accumulator, pair=pair, steps=_steps(pair, w_codes, accumulator, path, rows * w_codes.size))


def _steps(
    pair: Pair, w: NDArray[Any], accumulator: Accumulator, path: str | None, work: int
) -> exact.ExactPlan | fixed.SaturatingPlan | floating.FloatingPlan:
    if accumulator.kind == "floating":
        _check_path(path, floating.PATHS, accumulator)
        return floating.plan(pair, accumulator, path)
    if accumulator.kind == "exact" or accumulator.overflow == "wrap":
        _check_path(path, exact.PATHS, accumulator)
        return exact.plan(pair, w, w.shape[0], path, work)
    assert accumulator.bits is not None
    _check_path(path, (*exact.PATHS, *fixed.PATHS), accumulator)
    if path not in fixed.PATHS and _never_saturates(pair, w, accumulator.bits):
        return exact.plan(pair, w, w.shape[0], path, work)
    if path in exact.PATHS:
        raise InvalidValueError(
            f"path {path} must be proved exact for these operands, not taken where sums may reach the limits of {accumulator}"
        )
    return fixed.plan(pair, accumulator.bits, path)


def _never_saturates(pair: Pair, w: NDArray[Any], bits: int) -> bool:
    """Whether the sum of the products' magnitudes, and so every prefix of every sum, stays within the register."""
    limit: int = (2 ** (bits - 1) - 1) >> sum(pair.shift)
    found = exact.bounds(pair, w.shape[0])
    if max(each.total for each in found) > limit:
        found = exact.closer_bounds(pair, w, found)
    return max(each.total for each in found) <= limit


def _check_path(path: str | None, valid: tuple[str, ...], accumulator: Accumulator) -> None:
    if path is not None and path not in valid:
        raise InvalidValueError(f"path of the accumulator {accumulator} must be one of {', '.join(valid)}, not {path}")


def matmul(
    a_codes: ArrayLike | block_dot.Coded,
    a_format: str | Format | BlockFormat,
    w_codes: ArrayLike | block_dot.Coded,
    w_format: str | Format | BlockFormat,
    accumulator: Accumulator = EXACT,
    *,
    path: str | None = None,
) -> Result:
    """Multiply codes (M, K) with codes (K, N), summed over k = 0 … K-1 by the accumulator.

    Formats go by name. A block format's operand is the pair (codes, scales) that ``encode`` returns, blocks running along k:
    ``encode(a, axis=-1)`` and ``encode(w, axis=0)``; such products are summed exactly within a block and in float32 across
    blocks, whatever of ``exact()`` and ``floating("float32")`` is given (see ``formats.arithmetic.block_dot``).

    ``path`` asks for one arithmetic out of ``arithmetic.PATHS`` in place of the fastest that is proved exact. Raises
    ``ValueError`` for shapes that do not fit, codes out of range or unused, NaN and Inf where the accumulator is not floating,
    and a path that is not proved exact; ``TypeError`` for codes that are no integers.
    """
    if not isinstance(accumulator, Accumulator):
        raise InvalidTypeError(f"accumulator must be an Accumulator, not {type(accumulator).__name__}")
    formats = as_format(a_format), as_format(w_format)
    if any(isinstance(fmt, BlockFormat) for fmt in formats):
        return block_dot.block_matmul(a_codes, formats[0], w_codes, formats[1], accumulator, path)
    assert isinstance(formats[0], Format)
    assert isinstance(formats[1], Format)
    a, w = as_codes("a", formats[0], cast(ArrayLike, a_codes), "M, K"), as_codes("w", formats[1], cast(ArrayLike, w_codes), "K, N")
    if a.shape[1] != w.shape[0]:
        raise InvalidValueError(f"codes of a and w must agree in K, not have {a.shape[1]} and {w.shape[0]}")
    specials = accumulator.kind == "floating"
    operands = operand("a", formats[0], a, specials=specials), operand("w", formats[1], w, specials=specials)
    made = plan(*operands, w, accumulator, path, a.shape[0])
    return made.result(made.run(a, w))


def as_format(fmt: str | Format | BlockFormat) -> Format | BlockFormat:
    """Return a format by its name, or the format that is given."""
    if isinstance(fmt, Format | BlockFormat):
        return fmt
    return registry.get(fmt)
