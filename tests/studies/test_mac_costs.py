"""The study of multiply-accumulates works on whatever part of the table is there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from formats import BitatlasError
from hwmodels.fpga.formula_prices import requantizer_price
from hwmodels.fpga.mac_model import MacModel, model
from hwmodels.fpga.synthesis import table as tables
from hwmodels.fpga.synthesis.calibration import shipped_pairs
from hwmodels.fpga.synthesis.table import SHIPPED, Table
from studies import mac_costs
from studies.mac_costs_data import LENGTHS, beyond, comparison, flips, group, pairs, recipes, same_size, slices, weights_alone
from studies.mac_costs_page import spoken
from tests.hwmodels.fpga.mac_tables import lawful, row, table

PICTURES = ["bits.png", "estimates.png", "minifloats.png", "pairs.png"]


@pytest.fixture(scope="module")
def law() -> Table:
    return lawful()


@pytest.fixture(scope="module")
def lines(law: Table) -> pd.DataFrame:
    return pairs(law.rows)


def test_the_shipped_table_leaves_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mac_costs.main(["--quick", "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["README.md", "mac_costs.csv", *PICTURES])
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    page = (tmp_path / "README.md").read_text()
    assert "Made by `python -m studies.mac_costs --quick`" in page
    assert f"The table is by {model(SHIPPED).table.tool}: {len(model(SHIPPED).table.rows)} units of" in page
    assert "nan" not in page
    lines = pd.read_csv(tmp_path / "mac_costs.csv")
    assert 20 <= len(lines) <= mac_costs.QUICK_PAIRS
    assert not lines.isna().any(axis=None)
    assert "peak memory" in capsys.readouterr().out


def test_a_table_by_hand_leaves_a_report_that_says_what_is_missing(tmp_path: Path, law: Table) -> None:
    path, out = tmp_path / "units.csv", tmp_path / "report"
    tables.write(path, law)
    mac_costs.main(["--table", str(path), "--out", str(out)])
    page = (out / "README.md").read_text()
    assert "Made by `python -m studies.mac_costs --table units.csv`" in page
    assert "The table is by hand 1.0: " in page
    wanted = len(shipped_pairs())
    assert f"72 pairs of formats, 72 of the {wanted} that it is to hold. **{wanted - 72} are missing**" in page


def test_a_table_of_a_few_pairs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "units.csv"
    tables.write(path, lawful(("int4", "int8"), ("uint4", "uint8", "int4")))
    with pytest.raises(BitatlasError, match=r"^table must hold 20 pairs of formats or more, not 6$"):
        mac_costs.main(["--table", str(path), "--out", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()


def test_a_line_is_that_of_the_best_recipe(law: Table, lines: pd.DataFrame) -> None:
    fabric = law.rows[law.rows["dsp_allowed"] == 0]
    assert len(lines) == len(fabric[["weight", "activation"]].drop_duplicates())
    for line in lines.to_dict("records"):
        units = fabric[(fabric["weight"] == line["weight"]) & (fabric["activation"] == line["activation"])]
        many = units[units["lanes"] == 12].sort_values("lut").iloc[0]
        few = units[(units["lanes"] == 4) & (units["recipe"] == line["recipe"])]["lut"].item()
        assert line["lut_12_lanes [LUT]"] == many["lut"]
        assert line["lut_per_mac [LUT]"] == pytest.approx((many["lut"] - few) / 8)
        assert line["fixed [LUT]"] + 4 * line["lut_per_mac [LUT]"] == pytest.approx(few)


def test_an_estimate_is_judged_by_its_relative_error(lines: pd.DataFrame) -> None:
    double = lines.assign(**{"finn_per_mac [LUT]": 2 * lines["lut_per_mac [LUT]"]})
    found = comparison(double).set_index(["estimate", "of", "pairs"])
    plain, scaled = (found.loc[(name, "LUT per MAC", "all")] for name in ("FINN's formula", "FINN's formula times one factor"))
    assert (plain["median error [%]"], plain["95th percentile [%]"], plain["rank correlation"]) == (100, 100, 1)
    assert scaled["median error [%]"] == 0
    assert found.loc[("this model, pair left out", "LUT of 4 lanes", "all"), "median error [%]"] < 5
    whole = found.loc[("FINN's formula", "LUT per MAC", "integers"), "number"]
    assert whole == 6 * 4  # binary is no plain integer


def test_the_widest_quarter_is_judged_by_itself(law: Table, lines: pd.DataFrame) -> None:
    found = beyond(law.rows)
    assert list(found.columns) == list(comparison(lines).columns)
    assert found["of"].tolist() == ["LUT of 4 lanes", "LUT of 12 lanes"]
    assert (found["number"] < len(lines) / 4 + 1).all()


def test_orders_that_turn_round_are_flips() -> None:
    index = pd.MultiIndex.from_tuples([("a", "x"), ("b", "x"), ("c", "x"), ("a", "y"), ("b", "y")], names=["weight", "activation"])
    best = pd.Series([1.0, 2.0, 3.0, 5.0, 5.0], index)
    other = pd.Series([2.0, 1.0, 3.0, 7.0, 9.0], index)
    assert flips(best, other) == (1, 3)  # of a and b with x; a tie is no order
    assert flips(best, best) == (0, 3)


def test_recipes_are_counted_where_they_were_tried(law: Table, lines: pd.DataFrame) -> None:
    found = recipes(law.rows, lines).set_index("recipe")
    counts = found["best with many lanes"].drop("(operator alone)").astype(int)
    assert counts.sum() == len(lines) == found.loc["(operator alone)", "tried"]
    assert (found["more LUTs than the best, median [%]"] >= 0).all()


def test_minifloats_are_set_against_the_integer_of_their_size(law: Table) -> None:
    found = same_size(MacModel(table=law), requantizer_price)
    assert set(found["dot_length"]) == set(LENGTHS)
    whole = found[found["format"].isin(["int4", "int6", "int8"])]
    assert (whole[["over_integer [%]", "over_integer_requantized [%]", "over_integer_own_requantizer [%]"]] == 0).all(axis=None)
    one = found[(found["format"] == "e2m1") & (found["dot_length"] == 64)].iloc[0]
    of = found[(found["format"] == "int4") & (found["dot_length"] == 64)].iloc[0]
    assert one["over_integer [%]"] == pytest.approx(100 * (one["lut_per_mac [LUT]"] / of["lut_per_mac [LUT]"] - 1), abs=0.1)
    assert one["origin"].startswith("synthesised; requantizer formula")
    shares = found.pivot(index="format", columns="dot_length", values="requantizer_share [LUT]")
    assert (shares[64] > shares[4608]).all()


def test_weights_are_set_against_the_integer_with_the_same_activations(lines: pd.DataFrame) -> None:
    found = weights_alone(lines).set_index("weight")
    slope = lines.set_index(["weight", "activation"])["lut_per_mac [LUT]"]
    ratios = [slope["e2m1", a] / slope["int4", a] - 1 for a in slope["e2m1"].index]
    assert found.loc["e2m1", "activations"] == len(ratios)
    assert found.loc["e2m1", "median [%]"] == pytest.approx(100 * np.median(ratios), abs=0.1)
    assert found.loc["e2m1", "cheaper with"] == sum(ratio < 0 for ratio in ratios)
    assert "binary" not in found.index


def test_a_slice_takes_the_place_of_the_luts_that_it_saves() -> None:
    rows = [row("int8", "uint8", "fixed-booth", lanes, 60 * lanes) for lanes in (4, 12)]
    rows += [row("int8", "uint8", "fixed-merged", lanes, 24, dsp_allowed=1, dsp=lanes) for lanes in (4, 12)]
    found = slices(table(rows).rows)
    assert found["saved"].tolist() == [58]


@pytest.mark.parametrize(
    ("name", "expected"), [("int4", "integer"), ("e2m1", "minifloat"), ("pot3", "power of two"), ("post3", "power of √2")]
)
def test_groups_are_those_of_the_atlas(name: str, expected: str) -> None:
    assert group(name) == expected


def test_lists_in_words() -> None:
    assert [spoken(list("abc")[:count]) for count in range(4)] == ["none", "`a`", "`a` and `b`", "`a`, `b` and `c`"]
