"""Formats by name. A family is a pattern and a function; registering one is all it takes for the rest to accept it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from formats import additive, affine, block, codebook, integer, logarithmic, minifloat, standard
from formats.block import BlockFormat
from formats.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from formats.format import Format
from formats.names import unknown_name


@dataclass(frozen=True, kw_only=True)
class Family:
    """Formats whose names differ in numbers only.

    ``pattern`` names them with the numbers in braces, as in ``e{E}m{M}``; ``build`` takes the numbers in that order. Each
    number has a range, and their sum may be limited too.
    """

    pattern: str
    build: Callable[..., Format | BlockFormat]
    #: smallest and largest value of each number in the pattern
    ranges: tuple[tuple[int, int], ...] = ()
    #: the same where the first number settles what the others may be; ``ranges`` then says what they may be at all
    ranges_by_first: Callable[[int], tuple[tuple[int, int], ...]] | None = None
    #: largest sum of width that the numbers may come to, as (limit, what is added to their sum to get the width)
    width_limit: tuple[int, int] | None = None
    #: names worth suggesting
    examples: tuple[str, ...] = ()

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers in ``name``, or None where it is no name of this family (leading zeros are not)."""
        expression = re.escape(self.pattern)
        for low, _ in self.ranges:
            number = r"(0|-?[1-9][0-9]{0,4})" if low < 0 else r"(0|[1-9][0-9]{0,4})"
            expression = re.sub(r"\\{\w+\\}", number, expression, count=1)
        match = re.fullmatch(expression, name)
        return None if match is None else tuple(int(group) for group in match.groups())

    def width(self, numbers: tuple[int, ...]) -> int:
        """Return the width in bits where the family limits it, else 0."""
        return 0 if self.width_limit is None else sum(numbers) + self.width_limit[1]

    def ranges_for(self, numbers: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Return the range of each number, given the first of these or the valid one nearest to it."""
        if self.ranges_by_first is None:
            return self.ranges
        low, high = self.ranges[0]
        return self.ranges_by_first(min(max(numbers[0], low), high))

    def limited(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the valid numbers nearest to these: each within its range, then the last one such that the width fits."""
        within = [min(max(number, low), high) for number, (low, high) in zip(numbers, self.ranges_for(numbers), strict=True)]
        if self.width_limit is not None:
            width = self.width(tuple(within))
            within[-1] += min(max(width, 2), self.width_limit[0]) - width
        return tuple(within)

    def nearest(self, numbers: tuple[int, ...]) -> str:
        """Return the valid name nearest to one with these numbers."""
        name = self.pattern
        for number in self.limited(numbers):
            name = re.sub(r"\{\w+\}", str(number), name, count=1)
        return name


FAMILIES: list[Family] = []


def register(family: Family) -> None:
    """Make the formats of ``family`` known by name, here and everywhere in the project."""
    if any(known.pattern == family.pattern for known in FAMILIES):
        raise InvalidValueError(f"pattern of a format family must be new, not already registered: {family.pattern}")
    FAMILIES.append(family)


def names() -> list[str]:
    """Every registered name or pattern."""
    return [family.pattern for family in FAMILIES]


@cache
def get(name: str) -> Format | BlockFormat:
    """Return the format called ``name``; ``KeyError`` names the nearest valid names."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"name of a format must be a string, not {type(name).__name__}")
    for family in FAMILIES:
        numbers = family.numbers(name)
        if numbers is not None:
            _check_numbers(name, family, numbers)
            return family.build(*numbers)
    suggestions = [example for family in FAMILIES for example in family.examples]
    raise unknown_name("format", name, suggestions, see="; patterns: " + ", ".join(names()))


def scalar(name: str) -> Format:
    """Return the format called ``name`` where only one without blocks will do; ``ValueError`` for a block format."""
    found = get(name)
    if isinstance(found, BlockFormat):
        raise InvalidValueError(f"format must be one whose codes stand alone here, not the block format {name}")
    return found


def _check_numbers(name: str, family: Family, numbers: tuple[int, ...]) -> None:
    labels = re.findall(r"\{(\w+)\}", family.pattern)
    nearest = family.nearest(numbers)
    for label, number, (low, high) in zip(labels, numbers, family.ranges_for(numbers), strict=True):
        if not low <= number <= high:
            limits = f"{label} of format {family.pattern} must be {low} to {high}"
            raise UnknownNameError(f"{limits}, not {number}; nearest: {nearest}")
    if family.width(numbers) != family.width(family.limited(numbers)):
        assert family.width_limit is not None
        limits = f"width of format {family.pattern} must be 2 to {family.width_limit[0]} bits"
        raise UnknownNameError(f"{limits}, not {family.width(numbers)} ({name}); nearest: {nearest}")


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
        pattern="uint{b}_zero{z}",
        build=affine.unsigned,
        ranges=((1, 16), (0, 2**16 - 1)),
        ranges_by_first=affine.unsigned_ranges,
        examples=("uint8_zero128",),
    )
)
register(
    Family(
        pattern="int{b}_zero{z}",
        build=affine.signed,
        ranges=((2, 16), (-(2**15), 2**15 - 1)),
        ranges_by_first=affine.signed_ranges,
        examples=("int8_zero-1",),
    )
)
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
_register_one_number("apot{b}", additive.signed, 2, 8)
_register_one_number("uapot{b}", additive.unsigned, 1, 8)
_register_one_number("ulog2_{b}", lambda bits: logarithmic.unsigned(bits, 1), 1, 8)
_register_one_number("ulogsqrt2_{b}", lambda bits: logarithmic.unsigned(bits, 2), 1, 9)
for _standard in standard.STANDARDS:
    register(Family(pattern=_standard.name, build=partial(standard.build, _standard), examples=(_standard.name,)))
register(Family(pattern="float8_e8m0fnu", build=standard.exponent_only, examples=("float8_e8m0fnu",)))
for _scaled in block.MICROSCALING:
    register(
        Family(
            pattern=_scaled.name,
            build=partial(block.microscaling, _scaled, scalar(_scaled.element), scalar("float8_e8m0fnu")),
            examples=(_scaled.name,),
        )
    )
register(
    Family(
        pattern="nvfp4",
        build=partial(block.nvfp4, scalar("float4_e2m1fn"), scalar("float8_e4m3fn")),
        examples=("nvfp4",),
    )
)
_register_one_number("lloydmax{b}", codebook.gaussian, 1, 8)
register(Family(pattern="nf4", build=codebook.nf4, examples=("nf4",)))
register(Family(pattern="ternary", build=integer.ternary, examples=("ternary",)))
register(Family(pattern="binary", build=integer.binary, examples=("binary",)))
