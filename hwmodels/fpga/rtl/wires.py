"""Small helpers for Amaranth values: named wires, and widths cut to what a known range needs."""

from amaranth import Cat, Const, Module, Shape, Signal, Value, signed, unsigned


def shape_of(low: int, high: int) -> Shape:
    """Return the narrowest shape that holds every number from ``low`` to ``high``."""
    if low < 0:
        return signed(max(high.bit_length(), (~low).bit_length()) + 1)
    return unsigned(max(high.bit_length(), 1))


def trimmed(value: Value, low: int, high: int) -> Value:
    """Return ``value`` in the narrowest shape for its range, which the caller knows."""
    shape = shape_of(low, high)
    if value.shape() == shape:
        return value
    cut = extended(value, shape.width)[: shape.width]
    return cut.as_signed() if shape.signed else cut


def extended(value: Value, width: int) -> Value:
    """Return the bits of ``value`` with its sign, or zeros, above them: at least ``width`` bits."""
    missing = max(width - len(value), 0)
    fill = value[-1].replicate(missing) if value.shape().signed else Const(0, missing)
    return Cat(value, fill)


def wired(m: Module, value: Value, *, keep: bool = False) -> Signal:
    """Return a wire that carries ``value``, which is written out once then however often the wire is read.

    With ``keep`` the synthesiser may not merge what lies on its two sides. Without that, Yosys joins a multiplier and the
    adders behind it to one sum of bits and loses the carry chains.
    """
    wire = Signal(value.shape(), attrs={"keep": 1} if keep else None)
    m.d.comb += wire.eq(value)
    return wire
