import math

import pytest

import formats
from hwmodels.cost import NotPricedError
from hwmodels.finn_formula import lut_per_mac
from hwmodels.fpga.formula_prices import in_order, levels, requantizer_price, unit_price


def test_a_unit_costs_what_finns_formula_says() -> None:
    w, a = formats.get("int4"), formats.get("uint4")
    unit = unit_price(w, a, lanes=8, dot_length=108, dsp=False)
    assert unit.lut == pytest.approx(8 * lut_per_mac(w, a, 108, 8))
    assert (unit.dsp, unit.origin) == (0, "formula")


def test_a_dsp_slice_takes_the_place_of_a_multiplier_of_whole_numbers() -> None:
    w, a = formats.get("int8"), formats.get("uint8")
    lut, dsp = (unit_price(w, a, lanes=4, dot_length=108, dsp=use) for use in (False, True))
    assert dsp.dsp == 4
    assert lut.lut - dsp.lut == pytest.approx(4 * 1.1 * 80)
    assert unit_price(formats.get("e2m1"), a, lanes=4, dot_length=108, dsp=True).dsp == 0


@pytest.mark.parametrize(
    ("name", "number", "ordered"),
    [
        ("int4", 16, True),
        ("uint3", 8, True),
        ("ternary", 3, True),
        ("binary", 2, True),
        ("e2m1", 15, False),
        ("int4_narrow", 15, True),
    ],
)
def test_levels_and_their_order(name: str, number: int, ordered: bool) -> None:
    assert (levels(formats.get(name)), in_order(formats.get(name))) == (number, ordered)


def test_thresholds_compare_with_every_level_but_one() -> None:
    lane = requantizer_price(20, formats.get("uint4"), kind="thresholds", dsp=False)
    assert lane.lut == 15 * (10 + 1)


def test_a_search_compares_once_for_each_bit() -> None:
    lane = requantizer_price(20, formats.get("uint4"), kind="search", dsp=False)
    assert (lane.lut, lane.flip_flops) == (4 * 10, 4 * 21)


def test_codes_out_of_order_need_a_table() -> None:
    lane = requantizer_price(20, formats.get("e2m1"), kind="search", dsp=False)
    assert lane.lut == 4 * 10 + 4 * math.ceil(16 / 64)


def test_a_multiplier_leads_to_whole_numbers_alone_and_may_be_a_dsp_slice() -> None:
    lut, dsp = (requantizer_price(20, formats.get("int8"), kind="multiplier", dsp=use) for use in (False, True))
    assert (lut.dsp, dsp.dsp) == (0, 2)  # 20 bits by 32, of which a slice takes 25 by 18
    assert dsp.lut < lut.lut
    with pytest.raises(NotPricedError, match=r"^output of a multiplying requantizer must be a whole number, not e2m1$"):
        requantizer_price(20, formats.get("e2m1"), kind="multiplier", dsp=False)


@pytest.mark.parametrize("kind", ["thresholds", "search", "multiplier"])
def test_a_wider_accumulator_costs_more(kind: str) -> None:
    costs = [requantizer_price(bits, formats.get("int4"), kind=kind, dsp=False).lut for bits in (10, 20, 30)]  # type: ignore[arg-type]
    assert costs == sorted(set(costs))
