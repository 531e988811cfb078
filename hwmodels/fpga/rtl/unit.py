"""The unit: lanes of multipliers, their sum, and a registered accumulator."""

from dataclasses import dataclass
from functools import cached_property

from amaranth import Elaboratable, Module, Mux, Signal, signed

from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.width import bound_bits
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl import sums
from hwmodels.fpga.rtl.operand import Reading, read
from hwmodels.fpga.rtl.recipes import Recipe, lane
from hwmodels.fpga.rtl.sums import Partial
from hwmodels.fpga.rtl.wires import wired

#: beyond this width an exact accumulator is no sensible hardware
WIDEST_ACCUMULATOR = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class MacUnit:
    """What a generated multiply-accumulate unit computes: in each enabled cycle ``lanes`` products are added to the sum."""

    weight: Format
    activation: Format
    accumulator: Accumulator
    #: products in one sum, which an exact accumulator is sized for
    dot_length: int
    lanes: int
    recipe: Recipe

    def __post_init__(self) -> None:
        """Check that the unit can be built."""
        if self.lanes < 1 or self.dot_length < 1:
            raise InvalidValueError(f"lanes and dot length must be at least 1, not {self.lanes} and {self.dot_length}")
        if self.accumulator.kind == "floating":
            raise InvalidValueError(f"accumulator of a generated unit must be exact or fixed, not {self.accumulator}")
        if self.accumulator_bits > WIDEST_ACCUMULATOR:
            raise InvalidValueError(
                f"accumulator of {self.weight.name} x {self.activation.name} must have at most {WIDEST_ACCUMULATOR} bits, "
                f"not {self.accumulator_bits}{': take a fixed one' if self.accumulator.kind == 'exact' else ''}"
            )

    @property
    def name(self) -> str:
        """Name of the Verilog module."""
        register = str(self.accumulator).replace(":", "_")
        parts = (self.weight.name, self.activation.name, register, f"k{self.dot_length}", f"l{self.lanes}", self.recipe.name)
        return "mac_" + "_".join(parts).replace("-", "_")

    def hardware(self) -> "MacHardware":
        """Return the unit as logic."""
        return MacHardware(self)

    @cached_property
    def readings(self) -> tuple[Reading, Reading]:
        """How weight and activation codes are read."""
        return read(self.weight), read(self.activation)

    @property
    def has_root(self) -> bool:
        """Whether there are two sums, of even and odd powers of the square root of two."""
        return any(reading.has_root for reading in self.readings)

    @cached_property
    def accumulator_bits(self) -> int:
        """Width of each accumulator, in bits."""
        read(self.weight), read(self.activation)
        if self.accumulator.bits is not None:
            return self.accumulator.bits
        return bound_bits(self.activation, self.weight, self.dot_length)


class MacHardware(Elaboratable):
    """The unit as an Amaranth design.

    Codes of lane l lie at bits ``l * width`` of ``weights`` and ``activations``. With ``enable``, the next sum is the old one, or
    0 where ``first`` is set, plus the products. ``sum_odd`` counts powers of the root of two that are odd.
    """

    def __init__(self, unit: MacUnit) -> None:
        """Make the ports."""
        self.unit = unit
        bits = unit.accumulator_bits
        self.enable = Signal()
        self.first = Signal()
        self.weights = Signal(unit.lanes * unit.weight.bits)
        self.activations = Signal(unit.lanes * unit.activation.bits)
        self.sum = Signal(signed(bits), reset_less=True)
        self.sum_odd = Signal(signed(bits), name="sum_odd", reset_less=True) if unit.has_root else None

    @property
    def inputs(self) -> list[Signal]:
        """Ports that are driven."""
        return [self.enable, self.first, self.weights, self.activations]

    @property
    def outputs(self) -> list[Signal]:
        """The sum, or the even and the odd one."""
        return [self.sum] if self.sum_odd is None else [self.sum, self.sum_odd]

    def elaborate(self, platform: object) -> Module:
        """Build the logic."""
        del platform
        m = Module()
        unit = self.unit
        w, a = unit.readings
        products = [
            lane(m, unit.recipe, self.weights.word_select(i, w.bits), self.activations.word_select(i, a.bits), w, a)
            for i in range(unit.lanes)
        ]
        summing = sums.saturating if unit.accumulator.overflow == "saturate" else unit.recipe.summing
        bits = unit.accumulator_bits
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        for register, odd in ((self.sum, False), (self.sum_odd, True)):
            if register is None:
                continue
            old = Partial(value=wired(m, Mux(self.first, 0, register)), low=low, high=high)
            total = summing(m, sums.terms(m, products, odd=odd), old, bits)
            with m.If(self.enable):
                m.d.sync += register.eq(total)
        return m
