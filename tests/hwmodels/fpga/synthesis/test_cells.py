"""Reports of Yosys are read strictly: what is missing or unknown is an error."""

import json
import re
from typing import Any

import pytest

from hwmodels.fpga.synthesis.cells import SynthesisError, read_cells

LOG = "Latest arrival time in 'unit' is 4230:\n  more\nLatest arrival time in 'other' is 17:\n"


def statistics(**changes: Any) -> str:
    counts = {"LUT2": 3, "LUT6": 4, "INV": 1, "CARRY4": 5, "FDRE": 18, "FDSE": 2, "DSP48E1": 6}
    module: dict[str, Any] = {"num_cells_by_type": counts, "estimated_num_lc": 6, **changes}
    return json.dumps({"modules": {"\\unit": module}})


def test_cells_are_counted_by_type_and_an_inverter_is_a_lut() -> None:
    cells = read_cells(statistics(), LOG, ["unit"])["unit"]
    assert cells.luts == (0, 3, 0, 0, 0, 4)
    assert (cells.lut, cells.inverters, cells.carry4, cells.flip_flops, cells.dsp) == (8, 1, 5, 20, 6)
    assert (cells.packed, cells.arrival_ps) == (6, 4230)


def test_an_unknown_cell_is_refused_not_dropped() -> None:
    with pytest.raises(SynthesisError, match=re.escape("not RAM32M")):
        read_cells(statistics(num_cells_by_type={"LUT1": 1, "RAM32M": 1}), LOG, ["unit"])


def test_a_module_without_cells_or_arrival_time_is_refused() -> None:
    with pytest.raises(SynthesisError, match="not leave out its cells"):
        read_cells(statistics(), LOG, ["other"])
    with pytest.raises(SynthesisError, match="not leave out its arrival time"):
        read_cells(statistics(), "", ["unit"])
    with pytest.raises(SynthesisError, match="estimate its packed LUTs"):
        read_cells(statistics(estimated_num_lc=None), LOG, ["unit"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"modules": 1}', '{"creator": "x"}'])
def test_a_report_that_was_cut_short_is_refused(text: str) -> None:
    with pytest.raises(SynthesisError):
        read_cells(text, LOG, ["unit"])
