"""How the products of a dot product are summed: exactly, in a register of fixed width, or in floating point in a stated order."""

from dataclasses import dataclass
from operator import index
from typing import Literal, Self, get_args

from formats.errors import InvalidTypeError, InvalidValueError
from formats.names import unknown_name

Kind = Literal["exact", "fixed", "floating"]
KINDS: tuple[str, ...] = get_args(Kind)
OVERFLOWS = ("saturate", "wrap")
TYPES = ("float32", "float16", "bfloat16")
ORDERS = ("sequential", "pairwise")
SMALLEST_WIDTH = 2
DEFAULT_WIDTH = 20

_EXAMPLES = ("exact", "fixed:20", "fixed:20:wrap", *TYPES, *(f"{name}:pairwise" for name in TYPES))


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """What hardware holds the running sum in; made by ``exact()``, ``fixed()`` or ``floating()``, or parsed from its text.

    The text form is ``exact``, ``fixed:20`` (saturating), ``fixed:20:wrap``, ``float32`` (in order) or ``float16:pairwise``;
    ``Accumulator.parse(str(a)) == a``.
    """

    kind: Kind
    #: width of a fixed register: two's complement, in units of the product of the operands' LSBs
    bits: int | None = None
    #: what a fixed register does with a sum it cannot hold, after each addition
    overflow: str | None = None
    #: type that products and sums are rounded to, each once, to nearest even
    type: str | None = None
    #: the order of floating-point additions
    order: str | None = None

    def __post_init__(self) -> None:
        """Check that the fields are those of the kind, and valid."""
        if self.kind not in KINDS:
            raise unknown_name("kind of an accumulator", str(self.kind), KINDS)
        wanted = {"exact": (), "fixed": ("bits", "overflow"), "floating": ("type", "order")}[self.kind]
        given = tuple(name for name in ("bits", "overflow", "type", "order") if getattr(self, name) is not None)
        if given != wanted:
            raise InvalidValueError(
                f"fields of the accumulator kind {self.kind} must be {' and '.join(wanted) or 'none'}, "
                f"not {' and '.join(given) or 'none'}"
            )
        if self.kind == "fixed":
            object.__setattr__(self, "bits", _width(self.bits))
            _one_of("overflow of an accumulator", self.overflow, OVERFLOWS)
        if self.kind == "floating":
            _one_of("type of an accumulator", self.type, TYPES)
            _one_of("order of an accumulator", self.order, ORDERS)

    @classmethod
    def exact(cls) -> Self:
        """Sum without any loss, however wide the sum grows."""
        return cls(kind="exact")

    @classmethod
    def fixed(cls, bits: int = DEFAULT_WIDTH, overflow: str = "saturate") -> Self:
        """Sum in a two's complement register of ``bits`` bits, k from 0 to K-1.

        ``saturate`` clips after each addition (the product itself is not clipped first), ``wrap`` reduces modulo 2**bits.
        """
        return cls(kind="fixed", bits=bits, overflow=overflow)

    @classmethod
    def floating(cls, type: str = "float32", order: str = "sequential") -> Self:  # noqa: A002 - the word of the field
        """Round each product and each sum once to ``float32``, ``float16`` or ``bfloat16``, to nearest even as IEEE 754 says.

        ``sequential`` adds k = 0 … K-1 to +0; ``pairwise`` is a tree of adders: neighbours are added level by level, and a last
        one without a partner passes to the next level unchanged. Either gives +0 where K is 0.
        """
        return cls(kind="floating", type=type, order=order)

    def __str__(self) -> str:
        """Return the shortest text that parses to this accumulator."""
        if self.kind == "exact":
            return "exact"
        if self.kind == "fixed":
            return f"fixed:{self.bits}" + ("" if self.overflow == "saturate" else f":{self.overflow}")
        return f"{self.type}" + ("" if self.order == "sequential" else f":{self.order}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the accumulator that ``text`` stands for; ``KeyError`` names the nearest valid ones."""
        if not isinstance(text, str):
            raise InvalidTypeError(f"text of an accumulator must be a string, not {type(text).__name__}")
        name, *rest = text.split(":")
        if text == "exact":
            return cls.exact()
        if name == "fixed" and 1 <= len(rest) <= 2:
            if not (rest[0].isascii() and rest[0].isdecimal()):
                raise InvalidValueError(f"width of a fixed accumulator must be a whole number of bits, not {rest[0]!r}")
            return cls.fixed(int(rest[0]), *rest[1:])
        if name in TYPES and len(rest) <= 1:
            return cls.floating(name, *rest)
        raise unknown_name("accumulator", text, _EXAMPLES)


def _width(bits: object) -> int:
    try:
        width = index(bits)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidTypeError(f"width of a fixed accumulator must be a whole number, not {type(bits).__name__}") from None
    if width < SMALLEST_WIDTH or isinstance(bits, bool):
        raise InvalidValueError(f"width of a fixed accumulator must be at least {SMALLEST_WIDTH} bits, not {bits}")
    return width


def _one_of(what: str, value: str | None, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise unknown_name(what, str(value), valid)
