"""Whole numbers as codes: adding a zero point and clamping."""

from amaranth import Cat, Const, Module, Mux, Value

from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl.operand import read
from hwmodels.fpga.rtl.wires import extended, wired


def whole_range(output: Format) -> tuple[int, int]:
    """Return the least and the largest number of a format of whole numbers whose codes are two's complement or unsigned.

    Raises ``ValueError`` for other formats.
    """
    reading = read(output)
    if not reading.plain or reading.lsb_exponent != 0:
        raise InvalidValueError(f"output format must be an integer in two's complement or unsigned, not {output.name}")
    return reading.range


def clamped(m: Module, number: Value, zero_point: Value | None, output: Format) -> Value:
    """Return the code of ``number + zero_point``, clamped to the output format; ``number`` is signed."""
    low, high = whole_range(output)
    total = wired(m, number if zero_point is None else number + zero_point)
    wide = wired(m, extended(total, output.bits + 1).as_signed())
    negative = wide[-1]
    if low == 0:
        over = wired(m, ~negative & wide[output.bits : -1].any())
        return Mux(negative, 0, wide[: output.bits] | over.replicate(output.bits))
    above = wide[output.bits - 1 :]
    overflow = wired(m, above.any() & ~above.all())
    limit = Cat((~negative).replicate(output.bits - 1), negative)
    code = wired(m, Mux(overflow, limit, wide[: output.bits]))
    if low == -(2 ** (output.bits - 1)):
        return code
    if low != -high or high != 2 ** (output.bits - 1) - 1:
        raise InvalidValueError(f"least number of {output.name} must be {-high} or {-high - 1}, not {low}")
    return code | Cat(code == Const(2 ** (output.bits - 1), output.bits))
