"""From a code to the numbers that a multiplier takes, in one of three modes."""

from dataclasses import dataclass
from enum import StrEnum

from amaranth import Cat, Module, Mux, Value

from hwmodels.fpga.rtl.boolean import function, lookup
from hwmodels.fpga.rtl.operand import Reading
from hwmodels.fpga.rtl.wires import trimmed, wired

#: codes up to this width become fixed-point numbers by one LUT for each bit
LOOKUP_BITS = 6


class Mode(StrEnum):
    """How a value is presented."""

    #: two's complement in units of the LSB
    FIXED = "fixed"
    #: sign, and magnitude in units of the LSB
    MAGNITUDE = "magnitude"
    #: sign, significand, and how far to shift it
    FLOATING = "floating"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operand:
    """A decoded value: (-1)**sign * significand * 2**(shift - shift_offset) * sqrt(2)**root LSBs."""

    significand: Value
    #: smallest and largest significand
    low: int
    high: int
    #: largest magnitude in LSBs, without the factor of the root
    largest: int
    sign: Value | None = None
    shift: Value | None = None
    shift_offset: int = 0
    root: Value | None = None


def decode(m: Module, code: Value, reading: Reading, mode: Mode) -> Operand:
    """Return the value of ``code`` as logic."""
    wires = [code[i] for i in range(reading.bits)]
    root = function(m, wires, reading.root) if any(reading.root) else None
    low, high = reading.range
    largest = max(-low, high)
    if mode is Mode.FIXED:
        return Operand(significand=_fixed(m, code, reading), low=low, high=high, largest=largest, root=root)
    sign = function(m, wires, reading.sign) if reading.signed else None
    if mode is Mode.MAGNITUDE:
        return Operand(significand=_magnitude(m, code, reading), low=0, high=largest, largest=largest, sign=sign, root=root)
    significand = _table(m, code, reading.significand, reading.significand_bits)
    shift = _table(m, code, reading.shift, reading.shift_bits) if reading.shift_bits else None
    return Operand(
        significand=significand,
        low=0,
        high=max(entry or 0 for entry in reading.significand),
        largest=largest,
        sign=sign,
        shift=shift,
        shift_offset=reading.shift_offset if shift is not None else 0,
        root=root,
    )


def _table(m: Module, code: Value, table: tuple[int | None, ...], bits: int) -> Value:
    return wired(m, Cat(*lookup(m, code, table, bits)))


def _fixed(m: Module, code: Value, reading: Reading) -> Value:
    """Return the value in two's complement, or unsigned where none is negative."""
    if reading.plain:
        low, high = reading.range
        return code.as_signed() if low < 0 and reading.bits > 1 else trimmed(code, low, high)
    low, high = reading.range
    width = max(high.bit_length(), (~low).bit_length()) + (low < 0)
    if reading.bits <= LOOKUP_BITS:
        every = [None if entry is None else entry % 2**width for entry in reading.integer]
        raw = _table(m, code, tuple(every), width)
        return raw.as_signed() if low < 0 else raw
    magnitude = wired(m, _magnitude(m, code, reading))
    if not reading.signed:
        return magnitude
    sign = function(m, [code[i] for i in range(reading.bits)], reading.sign)
    return trimmed(Mux(sign, -magnitude, magnitude), low, high)


def _magnitude(m: Module, code: Value, reading: Reading) -> Value:
    """Return the magnitude in LSBs: looked up where codes are narrow, else the significand shifted."""
    if reading.bits <= LOOKUP_BITS + reading.signed:
        table = tuple(None if entry is None else abs(entry) for entry in reading.integer)
        return _table(m, code, table, reading.magnitude_bits)
    significand = _table(m, code, reading.significand, reading.significand_bits)
    if not reading.shift_bits:
        return significand
    shift = _table(m, code, reading.shift, reading.shift_bits)
    offset = reading.shift_offset
    return (significand << shift)[offset : offset + reading.magnitude_bits]
