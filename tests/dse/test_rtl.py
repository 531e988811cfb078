"""``dse rtl``: a folder with a proved unit, or one line that says why not."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dse import rtl
from dse.cli import main
from hwmodels.fpga.simulation import simulators
from hwmodels.fpga.simulation.simulators import NotEqualError

SMALL = ("--weight", "e2m1", "--activation", "uint2", "--accumulator", "fixed:8", "--lanes", "2", "--dot-length", "16")


def run(out: Path, *arguments: str) -> int:
    return main(["rtl", *(arguments or SMALL), "--out", str(out)])


def test_a_unit_comes_with_its_test_bench_its_vectors_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "unit"
    assert run(out, *SMALL, "--recipe", "shift-tree") == 0
    assert re.search(r"mac_e2m1_uint2_fixed_8_k16_l2_shift_tree: \d+ cycles equal to the emulator", capsys.readouterr().out)
    hexes = {"activations.hex", "check.hex", "enable.hex", "first.hex", "sum.hex", "weights.hex"}
    assert {entry.name for entry in out.iterdir()} == {"README.md", "testbench.v", "unit.v", *hexes}
    page = (out / "README.md").read_text()
    assert "accumulator: `fixed:8`, 8 bits; its LSB is worth 2^-1" in page
    assert "recipe: `shift-tree`" in page
    assert "| `weights` | input | 8 |" in page
    assert "| `sum` | output | 8 |" in page
    assert [entry.name for entry in tmp_path.iterdir()] == ["unit"]


@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("output", [(), ("--output", "e1m1"), ("--output", "int4", "--requantizer", "shift")])
def test_the_commands_of_the_page_pass(output: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "unit"
    assert run(out, *SMALL, *output) == 0
    commands = re.findall(r"^    (\S.*)$", (out / "README.md").read_text(), re.M)
    folders = [out, out / "requantizer"] if output else [out]
    assert len(commands) == 2 * len(folders)
    for folder, (compiling, executing) in zip(folders, (commands[:2], commands[2:]), strict=False):
        done = subprocess.run(compiling.split(), cwd=folder, check=True, capture_output=True, text=True)
        assert done.stderr == ""
        printed = subprocess.run(executing.split(), cwd=folder, check=True, capture_output=True, text=True).stdout
        assert re.fullmatch(r"PASS \d+\n", printed)


@pytest.mark.parametrize("kind", ["search", "thresholds", "normalise"])
def test_a_requantizer_lies_beside(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "unit", *SMALL, "--output", "e2m1", "--requantizer", kind) == 0
    assert f"requantizer_{kind}_8_e2m1: " in capsys.readouterr().out
    assert f"module requantizer_{kind}_8_e2m1(" in (tmp_path / "unit" / "requantizer" / "unit.v").read_text()
    assert f"kind `{kind}`" in (tmp_path / "unit" / "README.md").read_text()


def test_without_icarus_the_files_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path / "icarus") == 0
    monkeypatch.setattr(simulators, "available", lambda: "amaranth")
    assert run(tmp_path / "amaranth") == 0
    assert "simulator: amaranth" in (tmp_path / "amaranth" / "README.md").read_text()
    names = sorted(entry.name for entry in (tmp_path / "icarus").iterdir())
    assert names == sorted(entry.name for entry in (tmp_path / "amaranth").iterdir())
    for name in set(names) - {"README.md"}:
        assert (tmp_path / "icarus" / name).read_text() == (tmp_path / "amaranth" / name).read_text()


def test_an_earlier_unit_is_replaced_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "unit"
    assert run(out, *SMALL, "--output", "e1m1") == 0
    assert run(out) == 0
    assert not (out / "requantizer").exists()
    (out / "thesis.txt").write_text("mine")
    before = sorted(entry.name for entry in out.iterdir())
    assert run(out) == 2
    assert f"output folder must be empty or hold an earlier unit alone, not thesis.txt: {out}" in capsys.readouterr().err
    assert sorted(entry.name for entry in out.iterdir()) == before
    assert run(out / "thesis.txt") == 2
    assert "output must be a folder, not a file" in capsys.readouterr().err


def test_what_is_not_proved_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(*_: object) -> None:
        raise NotEqualError("unit must equal the emulator, not differ")

    monkeypatch.setattr(rtl, "prove", differ)
    assert run(tmp_path / "unit") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weight", "e9m1", "--activation", "e9m1"), "accumulator of e9m1 x e9m1 must have at most 512 bits, not 1035"),
        (("--weight", "float8_e5m2", "--activation", "int8"), "must have finite codes alone, not codes of NaN or Inf"),
        (
            ("--weight", "int4", "--activation", "int4", "--recipe", "shift-tre"),
            "recipe must be a known name, not 'shift-tre'; nearest:",
        ),
        (("--weight", "int8", "--activation", "int8", "--recipe", "table"), "recipe of int8 x int8 must be one of fixed-star"),
        (("--weight", "e2m11x", "--activation", "int8"), "format must be a known name, not 'e2m11x'; nearest:"),
        (("--weight", "mxfp4", "--activation", "int8"), "not the block format mxfp4"),
        (("--weight", "int4", "--activation", "int4", "--accumulator", "float32"), "must be exact or fixed, not float32"),
        (("--weight", "int4", "--activation", "int4", "--lanes", "0"), "lanes and dot length must be at least 1, not 0 and 1024"),
        (("--weight", "post4", "--activation", "int4", "--output", "int8"), "must be one number, not the two of post4 x int4"),
        (("--weight", "int4", "--activation", "int4", "--requantizer", "shift"), "must have an output format, not shift alone"),
        (
            ("--weight", "int4", "--activation", "int4", "--output", "int8", "--requantizer", "shft"),
            "requantizer must be a known name, not 'shft'; nearest: shift",
        ),
        (
            ("--weight", "int4", "--activation", "int4", "--output", "e2m1", "--requantizer", "shift"),
            "must be an integer in two's complement or unsigned, not e2m1",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "unit", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "amaranth", None)
    assert run(tmp_path / "unit") == 2
    assert capsys.readouterr().err == "dse: amaranth must be installed for dse rtl: pip install bitatlas[fpga]\n"
    assert main(["calibrate", "fpga", "--out", str(tmp_path / "table.csv")]) == 2
    assert capsys.readouterr().err == "dse: amaranth must be installed for dse calibrate fpga: pip install bitatlas[fpga]\n"
