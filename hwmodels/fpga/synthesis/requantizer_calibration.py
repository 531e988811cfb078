"""Fills the table of requantizers: every kind for every output format that it leads to, at a few widths of the accumulator."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from formats import registry
from formats.format import Format
from hwmodels.fpga.rtl.requantizer.multiplier import MultiplierRequantizer
from hwmodels.fpga.rtl.requantizer.normalise import NormaliseRequantizer
from hwmodels.fpga.rtl.requantizer.shift import ShiftRequantizer
from hwmodels.fpga.rtl.requantizer.specification import Requantizer
from hwmodels.fpga.rtl.requantizer.thresholds import SearchRequantizer, ThresholdRequantizer
from hwmodels.fpga.simulation.requantizer_stimulus import requantizer_stimulus
from hwmodels.fpga.synthesis import table as tables
from hwmodels.fpga.synthesis.calibration import in_processes, measured, written
from hwmodels.fpga.synthesis.table import REQUANTIZER, Table

#: requantizers that go through the synthesiser in one call
GROUP = 8
WIDTHS = (16, 24, 32)
#: where comparators, which are all alike, are many
OUTERMOST = (16, 32)
#: bits of a code up to which all thresholds are compared at once
THRESHOLD_BITS = 6

INTEGERS = [*(f"uint{bits}" for bits in range(2, 9)), "int4", "int8"]
MINIFLOATS = [f"e{e}m{bits - 1 - e}" for bits in (4, 6, 8) for e in range(1, bits)]
OTHERS = ["pot4", "post4", "ternary", "binary"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A requantizer of the table."""

    kind: str
    output: str
    accumulator_bits: int
    dsp: bool = False


def shipped_subjects() -> list[Subject]:
    """Return the requantizers that the shipped table is to hold, in order of work: those that take longest come last.

    Of multipliers those that round once, which are the smaller ones; what rounds twice can be added.
    """
    narrow = [name for name in (*INTEGERS, *MINIFLOATS, *OTHERS) if registry.scalar(name).bits <= THRESHOLD_BITS]
    work = (
        ("search", [*INTEGERS, *MINIFLOATS, *OTHERS], False),
        ("normalise", MINIFLOATS, False),
        ("shift-nearest_even", INTEGERS, False),
        ("multiplier-single", INTEGERS, True),
        ("multiplier-single", INTEGERS, False),
        ("thresholds", narrow, False),
    )
    return [
        Subject(kind=kind, output=output, accumulator_bits=bits, dsp=dsp)
        for kind, outputs, dsp in work
        for output in outputs
        for bits in (OUTERMOST if kind == "thresholds" else WIDTHS)
    ]


def design_of(subject: Subject) -> Requantizer:
    """Return the requantizer that the table has a row for.

    Shifts reach as far as the accumulator is wide; a normaliser's accumulator reaches as far as its output format. Without DSP
    slices the multiplier is one of rows, which is by far the smallest of those that were tried.
    """
    output, bits = registry.scalar(subject.output), subject.accumulator_bits
    recipe = "star" if subject.dsp else "booth"
    make: Mapping[str, Callable[[], Requantizer]] = {
        "thresholds": lambda: ThresholdRequantizer(accumulator_bits=bits, output=output),
        "search": lambda: SearchRequantizer(accumulator_bits=bits, output=output),
        "normalise": lambda: NormaliseRequantizer(accumulator_bits=bits, output=output, lsb_exponent=reaching(output, bits)),
        "shift-nearest_even": lambda: ShiftRequantizer(accumulator_bits=bits, output=output, shifts=(0, bits - 1)),
        "multiplier-single": lambda: MultiplierRequantizer(accumulator_bits=bits, output=output, variant="single", recipe=recipe),
        "multiplier-double": lambda: MultiplierRequantizer(accumulator_bits=bits, output=output, variant="double", recipe=recipe),
    }
    return make[subject.kind]()


def reaching(output: Format, accumulator_bits: int) -> int:
    """Return the exponent of the LSB with which the largest accumulator comes just above the largest level."""
    largest = float(np.nanmax(output.values))
    return math.floor(math.log2(largest)) + 2 - accumulator_bits


def calibrate(path: Path, subjects: Sequence[Subject], *, jobs: int | None = None, progress: bool = True) -> Table:
    """Extend the table at ``path`` by the requantizers that it lacks; what is done is written group by group.

    Raises ``InvalidValueError`` where the table is by another version of the tool.
    """
    table = tables.read(path, REQUANTIZER) if path.exists() else tables.empty(REQUANTIZER)
    tables.check_tool(table, path)
    known = set(zip(*(table.rows[name] for name in REQUANTIZER.identity), strict=True))
    missing = [s for s in subjects if (s.kind, s.output, s.accumulator_bits, int(s.dsp)) not in known]
    groups = [group for dsp in (True, False) for group in _groups([s for s in missing if s.dsp == dsp])]
    with tqdm(total=len(subjects), initial=len(subjects) - len(missing), disable=None if progress else True) as bar:
        return written(path, table, in_processes(groups, measure, jobs or os.cpu_count() or 1), bar)


def _groups(subjects: Sequence[Subject]) -> list[Sequence[Subject]]:
    return [subjects[i : i + GROUP] for i in range(0, len(subjects), GROUP)]


def measure(subjects: Sequence[Subject]) -> list[dict[str, object]]:
    """Prove and synthesise requantizers that all may, or all may not, use DSP slices; return their rows."""
    designs = [design_of(subject) for subject in subjects]
    rows = []
    for subject, (proof, cells) in zip(subjects, measured(designs, requantizer_stimulus, dsp=subjects[0].dsp), strict=True):
        identity: dict[str, object] = {
            "kind": subject.kind,
            "output": subject.output,
            "accumulator_bits": subject.accumulator_bits,
            "dsp_allowed": int(subject.dsp),
        }
        rows.append(tables.row(identity | proof, cells, REQUANTIZER))
    return rows
