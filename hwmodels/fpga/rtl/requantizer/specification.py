"""What requantizers have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from amaranth import Elaboratable, Module, Signal, Value, signed

from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl.wires import shape_of

#: widths of accumulators that hardware and its proof are made for
WIDTHS = (2, 62)


@dataclass(frozen=True, kw_only=True, eq=False)
class Requantizer(ABC):
    """Turns accumulators of ``accumulator_bits`` bits, two's complement, into codes of ``output``."""

    #: first part of the name
    family: ClassVar[str]
    accumulator_bits: int
    output: Format

    def __post_init__(self) -> None:
        """Check that the requantizer can be built."""
        if not WIDTHS[0] <= self.accumulator_bits <= WIDTHS[1]:
            raise InvalidValueError(
                f"accumulator of a requantizer must have {WIDTHS[0]} to {WIDTHS[1]} bits, not {self.accumulator_bits}"
            )

    @property
    def kind(self) -> str:
        """How it works, in one word, as tables name it."""
        return self.family

    @property
    def latency(self) -> int:
        """Clock edges from an accumulator to its code."""
        return 1

    @property
    def name(self) -> str:
        """Name of the Verilog module."""
        return f"requantizer_{self.kind}_{self.accumulator_bits}_{self.output.name}".replace("-", "_")

    @abstractmethod
    def hardware(self) -> "RequantizerHardware":
        """Return the requantizer as logic."""


class RequantizerHardware(Elaboratable, ABC):
    """A requantizer as an Amaranth design: input ``accumulator``, more inputs by kind, and the registered output ``code``."""

    def __init__(self, design: Requantizer) -> None:
        """Make the ports that all have."""
        self.accumulator = Signal(signed(design.accumulator_bits))
        self.code = Signal(design.output.bits, reset_less=True)
        self.inputs: list[Signal] = [self.accumulator]
        self.outputs: list[Signal] = [self.code]

    @abstractmethod
    def result(self, m: Module) -> Value:
        """Return the code as logic of the inputs."""

    def elaborate(self, platform: object) -> Module:
        """Build the logic."""
        del platform
        m = Module()
        m.d.sync += self.code.eq(self.result(m))
        return m


def shift_port(shifts: tuple[int, int]) -> Signal:
    """Return the port ``places`` that tells one of the shifts from the first to the last: 0 is the one furthest to the left."""
    return Signal(shape_of(0, shifts[1] - shifts[0]), name="places")


def zero_point_port(output: Format, low: int) -> Signal:
    """Return the port ``zero_point``: a code of the output format."""
    return Signal(signed(output.bits) if low < 0 else output.bits, name="zero_point")
