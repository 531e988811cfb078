"""Units are looked up where the table has them and predicted where it ends, and every price says which."""

from pathlib import Path

import pytest

from formats import BitatlasError, InvalidValueError
from formats.arithmetic.width import bound_bits
from formats.registry import scalar
from hwmodels.cost import NotPricedError
from hwmodels.fpga.mac_fit import leave_one_out
from hwmodels.fpga.mac_model import MacModel, errors, model, unit_price
from hwmodels.fpga.synthesis import table as tables
from hwmodels.fpga.unit_cost import UnitCost
from tests.hwmodels.fpga.mac_tables import DOT_LENGTH, lawful, row, table


def price(found: MacModel, w: str, a: str, *, lanes: int = 4, dot_length: int = DOT_LENGTH, dsp: bool = False) -> UnitCost:
    return found.price(scalar(w), scalar(a), lanes=lanes, dot_length=dot_length, dsp=dsp)


@pytest.fixture(scope="module")
def by_hand() -> MacModel:
    sizes = {"fixed-booth": (100, 260), "fixed-rows": (90, 290)}
    rows = [
        row("int4", "uint4", name, lanes, lut, carry4=lut // 5, arrival_ps=arrival)
        for name, luts in sizes.items()
        for lanes, lut, arrival in zip((4, 12), luts, (4000, 5000), strict=True)
    ]
    rows.append(row("int4", "uint4", "table", 4, 200))  # too large to be tried with many lanes
    return MacModel(table=table(rows))


@pytest.fixture(scope="module")
def by_law() -> MacModel:
    return MacModel(table=lawful())


def test_a_unit_of_the_table_is_looked_up(by_hand: MacModel) -> None:
    few, many = (price(by_hand, "int4", "uint4", lanes=lanes) for lanes in (4, 12))
    assert (few.lut, few.recipe, few.origin, few.arrival_ps) == (90, "fixed-rows", "synthesised", 4000)
    assert (many.lut, many.recipe, many.carry4, many.arrival_ps) == (260, "fixed-booth", 52, 5000)
    assert (many.flip_flops, many.dsp) == (bound_bits("uint4", "int4", DOT_LENGTH), 0)


@pytest.mark.parametrize(("lanes", "lut", "recipe"), [(1, 15, "fixed-rows"), (8, 180, "fixed-booth"), (100, 2020, "fixed-booth")])
def test_other_lanes_are_on_the_line_of_the_recipe_that_is_smallest_there(
    by_hand: MacModel, lanes: int, lut: float, recipe: str
) -> None:
    found = price(by_hand, "int4", "uint4", lanes=lanes)
    assert (found.lut, found.recipe) == (lut, recipe)
    assert found.origin == ("synthesised" if 4 <= lanes <= 12 else "extrapolated")


def test_arrival_grows_with_the_levels_of_a_tree() -> None:
    rows = [row("int4", "uint4", "fixed-rows", lanes, 50, arrival_ps=ps) for lanes, ps in ((4, 4000), (16, 5000))]
    assert price(MacModel(table=table(rows)), "int4", "uint4", lanes=64).arrival_ps == 6000
    rows = [row("int4", "uint4", "magnitude-star", lanes, 50, arrival_ps=ps) for lanes, ps in ((4, 4000), (16, 5000))]
    assert price(MacModel(table=table(rows)), "int4", "uint4", lanes=64).arrival_ps == 9000


@pytest.mark.parametrize(("weight", "sums"), [("int4", 1), ("post4", 2)])
@pytest.mark.parametrize("dot_length", [9, 4608])
def test_a_longer_sum_takes_a_lut_and_a_flip_flop_for_every_bit(weight: str, sums: int, dot_length: int) -> None:
    rows = [row(weight, "uint4", "shift-tree", lanes, 50 * lanes, flip_flops=sums * 20) for lanes in (4, 12)]
    found = MacModel(table=table(rows))
    usual, other = price(found, weight, "uint4"), price(found, weight, "uint4", dot_length=dot_length)
    more = sums * (bound_bits("uint4", weight, dot_length) - bound_bits("uint4", weight, DOT_LENGTH))
    assert more != 0
    assert other.lut - usual.lut == more
    assert other.flip_flops - usual.flip_flops == more
    assert other.carry4 - usual.carry4 == more / 4


def test_nothing_costs_less_than_nothing() -> None:
    rows = [row("int4", "uint4", "fixed-rows", lanes, lut, carry4=lut) for lanes, lut in ((4, 10), (12, 90))]
    found = price(MacModel(table=table(rows)), "int4", "uint4", lanes=1, dot_length=1)
    assert (found.lut, found.carry4) == (1, 0)


def test_with_slices_the_unit_of_least_lut_and_55_a_slice_that_has_some() -> None:
    rows = [row("int8", "uint8", "fixed-booth", lanes, 60 * lanes) for lanes in (4, 12)]
    rows += [row("int8", "uint8", "fixed-merged", lanes, 26, dsp_allowed=1, dsp=2 * lanes) for lanes in (4, 12)]
    rows += [row("int8", "uint8", "shift-fill", lanes, 26 + 10 * lanes, dsp_allowed=1, dsp=lanes) for lanes in (4, 12)]
    found = MacModel(table=table(rows))
    with_slices, without = (price(found, "int8", "uint8", lanes=8, dsp=dsp) for dsp in (True, False))
    assert (with_slices.recipe, with_slices.dsp, with_slices.lut) == ("shift-fill", 8, 106)
    assert (without.recipe, without.dsp) == ("fixed-booth", 0)


@pytest.mark.parametrize(("lut", "dsp"), [(500, 12), (20, 0)])
def test_slices_that_save_nothing_or_that_were_not_used_leave_the_unit_without(lut: int, dsp: int) -> None:
    rows = [row("int4", "uint8", "fixed-booth", lanes, 30 * lanes) for lanes in (4, 12)]
    rows += [row("int4", "uint8", "fixed-merged", lanes, lut, dsp_allowed=1, dsp=dsp) for lanes in (4, 12)]
    found = price(MacModel(table=table(rows)), "int4", "uint8", dsp=True)
    assert (found.recipe, found.lut, found.dsp) == ("fixed-booth", 120, 0)


@pytest.mark.parametrize(
    ("weight", "activation"),
    [
        *(("nf4", "int8"), ("lloydmax4", "uint4"), ("apot4", "uint6"), ("uapot4", "uapot4"), ("ue2m2", "ue3m3")),
        *(("int16", "int16"), ("int9", "uint8"), ("pot6", "int8"), ("post6", "ulog2_4"), ("ulogsqrt2_4", "int8")),
        *(("int4_narrow", "uint3"), ("float4_e2m1fn", "e4m3"), ("binary", "binary"), ("ternary", "uint1"), ("e5m2", "e5m2")),
    ],
)
def test_every_other_pair_is_predicted(by_law: MacModel, weight: str, activation: str) -> None:
    found = price(by_law, weight, activation, lanes=7, dot_length=100)
    root = "post" in weight or "sqrt" in weight
    assert found.origin == "predicted"
    assert found.lut > bound_bits(activation, weight, 100) / 2
    assert found.flip_flops == (1 + root) * bound_bits(activation, weight, 100)
    assert found.carry4 > 0
    assert found.arrival_ps > 1000
    assert found.dsp == 0


def test_a_prediction_follows_the_law_behind_the_table(by_law: MacModel) -> None:
    truth = MacModel(table=lawful(("int5", "e2m2", "int12"), ("uint3", "e3m0")))
    for w in ("int5", "e2m2", "int12"):
        for a in ("uint3", "e3m0"):
            for lanes in (4, 12):
                predicted, real = price(by_law, w, a, lanes=lanes), price(truth, w, a, lanes=lanes)
                assert (predicted.origin, real.origin) == ("predicted", "synthesised")
                assert predicted.lut == pytest.approx(real.lut, rel=0.04), (w, a)
                assert predicted.carry4 == pytest.approx(real.carry4, rel=0.15), (w, a)


def test_predictions_grow_with_widths_and_lanes(by_law: MacModel) -> None:
    by_bits = [price(by_law, f"int{bits}", "uint7").lut for bits in range(2, 17)]
    by_lanes = [price(by_law, "e3m3", "ue3m2", lanes=lanes).lut for lanes in (1, 2, 3, 5, 8, 16, 64, 576)]
    assert by_bits == sorted(set(by_bits))
    assert by_lanes == sorted(set(by_lanes))


def test_a_predicted_slice_multiplies_where_it_is_wide_enough(by_law: MacModel) -> None:
    with_slices, without = (price(by_law, "int12", "uint6", lanes=6, dsp=dsp) for dsp in (True, False))
    assert (with_slices.dsp, with_slices.origin) == (6, "predicted")
    assert with_slices.lut < without.lut
    assert price(by_law, "uint2", "uint3", dsp=True).dsp == 0


def test_what_has_no_exact_accumulator_has_no_price(by_law: MacModel) -> None:
    with pytest.raises(NotPricedError, match=r"^format of a generated unit must have finite codes alone, .* as float8_e5m2 has"):
        price(by_law, "float8_e5m2", "int8")
    limit = r"^exact accumulator of e8m2 x e8m2 must have at most 512 bits, not \d+$"
    with pytest.raises(NotPricedError, match=limit):
        price(by_law, "e8m2", "e8m2")
    with pytest.raises(InvalidValueError, match=r"^lanes and dot length must be at least 1, not 0 and 9$"):
        price(by_law, "int4", "int4", lanes=0, dot_length=9)


def test_a_table_is_read_whoever_made_it(tmp_path: Path) -> None:
    path = tmp_path / "units.csv"
    tables.write(path, lawful(("int4",), ("uint4",)))
    assert model(path).table.tool == "hand 1.0"
    assert model(path) is model(path)
    tables.write(path, table([row("int4", "uint4", "fixed-booth", lanes, 9 * lanes) for lanes in (4, 12)], tool="other 2.0"))
    assert model(path).table.tool == "other 2.0"
    assert price(model(path), "int4", "uint4", lanes=12).lut == 108


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BitatlasError, match=r"^table must be readable, not fail \(No such file or directory\): .*none\.csv$"):
        model(tmp_path / "none.csv")


