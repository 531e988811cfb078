"""Logic of a few inputs from its truth table, as multiplexers that share and skip what they can.

A synthesiser makes one LUT of any function of six inputs; written as multiplexers (Shannon's expansion with equal branches
shared, so a reduced decision diagram) a function costs it little to read and never becomes a memory.
"""

from collections.abc import Sequence

from amaranth import Const, Module, Mux, Value

from hwmodels.fpga.rtl.truth_table import Entry
from hwmodels.fpga.rtl.wires import wired


def lookup(m: Module, inputs: Value, table: Sequence[Entry], bits: int) -> list[Value]:
    """Return the ``bits`` outputs, lowest first, of a table with one entry for each value of ``inputs``.

    Raises ``ValueError`` where the table has another length.
    """
    if len(table) != 2 ** len(inputs):
        raise ValueError(f"table must have {2 ** len(inputs)} entries, not {len(table)}")
    wires = [inputs[i] for i in range(len(inputs))]
    return [function(m, wires, [None if entry is None else entry >> bit & 1 for entry in table]) for bit in range(bits)]


def function(m: Module, inputs: Sequence[Value], table: Sequence[Entry]) -> Value:
    """Return the one-bit function of ``inputs`` (lowest first) with this truth table of 0, 1 and None."""
    known: dict[tuple[Entry, ...], Value] = {}

    def expand(part: tuple[Entry, ...], depth: int) -> Value:
        cared = {entry for entry in part if entry is not None}
        if len(cared) < 2:
            return Const(cared.pop() if cared else 0, 1)
        if part not in known:
            half = len(part) // 2
            low, high = part[:half], part[half:]
            merged = _merge(low, high)
            if merged is not None:
                known[part] = expand(merged, depth - 1)
            else:
                known[part] = wired(m, _choose(inputs[depth - 1], expand(low, depth - 1), expand(high, depth - 1)))
        return known[part]

    return expand(tuple(table), len(inputs))


def _merge(low: tuple[Entry, ...], high: tuple[Entry, ...]) -> tuple[Entry, ...] | None:
    """Return what serves for both halves, None where they differ."""
    merged = tuple(b if a is None else a for a, b in zip(low, high, strict=True))
    return merged if all(b is None or b == m for b, m in zip(high, merged, strict=True)) else None


def _choose(wire: Value, low: Value, high: Value) -> Value:
    if isinstance(low, Const) and isinstance(high, Const):
        return wire if high.value else ~wire
    return Mux(wire, high, low)
