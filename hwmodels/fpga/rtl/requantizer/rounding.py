"""Shifting to the right and rounding once."""

from dataclasses import dataclass

from amaranth import Cat, Const, Module, Mux, Value

from formats.names import unknown_name
from hwmodels.fpga.rtl.wires import extended, wired

#: the roundings of ``formats.requantize_by_shift``, and ties towards +infinity
ROUNDINGS = ("nearest_even", "nearest_away", "nearest_up", "toward_zero", "floor")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shifted:
    """A number that lost places on the right: what is left, rounded down, and what the lost places were."""

    floor: Value
    #: the highest place that was lost, worth a half
    half: Value
    #: whether any of the others was set
    rest: Value


def shifted_right(m: Module, number: Value, places: Value, least: int) -> Shifted:
    """Shift a signed number to the right by ``least + places``; ``least`` may be negative, ``places`` is unsigned."""
    value: Value = wired(m, Cat(Const(0, 1 + max(-least, 0)), number).as_signed())
    rest: Value = Const(0, 1)
    if least > 0:
        value = extended(value, least + 1)
        value, rest = value[least:].as_signed(), wired(m, value[:least].any())
    for place in range(len(places)):
        value, rest = _stage(m, value, rest, places[place], 2**place)
    return Shifted(floor=value[1:].as_signed(), half=value[0], rest=rest)


def _stage(m: Module, value: Value, rest: Value, chosen: Value, places: int) -> tuple[Value, Value]:
    wide = extended(value, len(value) + places)
    moved = Mux(chosen, wide[places : len(value) + places].as_signed(), value)
    lost = wired(m, rest | (chosen & wide[: min(places, len(value))].any()))
    return wired(m, moved), lost


def rounded(m: Module, shifted: Shifted, rounding: str) -> Value:
    """Return the floor, or one more."""
    negative = shifted.floor[-1]
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", rounding, ROUNDINGS)
    up = {
        "nearest_even": shifted.half & (shifted.rest | shifted.floor[0]),
        "nearest_away": shifted.half & (shifted.rest | ~negative),
        "nearest_up": shifted.half,
        "toward_zero": (shifted.half | shifted.rest) & negative,
        "floor": Const(0, 1),
    }[rounding]
    return wired(m, shifted.floor + wired(m, up))
