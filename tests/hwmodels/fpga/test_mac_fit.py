"""The fit recovers a law of cost, and judges itself by what it does not know."""

import numpy as np
import pytest

from formats.registry import scalar
from hwmodels.fpga.mac_features import PARTS, bill
from hwmodels.fpga.mac_fit import candidates, fit, leave_one_out, samples
from hwmodels.fpga.synthesis.table import Table
from tests.hwmodels.fpga.mac_tables import LAW, lawful


@pytest.fixture(scope="module")
def law() -> Table:
    return lawful()


def test_counts_are_those_of_the_law_where_a_recipe_has_the_part(law: Table) -> None:
    given = samples(law.rows, dsp=False)
    found = fit(given)
    for recipe, part in (("fixed-booth", "rows"), ("shift-tree", "shift"), ("fixed-booth", "tree"), ("fixed-booth", "accumulator")):
        assert found.lut[recipe][PARTS.index(part)] == pytest.approx(LAW.get(part, 1.0), abs=0.1), (recipe, part)
    assert all((counts >= 0).all() for counts in found.lut.values())
    assert found.factor == pytest.approx(1, abs=0.02)


def test_the_least_recipe_is_the_prediction(law: Table) -> None:
    found = fit(samples(law.rows, dsp=False))
    w, a = scalar("int4"), scalar("uint4")
    names = candidates(w, a, dsp=False)
    each = {name: found.factor * float(bill(w, a, name, 6, 18) @ found.lut[name]) for name in names}
    recipe, lut = found.least(w, a, 6, 18, names)
    assert lut == pytest.approx(min(each.values()))
    assert each[recipe] == pytest.approx(lut)


@pytest.mark.parametrize("by", ["pair", "format"])
def test_what_is_left_out_is_not_known(law: Table, by: str) -> None:
    out = law.rows["weight"] == "e3m2"
    if by == "pair":
        out &= law.rows["activation"] == "int4"
    wrong = Table(tool=law.tool, rows=law.rows.assign(lut=law.rows["lut"].where(~out, 3 * law.rows["lut"])))
    before, after = (leave_one_out(one.rows, by) for one in (law, wrong))  # type: ignore[arg-type]
    name = "e3m2 x int4" if by == "pair" else "e3m2"
    held = before["left_out"] == name
    assert held.sum() == (2 if by == "pair" else 12)
    assert np.allclose(after["predicted"][held], before["predicted"][held])
    assert np.allclose(after["lut"][held], 3 * before["lut"][held])
    assert np.allclose(after["error"][held], after["predicted"][held] / after["lut"][held] - 1)
    assert not np.allclose(after["predicted"][~held], before["predicted"][~held])  # but the others do know it


def test_the_widest_pairs_are_predicted_by_the_others(law: Table) -> None:
    found = leave_one_out(law.rows, "width")
    units = law.rows[law.rows["dsp_allowed"] == 0].drop_duplicates(["weight", "activation"])
    widest = units["accumulator_bits"].quantile(0.75)
    assert len(found) == 2 * (units["accumulator_bits"] > widest).sum() > 0
    assert set(found["left_out"]) == {f"wider than {widest:g} bits"}
    wide = law.rows["accumulator_bits"] > widest
    wrong = law.rows.assign(lut=law.rows["lut"].where(~wide, 3 * law.rows["lut"]))
    assert np.allclose(leave_one_out(wrong, "width")["predicted"], found["predicted"])


def test_a_law_is_predicted_without_the_pair(law: Table) -> None:
    found = leave_one_out(law.rows, "pair")
    assert found["error"].abs().median() < 0.02
    assert len(found) == 2 * len(law.rows[["weight", "activation"]].drop_duplicates())
    assert not found.isna().any(axis=None)


def test_odd_pairs_do_not_bend_the_rest(law: Table) -> None:
    odd = law.rows["weight"] == "int2"
    bent = law.rows.assign(lut=law.rows["lut"].where(~odd, 2 * law.rows["lut"]))
    found = leave_one_out(bent, "pair")
    others = found[found["weight"].isin(["int4", "int6", "int8", "e3m2", "e4m3"])]
    assert others["error"].abs().median() < 0.03


def test_units_with_slices_are_fitted_apart(law: Table) -> None:
    with_slices = samples(law.rows, dsp=True)
    assert (with_slices.rows["dsp"] > 0).all()
    assert set(fit(with_slices).lut) <= {"fixed-merged", "shift-fill"}
    assert (samples(law.rows, dsp=False).rows["dsp_allowed"] == 0).all()
