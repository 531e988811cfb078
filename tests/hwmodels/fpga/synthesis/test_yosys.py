"""Calls of Yosys: one for many designs, its failures in its own words, the shipped table reproduced."""

import re
import sys

import pytest

from hwmodels.fpga.rtl.recipes import RECIPES
from hwmodels.fpga.rtl.verilog import verilog_text
from hwmodels.fpga.synthesis import calibration, table, yosys
from hwmodels.fpga.synthesis.calibration import Pair, unit_of
from hwmodels.fpga.synthesis.cells import SynthesisError
from hwmodels.fpga.synthesis.yosys import Source

AND = "module {name}(a, b, y);\n  input [3:0] a;\n  input [3:0] b;\n  output [3:0] y;\n  assign y = a & b;\nendmodule\n"


def source(name: str) -> Source:
    return Source(name=name, verilog=AND.format(name=name))


def test_the_wrapper_holds_one_instance_of_each_with_every_port_connected() -> None:
    text = yosys.all_designs([source("one"), source("two")])
    assert "one d0(.a(d0_a), .b(d0_b), .y(d0_y));" in text
    assert "two d1(.a(d1_a), .b(d1_b), .y(d1_y));" in text
    assert text.count("wire [3:0]") == 6


def test_a_key_depends_on_source_script_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {yosys.key(source("one"), dsp=False), yosys.key(source("two"), dsp=False), yosys.key(source("one"), dsp=True)}
    monkeypatch.setattr(yosys, "version", lambda: "0.1")
    keys.add(yosys.key(source("one"), dsp=False))
    assert len(keys) == 4


def test_equal_names_are_refused() -> None:
    with pytest.raises(SynthesisError, match="must be different"):
        yosys.synthesise([source("one"), source("one")], dsp=False)


def test_a_killed_or_failing_synthesis_is_an_error_in_the_tools_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yosys, "RUN", "import sys; print('ERROR: no such thing'); sys.exit(1)")
    with pytest.raises(SynthesisError, match=re.escape("not fail with status 1: ERROR: no such thing")):
        yosys.synthesise([source("one")], dsp=False)
    monkeypatch.setattr(yosys, "RUN", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(SynthesisError, match="not fail with status -9"):
        yosys.synthesise([source("one")], dsp=False)
    monkeypatch.setattr(yosys, "RUN", "import time; time.sleep(60)")
    monkeypatch.setattr(yosys, "LIMIT", 0.5)
    with pytest.raises(SynthesisError, match=r"must end within 0\.5 s"):
        yosys.synthesise([source("one")], dsp=False)


def test_a_synthesis_that_leaves_half_a_report_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yosys, "RUN", "open('statistics.json', 'w').write('{'); open('log.txt', 'w').close()")
    with pytest.raises(SynthesisError, match="must be JSON"):
        yosys.synthesise([source("one")], dsp=False)
    assert sys.executable  # the interpreter itself runs Yosys, so no program need be on the path


@pytest.mark.slow
def test_entries_of_the_shipped_table_come_out_the_same() -> None:
    rows = table.read().rows
    small = rows[(rows["lanes"] == calibration.FEW_LANES) & (rows["lut"] < 400)]
    for dsp in (0, 1):
        drawn = small[small["dsp_allowed"] == dsp].sample(4, random_state=1)
        units = [
            unit_of(Pair(weight=row.weight, activation=row.activation), RECIPES[row.recipe], row.lanes, row.dot_length)
            for row in drawn.itertuples()
        ]
        again = calibration.measure_units(units, dsp=bool(dsp))
        for before, after in zip(drawn.to_dict("records"), again, strict=True):
            simulator = {"simulator": after["simulator"]}  # another one may be installed
            assert after == before | simulator


def test_the_shipped_table_is_of_the_sources_that_are_generated_today() -> None:
    if yosys.version() not in table.read().tool:
        pytest.fail(f"the shipped table is by {table.read().tool}, installed is {yosys.version()}")
    rows = table.read().rows
    for row in rows.sample(12, random_state=0).itertuples():
        unit = unit_of(Pair(weight=row.weight, activation=row.activation), RECIPES[row.recipe], row.lanes, row.dot_length)
        made = Source(name=unit.name, verilog=verilog_text(unit))
        assert yosys.key(made, dsp=bool(row.dsp_allowed)) == row.key, unit.name
        assert unit.accumulator_bits == row.accumulator_bits
