"""Energies against the paper's own table, and what must hold between formats."""

import pytest

import formats
from hwmodels.fpga.energy import ADD, MULTIPLY, READ, layer_pj, mac_pj
from hwmodels.fpga.folding import Folding
from tests.hwmodels.fpga.shapes import convolution, plan


def test_the_published_energies_are_met() -> None:
    """Horowitz, ISSCC 2014: 8 bits exactly, 32 bits within what scaling by a rule may miss, 64 bits from 8 KB."""
    assert pytest.approx(0.03) == ADD * 8
    assert pytest.approx(0.2) == MULTIPLY * 64
    assert pytest.approx(10) == READ * 64
    assert pytest.approx(0.1, rel=0.25) == ADD * 32
    assert pytest.approx(3.1, rel=0.05) == MULTIPLY * 32 * 32


def test_a_mac_of_whole_numbers_is_a_multiplication_and_an_addition() -> None:
    assert mac_pj(formats.get("int8"), formats.get("int8"), 24) == pytest.approx(0.2 + 0.09)


def test_a_power_of_two_is_not_multiplied() -> None:
    shifted = mac_pj(formats.get("pot4"), formats.get("int8"), 24)
    assert shifted == pytest.approx(ADD * 24 + 0.5 * ADD * (7 + 8) * 3)
    assert shifted < mac_pj(formats.get("int8"), formats.get("int8"), 24)


@pytest.mark.parametrize(("small", "large"), [("int4", "int8"), ("e2m1", "e4m3"), ("ternary", "int4"), ("pot4", "post4")])
def test_a_larger_format_takes_more(small: str, large: str) -> None:
    a = formats.get("uint8")
    assert mac_pj(formats.get(small), a, 24) < mac_pj(formats.get(large), a, 24)


def test_a_layer_reads_weights_for_every_mac_and_inputs_for_every_fold() -> None:
    layer = plan(convolution(4, 6, (3, 3), (6, 6)), "int4", "uint8", "uint2")
    work = layer.workload
    for pe in (1, 2, 6):
        reads = work.macs * 4 + work.vectors * work.dot_length * (6 // pe) * 8 + work.activations_out * 2
        expected = work.macs * mac_pj(formats.get("int4"), formats.get("uint8"), 20) + READ * reads
        assert layer_pj(layer, Folding(pe=pe), 20) == pytest.approx(expected)
