"""Logic from truth tables, by Amaranth's simulator."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from amaranth import Cat, Module, Signal
from amaranth.sim import Simulator

from hwmodels.fpga.rtl.boolean import lookup
from hwmodels.fpga.rtl.truth_table import Entry


def outputs(table: Sequence[Entry], bits: int) -> list[int]:
    m, count = Module(), (len(table) - 1).bit_length()
    inputs, out = Signal(count), Signal(bits)
    m.d.comb += out.eq(Cat(*lookup(m, inputs, table, bits)))
    found = []

    async def bench(ctx: Any) -> None:
        for code in range(len(table)):
            ctx.set(inputs, code)
            found.append(ctx.get(out))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_a_table_is_looked_up_and_entries_that_nobody_minds_are_anything(count: int) -> None:
    draw = random.Random(count)
    table: list[Entry] = [draw.choice([None, *range(8)]) for _ in range(2**count)]
    found = outputs(table, 3)
    assert all(entry is None or entry == got for entry, got in zip(table, found, strict=True))


def test_a_table_of_another_length_is_refused() -> None:
    nothing: Any = None  # Amaranth warns of a module that no design is made of
    with pytest.raises(ValueError, match="table must have 4 entries, not 3"):
        lookup(nothing, Signal(2), [0, 1, 0], 1)
