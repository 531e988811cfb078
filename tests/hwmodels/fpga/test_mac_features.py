"""Bills count what the generator of units builds, for every pair and recipe."""

from itertools import product

import numpy as np
import pytest

from formats.registry import scalar
from hwmodels.fpga.candidates import fabric_names
from hwmodels.fpga.mac_features import PARTS, STRUCTURES, Lane, Parts, Range, adder_bits, bill, lane_of
from hwmodels.fpga.rtl.decode import Mode
from hwmodels.fpga.rtl.operand import read
from hwmodels.fpga.rtl.recipes import RECIPES
from hwmodels.fpga.rtl.wires import shape_of
from hwmodels.fpga.synthesis.calibration import shipped_pairs

MORE = ("nf4", "lloydmax3", "apot4", "ue2m2", "ue4m3", "int12", "uint1", "pot6", "post6", "ulog2_4", "ulogsqrt2_4", "int4_narrow")
EVERY = sorted({name for pair in shipped_pairs() for name in (pair.weight, pair.activation)} | set(MORE))


def test_structures_are_those_of_the_recipes() -> None:
    assert set(STRUCTURES) == set(RECIPES)
    for name, recipe in RECIPES.items():
        structure = STRUCTURES[name]
        modes = ("table",) if recipe.modes is None else {mode.value for mode in recipe.modes}
        assert {structure.mode} == set(modes)
        assert structure.multiply == recipe.multiply.__name__
        assert structure.negation == recipe.negation.value
        assert structure.summing in ("chain", recipe.summing.__name__)
    assert {mode.value for mode in Mode} == {"fixed", "magnitude", "floating"}


@pytest.mark.parametrize("low", range(-9, 1))
def test_a_width_is_that_of_the_generator(low: int) -> None:
    for high in range(max(low, 0), 20):
        assert Range(low, high).width == shape_of(low, high).width


@pytest.mark.parametrize("summing", ["tree", "chain"])
@pytest.mark.parametrize("product_range", [(-8, 7), (0, 225), (-3, 0), (-129, 128)])
@pytest.mark.parametrize("ones", [0, 1])
def test_adders_are_counted_as_they_are_built(summing: str, product_range: tuple[int, int], ones: int) -> None:
    lane = Lane(Parts(), Range(*product_range), ones)
    for lanes in range(1, 40):
        level, width = [lane.product] * lanes, 0
        while len(level) > 1:
            taken = 2 if summing == "chain" else len(level) // 2 * 2
            sums = [level[i].plus(level[i + 1], ones) for i in range(0, taken, 2)]
            width += sum(one.width for one in sums)
            level = sums + level[taken:]
        assert adder_bits(lane, lanes, summing) == width


@pytest.mark.parametrize(
    ("weight", "activation", "recipe", "parts"),
    [
        ("int4", "int4", "fixed-star", {"array": 16, "deep": 8}),
        ("int4", "uint8", "fixed-rows", {"rows": 3 * 9}),
        ("int4", "uint8", "fixed-booth", {"rows": 2 * 11}),
        ("uint4", "uint8", "fixed-booth", {"rows": 3 * 11}),
        ("binary", "uint8", "magnitude-star", {}),  # all magnitudes are 1
        # a significand of one bit lets eight bits through; two stages of a shifter make 9 and 11 of them
        ("pot3", "uint8", "shift-tree", {"gate": 8, "shift": (9 + 11) / 2}),
    ],
)
def test_parts_of_a_lane(weight: str, activation: str, recipe: str, parts: dict[str, float]) -> None:
    found = lane_of(scalar(weight), scalar(activation), recipe).parts._asdict()
    assert {name: value for name, value in found.items() if name != "decode" and value} == parts


def test_short_codes_multiply_by_one_lut_for_each_bit() -> None:
    found = lane_of(scalar("int2"), scalar("uint2"), "fixed-star")
    assert found.parts == Parts(decode=4)
    assert found.product == Range(-6, 3)


@pytest.mark.parametrize(("weight", "activation"), [("int3", "uint4"), ("e2m1", "e3m0"), ("pot4", "int4"), ("nf4", "uint2")])
def test_a_product_lies_in_its_range(weight: str, activation: str) -> None:
    w, a = (read(scalar(name)) for name in (weight, activation))
    products = [x * y for x in w.integer for y in a.integer if x is not None and y is not None]
    for name in fabric_names(w, a):
        lane = lane_of(scalar(weight), scalar(activation), name)
        assert lane.product.low <= min(products)
        assert lane.product.high >= max(products)


def test_every_unit_has_a_bill() -> None:
    for w, a in product(EVERY, EVERY):
        weight, activation = scalar(w), scalar(a)
        for name in fabric_names(read(weight), read(activation)):
            few, many = (bill(weight, activation, name, lanes, 20) for lanes in (4, 12))
            assert few.shape == (len(PARTS),)
            assert np.isfinite(few).all()
            assert (few >= 0).all()
            lane = slice(0, len(Parts._fields) + 1)
            assert np.allclose(3 * few[lane], many[lane])
            sums = 2 if read(weight).has_root or read(activation).has_root else 1
            assert few[-1] == many[-1] == 20 * sums
