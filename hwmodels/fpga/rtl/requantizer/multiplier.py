"""A multiplier and a shift for each channel: ``formats.requantize`` bit for bit, with single or double rounding."""

from dataclasses import dataclass
from typing import ClassVar

from amaranth import Cat, Module, Mux, Signal, Value

from formats.arithmetic.requantize import FRACTION, SHIFTS, VARIANTS
from formats.errors import InvalidValueError
from formats.names import unknown_name
from hwmodels.fpga.rtl import products
from hwmodels.fpga.rtl.requantizer.rounding import Shifted, rounded, shifted_right
from hwmodels.fpga.rtl.requantizer.specification import Requantizer, RequantizerHardware, shift_port, zero_point_port
from hwmodels.fpga.rtl.requantizer.whole import clamped, whole_range
from hwmodels.fpga.rtl.wires import trimmed, wired

#: the synthesiser's own multiplier, which may become DSP slices, and rows on carry chains
MULTIPLIERS = {"star": products.star, "rows": products.rows, "booth": products.booth}
#: width of the accumulators that the definition is for
WIDEST = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiplierRequantizer(Requantizer):
    """code = clamp(zero_point + accumulator * multiplier * 2**(shift - 31)) with shift = shifts[1] - places.

    Without positive shifts, the default, real multipliers lie below one, as they do in trained networks.
    """

    family: ClassVar[str] = "multiplier"
    variant: str = "double"
    #: how the product is made: one of ``MULTIPLIERS``
    recipe: str = "booth"
    shifts: tuple[int, int] = (SHIFTS[0], 0)
    #: whether there is a port for a zero point
    zero_point: bool = False

    def __post_init__(self) -> None:
        """Check that the requantizer can be built."""
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise unknown_name("variant", self.variant, VARIANTS)
        if self.recipe not in MULTIPLIERS:
            raise unknown_name("recipe of a multiplying requantizer", self.recipe, MULTIPLIERS)
        if not SHIFTS[0] <= self.shifts[0] <= self.shifts[1] <= SHIFTS[1]:
            raise InvalidValueError(f"shifts must be {SHIFTS[0]} to {SHIFTS[1]} in ascending order, not {self.shifts}")
        if self.accumulator_bits > WIDEST:
            raise InvalidValueError(f"accumulator to be multiplied must have at most {WIDEST} bits, not {self.accumulator_bits}")
        whole_range(self.output)

    @property
    def kind(self) -> str:
        """The family and its rounding."""
        return f"{self.family}-{self.variant}"

    @property
    def name(self) -> str:
        """Name of the Verilog module."""
        return f"{super().name}_{self.recipe}"

    def hardware(self) -> "MultiplierHardware":
        """Return the requantizer as logic."""
        return MultiplierHardware(self)


class MultiplierHardware(RequantizerHardware):
    """Inputs ``accumulator``, ``multiplier``, ``places`` (how far the shift is below the largest) and ``zero_point``, if any."""

    def __init__(self, design: MultiplierRequantizer) -> None:
        """Make the ports."""
        super().__init__(design)
        self.design = design
        self.multiplier = Signal(FRACTION)
        self.places = shift_port(design.shifts)
        self.zero_point = zero_point_port(design.output, whole_range(design.output)[0]) if design.zero_point else None
        self.inputs += [port for port in (self.multiplier, self.places, self.zero_point) if port is not None]

    def result(self, m: Module) -> Value:
        """Multiply, shift, round, clamp."""
        scaled = self._double(m) if self.design.variant == "double" else self._single(m)
        return clamped(m, scaled, self.zero_point, self.design.output)

    def _single(self, m: Module) -> Value:
        product = self._product(m, self.accumulator)
        return rounded(m, shifted_right(m, product, self.places, FRACTION - self.design.shifts[1]), "nearest_up")

    def _double(self, m: Module) -> Value:
        """Multiply and round to the high word, ties up; then shift to the right and round, ties away from zero."""
        raised, right = self._raised(m)
        product = self._product(m, raised)
        high = Shifted(floor=product[FRACTION:].as_signed(), half=product[FRACTION - 1], rest=product[: FRACTION - 1].any())
        return rounded(m, shifted_right(m, rounded(m, high, "nearest_up"), right, max(-self.design.shifts[1], 0)), "nearest_away")

    def _product(self, m: Module, number: Value) -> Value:
        largest = 2 ** (len(number) - 1) * (2**FRACTION - 1)
        value, carries = MULTIPLIERS[self.design.recipe](m, number, self.multiplier, -largest, largest)
        total = wired(m, value)
        for carry in carries:
            total = wired(m, total + carry)
        return wired(m, trimmed(total, -largest, largest), keep=True)

    def _raised(self, m: Module) -> tuple[Value, Value]:
        """Shift to the left, saturating at 32 bits, where the shift is positive; return how far it goes to the right, too."""
        largest = self.design.shifts[1]
        if largest <= 0:
            return self.accumulator, self.places
        shift = wired(m, largest - self.places)
        left = wired(m, Mux(shift < 0, 0, shift[: largest.bit_length()]))
        wide = wired(m, self.accumulator << left)
        above = wide[WIDEST - 1 :]
        overflow = wired(m, above.any() & ~above.all())
        limit = Cat((~wide[-1]).replicate(WIDEST - 1), wide[-1])
        right = wired(m, Mux(shift < 0, -shift, 0).as_unsigned())
        places = right[: max(-self.design.shifts[0], 0).bit_length()]
        if len(wide) <= WIDEST:
            return wide, places
        return wired(m, Mux(overflow, limit, wide[:WIDEST]).as_signed()), places
