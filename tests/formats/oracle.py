"""The scalar formats as shared/design.md (sections 4 and 5) words them, in whole numbers and fractions.

Slow, obvious, and written from that page rather than from ``formats``: a level is a code and the exact square of its value,
since values of the formats in powers of the square root of two are irrational and their squares are not.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LARGEST_FLOAT32 = (2 - Fraction(1, 2**23)) * 2**127


@dataclass(frozen=True)
class Level:
    code: int
    sign: int
    square: Fraction
    even: bool = True  # whether the last digit is, which settles a tie

    @property
    def magnitude(self) -> Fraction:
        root = Fraction(math.isqrt(self.square.numerator), math.isqrt(self.square.denominator))
        assert root**2 == self.square
        return root

    @cached_property
    def value(self) -> Fraction:
        return self.sign * self.magnitude

    @cached_property
    def as_float32(self) -> Fraction:
        return self.sign * nearest_float(self.square, digits=24, least_exponent=-149)

    @cached_property
    def as_float64(self) -> Fraction:
        return self.sign * nearest_float(self.square, digits=53, least_exponent=-1074)


def nearest_float(square: Fraction, *, digits: int, least_exponent: int) -> Fraction:
    """The binary floating-point number nearest to the root of ``square``, a tie going to the even digit."""
    if square == 0:
        return Fraction(0)
    exponent = (square.numerator.bit_length() - square.denominator.bit_length()) // 2 + 1
    while Fraction(4) ** exponent > square:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - digits + 1, least_exponent)
    scaled = square / unit**2
    number = math.isqrt(math.floor(scaled))
    half_way = (number + Fraction(1, 2)) ** 2
    if scaled > half_way or (scaled == half_way and number % 2 == 1):
        number += 1
    return number * unit


def integer(code: int, number: int) -> Level:
    return Level(code, (number > 0) - (number < 0), Fraction(number) ** 2, number % 2 == 0)


def twos_complement(bits: int) -> list[Level]:
    return [integer(code, code if code < 2 ** (bits - 1) else code - 2**bits) for code in range(2**bits)]


def narrow(bits: int) -> list[Level]:
    return [level for level in twos_complement(bits) if level.code != 2 ** (bits - 1)]


def unsigned(bits: int) -> list[Level]:
    return [integer(code, code) for code in range(2**bits)]


def minifloat(exponent_bits: int, mantissa_bits: int, signed: bool) -> list[Level]:
    bias = 2 ** (exponent_bits - 1) - 1
    found = []
    for sign_bit in range(1 + signed):
        for field in range(2**exponent_bits):
            for mantissa in range(2**mantissa_bits):
                code = (sign_bit << exponent_bits | field) << mantissa_bits | mantissa
                significand = mantissa if field == 0 else 2**mantissa_bits + mantissa
                power = (1 if field == 0 else field) - bias - mantissa_bits
                sign = 0 if significand == 0 else 1 - 2 * sign_bit
                found.append(Level(code, sign, significand**2 * Fraction(4) ** power, significand % 2 == 0))
    return found


def signed_powers(bits: int, squared_base: int) -> list[Level]:
    largest = 2 ** (bits - 1) - 1
    found = []
    for code in range(2**bits):
        negative, c = divmod(code, 2 ** (bits - 1))
        square = Fraction(squared_base) ** (c - largest) if c else Fraction(0)
        found.append(Level(code, (1 - 2 * negative) if c else 0, square))
    return found


def unsigned_powers(bits: int, squared_base: int) -> list[Level]:
    last = 2**bits - 1
    return [*(Level(q, 1, Fraction(squared_base) ** -q) for q in range(last)), Level(last, 0, Fraction(0))]


FAMILIES: dict[str, Callable[..., list[Level]]] = {
    r"int(\d+)": twos_complement,
    r"int(\d+)_narrow": narrow,
    r"uint(\d+)": unsigned,
    r"e(\d+)m(\d+)": lambda e, m: minifloat(e, m, signed=True),
    r"ue(\d+)m(\d+)": lambda e, m: minifloat(e, m, signed=False),
    r"pot(\d+)": lambda bits: signed_powers(bits, 4),
    r"post(\d+)": lambda bits: signed_powers(bits, 2),
    r"ulog2_(\d+)": lambda bits: unsigned_powers(bits, 4),
    r"ulogsqrt2_(\d+)": lambda bits: unsigned_powers(bits, 2),
    "ternary": lambda: [integer(0b00, 0), integer(0b01, 1), integer(0b11, -1)],
    "binary": lambda: [integer(0, -1), integer(1, 1)],
}


class Oracle:
    """One format: its levels, and the code that a float32 rounds to."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: square of the base that levels are whole powers of, for the formats that round in the log domain
        self.squared_base = 4 if re.match("pot|ulog2", name) else 2 if re.match("post|ulogsqrt2", name) else None
        self.levels = next(
            build(*map(int, match.groups()))
            for pattern, build in FAMILIES.items()
            if (match := re.fullmatch(pattern, name)) is not None
        )
        zeros = [level for level in self.levels if level.sign == 0]
        self.zero = zeros[0] if zeros else None
        self.minus_zero = zeros[1] if len(zeros) == 2 else None
        reachable = [
            level
            for level in self.levels
            if level != self.minus_zero and abs(level.as_float32) <= LARGEST_FLOAT32 and (level.sign == 0 or level.as_float32 != 0)
        ]
        #: every level that a float32 can round to, ascending
        self.ladder = sorted(reachable, key=lambda level: level.sign * level.square)

    def encode(self, x: float, rounding: str = "nearest_even") -> int:
        if self.name == "binary":
            return int(x >= 0)
        if math.isinf(x):
            return self.ladder[-1 if x > 0 else 0].code
        if rounding == "toward_zero":
            level = self._toward_zero(Fraction(x))
        elif self.squared_base:
            level = self._nearest_logarithm(Fraction(x))
        else:
            level = self._nearest(Fraction(x), rounding)
        if level is self.zero and self.minus_zero is not None and math.copysign(1, x) < 0:
            level = self.minus_zero
        return level.code

    def _toward_zero(self, x: Fraction) -> Level:
        """Levels count as what decoding makes of them in float32, so that a decoded level stays where it is."""
        if x >= 0:
            return self.ladder[max(bisect_right(self._as_float32, x) - 1, 0)]
        return self.ladder[min(bisect_left(self._as_float32, x), len(self.ladder) - 1)]

    def _nearest(self, x: Fraction, rounding: str) -> Level:
        i = bisect_left(self._values, x)
        if i in (0, len(self.ladder)):
            return self.ladder[min(i, len(self.ladder) - 1)]
        below, above = self.ladder[i - 1], self.ladder[i]
        if x - below.value != above.value - x:
            return below if x - below.value < above.value - x else above
        if rounding == "nearest_even" and below.even != above.even:
            return below if below.even else above
        return below if below.square > above.square else above

    def _nearest_logarithm(self, x: Fraction) -> Level:
        """Where the distances of the logarithms are equal, x**4 is the product of the squares of two levels."""
        side, meetings = self._sides[-1 if x < 0 else 1]
        passed = bisect_left(meetings, x**4)
        return side[passed - 1] if passed else self.zero

    @cached_property
    def _values(self) -> list[Fraction]:
        return [level.value for level in self.ladder]

    @cached_property
    def _as_float32(self) -> list[Fraction]:
        return [level.as_float32 for level in self.ladder]

    @cached_property
    def _sides(self) -> dict[int, tuple[list[Level], list[Fraction]]]:
        """The levels of either sign from the smallest magnitude up, and the fourth powers of where each of them begins."""
        sides = {}
        for sign in (-1, 1):
            side = sorted((level for level in self.ladder if level.sign == sign), key=lambda level: level.square)
            squares = [level.square for level in side]
            below_smallest = [square / self.squared_base for square in squares[:1]]
            sides[sign] = side, [lower * upper for lower, upper in pairwise(below_smallest + squares)]
        return sides

    def boundaries(self, most: int = 1100) -> list[tuple[Level, Level, np.float32]]:
        """Neighbouring levels and a float32 close to where they meet; of more than ``most`` pairs a sample."""
        pairs = list(pairwise(self.ladder))
        if len(pairs) > most:
            last = len(pairs) - 1
            zero = next(i for i, (_, above) in enumerate(pairs) if above.sign >= 0)
            picked = {*range(25), *range(last - 25, last + 1), *range(max(zero - 50, 0), zero + 50)}
            pairs = [pairs[i] for i in sorted(picked | {last * i // (most - 150) for i in range(most - 150)})]
        return [(below, above, np.float32(self._meeting(below, above))) for below, above in pairs]

    def _meeting(self, below: Level, above: Level) -> float:
        if self.squared_base is None:
            return float((below.value + above.value) / 2)
        lower, upper = sorted([below.square, above.square])
        product = (lower or upper / self.squared_base) * upper
        return (below.sign or above.sign) * float(nearest_float(product, digits=200, least_exponent=-2000)) ** 0.5

    @cached_property
    def probes(self) -> NDArray[np.float32]:
        """Float32 numbers at and next to every level and every place where two levels meet, and the extremes of float32."""
        at = [np.float32(float(level.as_float32)) for pair in self.boundaries() for level in pair[:2]]
        at += [meeting for _, _, meeting in self.boundaries()]
        at += [np.float32(x) for x in (0, 2.0**-149, 1e-40, 2.0**-126, np.finfo(np.float32).max)]
        with np.errstate(over="ignore"):  # the number after the largest is an infinity, which is to be probed too
            near = np.unique(np.concatenate([at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))]))
        return np.concatenate([near, -near])


@cache
def oracle(name: str) -> Oracle:
    return Oracle(name)
