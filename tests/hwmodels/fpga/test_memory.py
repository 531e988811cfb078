"""Memories by published geometry, beside FINN's own estimate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.fpga.devices import Usage
from hwmodels.fpga.memory import BRAM18_CONFIGURATIONS, bram18, fifo_luts, memory, ram_luts, rom_luts, uram

WIDTHS, DEPTHS = st.integers(1, 600), st.integers(1, 70000)


def finn_bram18(width: int, depth: int) -> int:
    """FINN-R's estimate of weight memory: the configuration by the width alone."""
    if width == 1:
        return math.ceil(depth / 16384)
    if width == 2:
        return math.ceil(depth / 8192)
    if width <= 4:
        return math.ceil(depth / 4096) * math.ceil(width / 4)
    if width <= 9:
        return math.ceil(depth / 2048) * math.ceil(width / 9)
    if width <= 18 or depth > 512:
        return math.ceil(depth / 1024) * math.ceil(width / 18)
    return math.ceil(depth / 512) * math.ceil(width / 36)


@given(width=WIDTHS, depth=DEPTHS)
def test_block_rams_hold_the_memory_and_are_never_more_than_finn_says(width: int, depth: int) -> None:
    found = bram18(width, depth)
    assert found * 18 * 1024 >= width * depth
    assert found <= finn_bram18(width, depth)


@pytest.mark.parametrize(("width", "depth"), BRAM18_CONFIGURATIONS)
def test_a_block_ram_is_full_at_its_own_configuration(width: int, depth: int) -> None:
    assert bram18(width, depth) == finn_bram18(width, depth) == 1
    assert bram18(width + 1, depth) == 2
    assert bram18(width, depth + 1) == 2


@pytest.mark.parametrize(
    # MVAU of finn-plus 1.6.1 with ram_style block and ultra: rows, columns, PE, SIMD, weight bits, BRAM18, URAM
    ("rows", "columns", "pe", "simd", "bits", "block", "ultra"),
    [
        (16, 144, 1, 1, 4, 1, 1),
        (16, 144, 4, 9, 4, 4, 2),
        (16, 144, 16, 36, 4, 64, 32),
        (64, 576, 2, 1, 1, 3, 5),
        (64, 1024, 2, 2, 1, 4, 4),
        (128, 1152, 1, 3, 3, 24, 12),
    ],
)
def test_weight_memories_are_those_of_finn(rows: int, columns: int, pe: int, simd: int, bits: int, block: int, ultra: int) -> None:
    width, depth = pe * simd * bits, rows * columns // (pe * simd)
    assert (bram18(width, depth), uram(width, depth)) == (block, ultra)


def test_a_wide_memory_may_be_cheaper_than_finn_says() -> None:
    assert finn_bram18(512, 4096) == 116
    assert bram18(512, 4096) == 114  # 57 pairs of 9 x 2048
    assert (finn_bram18(128, 16384), bram18(128, 16384)) == (128, 120)


@given(width=WIDTHS, depth=st.integers(1, 256))
def test_a_table_that_a_slice_can_join_is_finns_lut_memory(width: int, depth: int) -> None:
    assert rom_luts(width, depth) == width * math.ceil(depth / 64)


def test_deeper_tables_need_multiplexers() -> None:
    assert rom_luts(1, 257) == 5 + 1
    assert rom_luts(8, 1024) == 8 * (16 + 1)
    assert rom_luts(1, 2048) == 32 + 3  # eight slices' outputs, four at a time


@given(width=WIDTHS, depth=DEPTHS)
def test_memory_that_is_written_takes_more_than_a_table(width: int, depth: int) -> None:
    assert ram_luts(width, depth) * 64 >= width * depth
    assert ram_luts(width, depth) >= rom_luts(width, depth) * 2 // 3  # 32 words of 6 bits fit in 4 LUTs
    assert ram_luts(6, 32) == 4
    assert ram_luts(3, 64) == 4


@given(width=WIDTHS, depth=DEPTHS)
def test_more_never_costs_less(width: int, depth: int) -> None:
    for count in (bram18, uram, rom_luts, ram_luts):
        assert count(width + 1, depth) >= count(width, depth)
        assert count(width, depth + 1) >= count(width, depth)


def test_each_style_takes_its_own_primitive() -> None:
    assert memory("bram", 36, 600) == Usage(bram=2)
    assert memory("uram", 73, 4096) == Usage(uram=2)
    assert memory("lutram", 6, 32, written=True) == Usage(lut=4)
    assert memory("lutram", 8, 65) == Usage(lut=16)


def test_one_word_that_never_changes_is_wires() -> None:
    assert memory("bram", 36, 1) == memory("lutram", 36, 1) == Usage()
    assert memory("lutram", 36, 1, written=True).lut > 0
    assert memory("bram", 36, 0, written=True) == Usage()


def test_a_fifo_is_shift_registers() -> None:
    assert fifo_luts(8, 2) == 2 + 4
    assert fifo_luts(9, 64) == 12 + 2 * 5
