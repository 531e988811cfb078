"""Formats by name. A family is a pattern and a function; registering one is all it takes for the rest to accept it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from formats import integer, logarithmic, minifloat
from formats.errors import InvalidValueError, UnknownNameError
from formats.format import Format
from formats.names import unknown_name


@dataclass(frozen=True, kw_only=True)
class Family:
    """Formats whose names differ in numbers only.

    ``pattern`` names them with the numbers in braces, as in ``e{E}m{M}``; ``build`` takes the numbers in that order. Each
    number has a range; ``bits`` gives the width for further limits.
    """

    pattern: str
    build: Callable[..., Format]
    #: smallest and largest value of each number in the pattern
    ranges: tuple[tuple[int, int], ...] = ()
    #: largest sum of width that the numbers may come to, as (limit, what is added to their sum to get the width)
    width_limit: tuple[int, int] | None = None
    #: names worth suggesting
    examples: tuple[str, ...] = ()

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers in ``name``, or None where it is no name of this family (leading zeros are not)."""
        expression = re.sub(r"\\{\w+\\}", r"(0|[1-9][0-9]{0,2})", re.escape(self.pattern))
        match = re.fullmatch(expression, name)
        return None if match is None else tuple(int(group) for group in match.groups())


FAMILIES: list[Family] = []


def register(family: Family) -> None:
    """Make the formats of ``family`` known by name, here and everywhere in the project."""
    if any(known.pattern == family.pattern for known in FAMILIES):
        raise InvalidValueError(f"pattern of a format family must be new, not already registered: {family.pattern}")
    FAMILIES.append(family)
    get.cache_clear()


def names() -> list[str]:
    """Every registered name or pattern."""
    return [family.pattern for family in FAMILIES]


@cache
def get(name: str) -> Format:
    """Return the format called ``name``; ``KeyError`` names the nearest valid names."""
    for family in FAMILIES:
        numbers = family.numbers(name)
        if numbers is not None:
            _check_numbers(name, family, numbers)
            return family.build(*numbers)
    suggestions = [example for family in FAMILIES for example in family.examples]
    raise unknown_name("format", name, suggestions, see="; patterns: " + ", ".join(names()))


def _check_numbers(name: str, family: Family, numbers: tuple[int, ...]) -> None:
    labels = re.findall(r"\{(\w+)\}", family.pattern)
    for label, number, (low, high) in zip(labels, numbers, family.ranges, strict=True):
        if not low <= number <= high:
            nearest = name.replace(str(number), str(min(max(number, low), high)), 1)
            raise UnknownNameError(f"{label} of format {family.pattern} must be {low} to {high}, not {number}; nearest: {nearest}")
    if family.width_limit is not None:
        limit, added = family.width_limit
        width = sum(numbers) + added
        if not 2 <= width <= limit:
            raise UnknownNameError(f"width of format {family.pattern} must be 2 to {limit} bits, not {width} ({name})")


def _minifloat_names(prefix: str, sign_bits: int) -> tuple[str, ...]:
    return tuple(
        f"{prefix}e{exponent}m{width - sign_bits - exponent}"
        for width in range(3, 9)
        for exponent in range(1, width - sign_bits + 1)
    )


def _numbered(pattern: str, low: int, high: int) -> tuple[str, ...]:
    return tuple(pattern.format(b=bits) for bits in range(low, high + 1))


def _register_one_number(pattern: str, build: Callable[[int], Format], low: int, high: int) -> None:
    register(Family(pattern=pattern, build=build, ranges=((low, high),), examples=_numbered(pattern, low, high)))


_register_one_number("int{b}", integer.signed, 2, 16)
_register_one_number("int{b}_narrow", integer.narrow, 2, 16)
_register_one_number("uint{b}", integer.unsigned, 1, 16)
register(
    Family(
        pattern="e{E}m{M}",
        build=lambda e, m: minifloat.build(e, m, signed=True),
        ranges=((1, 10), (0, 14)),
        width_limit=(16, 1),
        examples=_minifloat_names("", 1),
    )
)
register(
    Family(
        pattern="ue{E}m{M}",
        build=lambda e, m: minifloat.build(e, m, signed=False),
        ranges=((1, 10), (0, 15)),
        width_limit=(16, 0),
        examples=_minifloat_names("u", 0),
    )
)
_register_one_number("pot{b}", lambda bits: logarithmic.signed(bits, 1), 2, 8)
_register_one_number("post{b}", lambda bits: logarithmic.signed(bits, 2), 2, 9)
_register_one_number("ulog2_{b}", lambda bits: logarithmic.unsigned(bits, 1), 1, 8)
_register_one_number("ulogsqrt2_{b}", lambda bits: logarithmic.unsigned(bits, 2), 1, 9)
register(Family(pattern="ternary", build=integer.ternary, examples=("ternary",)))
register(Family(pattern="binary", build=integer.binary, examples=("binary",)))
