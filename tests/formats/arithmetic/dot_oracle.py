"""Dot products by the book, in Python's integers and fractions: slow, obvious, and built on values alone."""

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import formats
from formats import Format

#: a number in Q[sqrt(2)]: the rational part, and what the root is multiplied by
Number = tuple[Fraction, Fraction]
ZERO = (Fraction(0), Fraction(0))
#: digits and exponent of the last place of the smallest number
TYPES = {"float64": (53, -1074, 1024), "float32": (24, -149, 128), "float16": (11, -24, 16), "bfloat16": (8, -133, 128)}
SCALARS: dict[str, Callable[[float], Any]] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def scalar(name: str) -> Format:
    return formats.scalar(name)


@cache
def numbers(name: str) -> tuple[Number | None, ...]:
    """The value of every code, None for those that are no finite number."""
    rooted = name.startswith(("post", "ulogsqrt2"))
    return tuple(number(float(value), rooted) for value in scalar(name).values)


def number(value: float, rooted: bool) -> Number | None:
    if not math.isfinite(value):
        return None
    if rooted and value != 0:
        half_octaves = round(2 * math.log2(abs(value)))
        power = math.copysign(1, value) * Fraction(2) ** (half_octaves // 2)
        return (Fraction(0), Fraction(power)) if half_octaves % 2 else (Fraction(power), Fraction(0))
    return Fraction(value), Fraction(0)


@cache
def lsb_exponent(name: str) -> int:
    """Exponent of the largest power of two that all finite values are whole multiples of."""
    parts = [part for found in numbers(name) if found is not None for part in found if part != 0]
    return min(_trailing_zeros(part.numerator) - part.denominator.bit_length() + 1 for part in parts)


def _trailing_zeros(n: int) -> int:
    return (n & -n).bit_length() - 1


def usable(name: str) -> NDArray[np.int64]:
    """Codes of finite numbers."""
    return np.array([code for code, found in enumerate(numbers(name)) if found is not None])


def times(a: Number, w: Number) -> Number:
    return a[0] * w[0] + 2 * a[1] * w[1], a[0] * w[1] + a[1] * w[0]


def registers(products: Iterable[Number], unit: Fraction, keep: Callable[[int], int] = lambda total: total) -> tuple[int, int]:
    """Sum up in order, whole multiples of ``unit``; ``keep`` is what a register makes of each sum."""
    even = odd = 0
    for product in products:
        parts = [part / unit for part in product]
        assert all(part.denominator == 1 for part in parts)
        even, odd = keep(even + int(parts[0])), keep(odd + int(parts[1]))
    return even, odd


def saturating(bits: int) -> Callable[[int], int]:
    return lambda total: min(max(total, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)


def wrapping(bits: int) -> Callable[[int], int]:
    return lambda total: (total + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def matrix(
    a: NDArray[Any], a_name: str, w: NDArray[Any], w_name: str, keep: Callable[[int], int] = lambda total: total
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Even and odd registers of every output, as Python integers in units of the product's LSB."""
    unit = Fraction(2) ** (lsb_exponent(a_name) + lsb_exponent(w_name))
    even, odd = (np.full((a.shape[0], w.shape[1]), 0, object) for _ in range(2))
    for i, j in np.ndindex(*even.shape):
        products = (times(numbers(a_name)[x], numbers(w_name)[y]) for x, y in zip(a[i], w[:, j], strict=True))
        even[i, j], odd[i, j] = registers(products, unit, keep)
    return even, odd


def nearest(value: Number, name: str = "float64") -> float:
    """The number of a type that is nearest, ties to even, beyond the largest Inf."""
    digits, least, most = TYPES[name]
    sign = _sign(value)
    if sign == 0:
        return 0.0
    even, odd = sign * value[0], sign * value[1]
    exponent = least
    if 0 in value:  # one part alone tells the last place to within a few
        alone = even + odd
        exponent = max(least, alone.numerator.bit_length() - alone.denominator.bit_length() - digits - 2)
    while _sign((even - Fraction(2) ** (exponent + digits), odd)) >= 0:
        exponent += 1
        if exponent + digits > most:
            return sign * math.inf
    low, high = 0, 2**digits
    while high - low > 1:  # bisection for the largest multiple of the last place that is not above
        middle = (low + high) // 2
        low, high = (middle, high) if _sign((even - middle * Fraction(2) ** exponent, odd)) >= 0 else (low, middle)
    half_way = _sign((even - (low + Fraction(1, 2)) * Fraction(2) ** exponent, odd))
    low += half_way > 0 or (half_way == 0 and low % 2 == 1)
    return sign * math.inf if low * Fraction(2) ** exponent >= Fraction(2) ** most else sign * math.ldexp(low, exponent)


def _sign(value: Number) -> int:
    """Sign of even + odd * sqrt(2), from squares."""
    even, odd = value
    if even >= 0 and odd >= 0:
        return int(even > 0 or odd > 0)
    if even <= 0 and odd <= 0:
        return -1
    difference = even**2 - 2 * odd**2
    return (1 if even > 0 else -1) * ((difference > 0) - (difference < 0))


def product_in(name: str, a: Format, x: int, w: Format, y: int) -> Any:
    """The product of two codes as a numpy scalar of a type, rounded once; zeros, Inf and NaN as IEEE 754 has them."""
    one, other = a.values[x], w.values[y]
    if not (np.isfinite(one) and np.isfinite(other)) or one == 0 or other == 0:
        with np.errstate(invalid="ignore"):
            return SCALARS[name](one * other)
    found = times(numbers(a.name)[x] or ZERO, numbers(w.name)[y] or ZERO)
    return SCALARS[name](nearest(found, name))


def floating(a: NDArray[Any], a_name: str, w: NDArray[Any], w_name: str, name: str, order: str) -> NDArray[np.float64]:
    """Sums of every output in numpy's scalar arithmetic."""
    first, second = scalar(a_name), scalar(w_name)
    out = np.empty((a.shape[0], w.shape[1]))
    for i, j in np.ndindex(*out.shape):
        products = [product_in(name, first, int(x), second, int(y)) for x, y in zip(a[i], w[:, j], strict=True)]
        with np.errstate(all="ignore"):
            out[i, j] = float(_tree(products, name) if order == "pairwise" else _in_order(products, name))
    return out


def _in_order(products: list[Any], name: str) -> Any:
    total = SCALARS[name](0)
    for product in products:
        total = SCALARS[name](total + product)
    return total


def _tree(level: list[Any], name: str) -> Any:
    level = level or [SCALARS[name](0)]
    while len(level) > 1:
        pairs = [SCALARS[name](level[k] + level[k + 1]) for k in range(0, len(level) - 1, 2)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def segments(depth: int, *blocks: int | None) -> list[tuple[int, int]]:
    """Runs of k without the end of a block inside."""
    cuts = {0, depth}
    for block in blocks:
        cuts |= set(range(0, depth, block)) if block else set()
    return list(pairwise(sorted(cuts)))
