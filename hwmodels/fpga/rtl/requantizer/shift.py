"""A shift to the right alone, for scales that are powers of two: ``formats.requantize_by_shift`` bit for bit."""

from dataclasses import dataclass
from typing import ClassVar

from amaranth import Module, Value

from formats.arithmetic.requantize import ROUNDINGS
from formats.errors import InvalidValueError
from formats.names import unknown_name
from hwmodels.fpga.rtl.requantizer.rounding import rounded, shifted_right
from hwmodels.fpga.rtl.requantizer.specification import Requantizer, RequantizerHardware, shift_port, zero_point_port
from hwmodels.fpga.rtl.requantizer.whole import clamped, whole_range


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftRequantizer(Requantizer):
    """code = clamp(zero_point + accumulator / 2**(shifts[0] + places)), rounded once."""

    family: ClassVar[str] = "shift"
    rounding: str = "nearest_even"
    #: least and largest shift to the right; negative: to the left
    shifts: tuple[int, int] = (0, 31)
    #: whether there is a port for a zero point
    zero_point: bool = False

    def __post_init__(self) -> None:
        """Check that the requantizer can be built."""
        super().__post_init__()
        if self.rounding not in ROUNDINGS:
            raise unknown_name("rounding", self.rounding, ROUNDINGS)
        if not -62 <= self.shifts[0] <= self.shifts[1] <= 62:
            raise InvalidValueError(f"shifts must be -62 to 62 in ascending order, not {self.shifts}")
        whole_range(self.output)

    @property
    def kind(self) -> str:
        """The family and its rounding."""
        return f"{self.family}-{self.rounding}"

    def hardware(self) -> "ShiftHardware":
        """Return the requantizer as logic."""
        return ShiftHardware(self)


class ShiftHardware(RequantizerHardware):
    """Inputs ``accumulator``, ``places`` (the shift beyond the least) and, where there is one, ``zero_point``."""

    def __init__(self, design: ShiftRequantizer) -> None:
        """Make the ports."""
        super().__init__(design)
        self.design = design
        self.places = shift_port(design.shifts)
        self.zero_point = zero_point_port(design.output, whole_range(design.output)[0]) if design.zero_point else None
        self.inputs += [port for port in (self.places, self.zero_point) if port is not None]

    def result(self, m: Module) -> Value:
        """Shift, round, clamp."""
        shifted = shifted_right(m, self.accumulator, self.places, self.design.shifts[0])
        return clamped(m, rounded(m, shifted, self.design.rounding), self.zero_point, self.design.output)
