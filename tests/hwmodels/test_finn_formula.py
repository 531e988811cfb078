"""The published formula by hand-computed figures; the extension by what it must at least get right."""

import math

import pytest

import formats
from formats import BitatlasError, Quantizer
from hwmodels.cost import LayerPlan
from hwmodels.finn_formula import LUT_PER_LAYER, accumulator_bits, finn_formula, lut_per_mac, multiplier, operand, units
from hwmodels.workload import LayerWorkload

LAYER = LayerWorkload(
    name="l",
    kind="convolution",
    macs=82944,
    weights=1296,
    output_channels=12,
    activations_in=768,
    activations_out=768,
    dot_length=108,
)


def plan(weight: str, activation: str) -> LayerPlan:
    return LayerPlan(workload=LAYER, weight=Quantizer.parse(weight), activation=Quantizer.parse(activation))


@pytest.mark.parametrize(("bits", "luts"), [(2, 2), (4, 4), (6, 6), (8, 24), (12, 36), (16, 80)])
def test_a_multiplier_costs_what_finn_says(bits: int, luts: int) -> None:
    assert multiplier(bits) == luts


@pytest.mark.parametrize(
    ("weight", "activation", "length", "bits"),
    [("int8", "int8", 1, 16), ("int8", "uint8", 1, 17), ("int4", "uint4", 108, 15), ("int2", "uint2", 4608, 17)],
)
def test_the_accumulator_is_as_wide_as_the_data_types_need(weight: str, activation: str, length: int, bits: int) -> None:
    assert accumulator_bits(formats.get(weight), formats.get(activation), length) == bits


@pytest.mark.parametrize(
    ("weight", "activation", "lanes", "expected"),
    [
        # 1.1 * (Q * mult + (W + A) * (2 Q - 1) + acc) / Q
        ("int8", "uint8", 8, 1.1 * (8 * 80 + 16 * 15 + 23) / 8),
        ("int4", "uint4", 4, 1.1 * (4 * 24 + 8 * 7 + 15) / 4),
        ("ternary", "uint2", 8, 1.1 * (8 * 4 + 4 * 15 + 11) / 8),
    ],
)
def test_integers_cost_what_finn_says(weight: str, activation: str, lanes: int, expected: float) -> None:
    assert lut_per_mac(formats.get(weight), formats.get(activation), 108, lanes) == pytest.approx(expected)


def test_a_layer_has_the_units_that_its_cycles_ask_for() -> None:
    assert units(LAYER, cycles=1024, lanes=8) == math.ceil(82944 / 8192) == 11
    figures = finn_formula(cycles=1024).figures([plan("int8", "uint8")]).layers[0]
    assert figures["lut"] == pytest.approx(LUT_PER_LAYER + 11 * 8 * figures["lut_per_mac"])
    assert finn_formula(cycles=10**9).figures([plan("int8", "uint8")]).layers[0]["lut"] == pytest.approx(
        300 + 8 * figures["lut_per_mac"]
    )


def test_an_operands_shape_comes_from_its_values() -> None:
    e2m1, pot4, post4, int8 = (operand(name) for name in ("e2m1", "pot4", "post4", "int8"))
    assert (e2m1.multiplier_bits, e2m1.places, e2m1.fixed_point_bits, e2m1.signed, e2m1.integer) == (2, 3, 4, True, False)
    assert (pot4.multiplier_bits, pot4.places, pot4.fixed_point_bits, pot4.root) == (1, 7, 7, False)
    assert (post4.multiplier_bits, post4.places, post4.root) == (1, 4, True)
    assert (int8.multiplier_bits, int8.places, int8.integer) == (8, 1, True)


@pytest.mark.parametrize(
    ("small", "large"), [("e2m1", "e3m2"), ("e2m1", "e2m3"), ("pot3", "pot4"), ("post3", "post4"), ("int4", "int8")]
)
def test_a_larger_format_of_a_family_costs_more(small: str, large: str) -> None:
    costs = [lut_per_mac(formats.get(name), formats.get(name), 108) for name in (small, large)]
    assert costs[0] < costs[1]


@pytest.mark.parametrize(("minifloat", "integer"), [("e3m2", "int6"), ("e4m3", "int8"), ("e3m4", "int8"), ("e2m3", "int6")])
def test_an_exact_minifloat_costs_more_than_an_integer_of_its_width_within_what_was_published(minifloat: str, integer: str) -> None:
    """+20 to +180 % without conversion back to float (Damsgaard et al., IEEE TCAD 44(6), 2025); the extension is coarser."""
    ratio = lut_per_mac(formats.get(minifloat), formats.get(minifloat), 4608) / lut_per_mac(
        formats.get(integer), formats.get(integer), 4608
    )
    assert 1.0 < ratio < 2.8


def test_every_format_has_a_cost() -> None:
    for weight in ("int2", "int16", "e1m2", "e5m2", "ue4m4", "pot8", "post9", "ulog2_8", "ulogsqrt2_4", "ternary", "binary"):
        for activation in ("uint1", "int8", "e3m0", "ulogsqrt2_4"):
            assert 0 < lut_per_mac(formats.get(weight), formats.get(activation), 9) < math.inf


def test_no_cycles_are_refused() -> None:
    with pytest.raises(BitatlasError, match=r"^cycles and lanes must be at least 1, not 0 and 8$"):
        finn_formula(cycles=0)