def test_a_table_without_a_recipe_for_a_pair_cannot_predict_it(by_hand: MacModel) -> None:
    with pytest.raises(NotPricedError, match=r"^table of units must hold 5 or more of a recipe for e4m3 x e4m3, not fewer$"):
        price(by_hand, "e4m3", "e4m3")


def test_the_shipped_price_of_every_pair_is_its_smallest_unit() -> None:
    rows = model().table.rows
    fabric = rows[rows["dsp_allowed"] == 0]
    both = fabric[fabric.groupby(["weight", "activation", "recipe"])["lanes"].transform("nunique") > 1]
    smallest = both.groupby(["weight", "activation", "lanes"])["lut"].min()
    assert len(smallest) >= 2
    for (w, a, lanes), lut in smallest.items():
        found = unit_price(scalar(w), scalar(a), lanes=lanes, dot_length=DOT_LENGTH, dsp=False)
        assert (found.lut, found.origin) == (lut, "synthesised")


@pytest.mark.parametrize(("by", "median", "most"), [("pair", 0.08, 0.22), ("format", 0.10, 0.27)])
def test_the_shipped_model_predicts_what_it_does_not_know(by: str, median: float, most: float) -> None:
    found = leave_one_out(model().table.rows, by)  # type: ignore[arg-type]
    for _, some in found.groupby("lanes"):
        middle, high = errors(some["error"].to_numpy())
        assert middle <= median
        assert high <= most


def test_errors_are_magnitudes() -> None:
    assert errors([-0.1, 0.2, -0.3]) == pytest.approx((0.2, 0.29))
