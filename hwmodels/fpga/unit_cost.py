"""What a multiply-accumulate unit and a requantizer cost on an FPGA: the figures that models of whole layers build on."""

from dataclasses import dataclass
from typing import Literal, Protocol

from formats.format import Format

#: ``synthesised`` at these very lanes or between two synthesised sizes; ``extrapolated`` on the line through them, but beyond;
#: ``predicted`` by a model fitted to the table;
#: ``formula`` by a published or stated formula that nothing was fitted to
Origin = Literal["synthesised", "extrapolated", "predicted", "formula"]
#: how an accumulator becomes a code: all thresholds compared at once, thresholds searched one bit of the code a stage, or a
#: multiplier and a shift for each channel
RequantizerKind = Literal["thresholds", "search", "multiplier"]
KINDS: tuple[RequantizerKind, ...] = ("thresholds", "search", "multiplier")


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """A unit of ``lanes`` multipliers, one adder tree and one registered accumulator."""

    lut: float
    carry4: float
    flip_flops: float
    dsp: float
    #: static arrival time over cells, without routing
    arrival_ps: float
    origin: Origin
    #: architecture of the multiplier that the figures are of
    recipe: str


class UnitPrice(Protocol):
    """Looks up or predicts the cost of a unit."""

    def __call__(self, weight: Format, activation: Format, *, lanes: int, dot_length: int, dsp: bool) -> UnitCost:
        """Return the cost of a unit whose accumulator is exact for ``dot_length`` products.

        With ``dsp`` the cheapest unit that uses DSP slices where the synthesiser finds a use for them; without, LUTs alone.
        Raises ``NotPricedError`` for a pair that has no price.
        """
        ...


class RequantizerPrice(Protocol):
    """Looks up or predicts the cost of one lane of a requantizer: its logic, without the memory of its parameters."""

    def __call__(self, accumulator_bits: int, output: Format, *, kind: RequantizerKind, dsp: bool) -> UnitCost:
        """Return the cost of turning one accumulator of ``accumulator_bits`` a cycle into a code of ``output``.

        With ``dsp`` the multiplier of the kind ``multiplier`` is made of DSP slices; the other kinds have none. Raises
        ``NotPricedError`` for a kind that does not lead to the format.
        """
        ...
