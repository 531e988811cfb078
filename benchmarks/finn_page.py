"""The figures of FINN and ours, node by node: as a printed table, as CSV and as a page."""

import csv
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from hwmodels.files import replaced, write_text

#: of the page's table; "5 of 5 equal" is among those that have a figure of ours
COLUMNS = (
    "network",
    "weight bits",
    "activation bits",
    "frames/s",
    "nodes",
    "cycles equal",
    "operations equal",
    "parameters equal",
    "LUTs equal",
    "slowest node (cycles)",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One node of FINN's beside one stage of a layer of ours; None where we, or FINN, have no figure."""

    network: str
    weight_bits: int
    activation_bits: int
    rate: int
    node: str
    layer: str
    pe: int | None
    simd: int | None
    cycles: int
    our_cycles: int | None
    macs: int | None
    our_macs: int | None
    parameters: int | None
    our_parameters: int | None
    luts: int
    our_luts: int | None

    @property
    def case(self) -> tuple[str, int, int, int]:
        """The network, its widths and the rate that it was folded for."""
        return self.network, self.weight_bits, self.activation_bits, self.rate

    @property
    def differences(self) -> list[str]:
        """Name every figure that must be equal and is not."""
        pairs = (
            ("cycles", self.cycles, self.our_cycles),
            ("operations", self.macs, self.our_macs),
            ("parameters", self.parameters, self.our_parameters),
        )
        where = f"node {self.node} ({self.network}, W{self.weight_bits}A{self.activation_bits}, {self.rate} frames/s)"
        return [
            f"{what} must be FINN's {theirs}, not {ours}: {where}" for what, theirs, ours in pairs if ours not in (None, theirs)
        ]


def show(rows: Sequence[Row]) -> None:
    """Print the table: a figure of ours only where it is not FINN's."""
    previous = None
    for row in rows:
        if row.case != previous:
            print(f"\n{row.network}, weights INT{row.weight_bits}, activations INT{row.activation_bits}, {row.rate} frames/s")
            print(f"  {'node of FINN':30} {'layer':6} {'PE':>3} {'SIMD':>4} {'cycles':>9} {'MACs':>9} {'weights':>8} {'LUT':>7}")
        previous = row.case
        figures = zip(
            (9, 9, 8, 7),
            (row.cycles, row.macs, row.parameters, row.luts),
            (row.our_cycles, row.our_macs, row.our_parameters, row.our_luts),
            strict=True,
        )
        cells = " ".join(f"{'' if theirs is None else theirs:>{size}}{_mark(theirs, ours)}" for size, theirs, ours in figures)
        print(f"  {row.node:30} {row.layer:6} {row.pe or '':>3} {row.simd or '':>4} {cells}")


def _mark(theirs: int | None, ours: int | None) -> str:
    return " " if ours is None else "=" if ours == theirs else f" (ours {ours})"


def write(rows: Sequence[Row], folder: Path, *, command: str, finn: str, part: str) -> None:
    """Write every row as ``finn_check.csv`` and a summary as ``README.md``."""
    with replaced(folder / "finn_check.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    versions = ", ".join(f"{name} {version(name)}" for name in ("bitatlas", "torch", "brevitas", "qonnx", "onnx"))
    machine = f"{_processor()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    wrong = [f"- {line}" for row in rows for line in row.differences]
    lines = [
        "# Check against FINN\n",
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d} ({machine}; {finn}; {versions}).\n",
        f"Integer networks through the estimate-only steps of {finn} for {part}, matrix units forced to HLS (FINN counts no",
        "LUTs of its RTL ones), and through this project's tracing and folding model at the PE and SIMD that FINN chose for the",
        "rate. Every node is in `finn_check.csv`; `our_…` is empty where the node is no stage of a layer: the input's quantizer,",
        "pooling, the output's scale. LUTs are FINN's formula on both sides, ours with the accumulator width that FINN settled on:",
        "that they are equal says that the formula is read right, not that it is close to a synthesised design.\n",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join(["---"] * len(COLUMNS)) + " |",
        *(_summary(list(group)) for _, group in groupby(rows, lambda row: row.case)),
        "",
        *(wrong or ["Cycles, operations and parameters are equal everywhere."]),
        "",
    ]
    write_text(folder / "README.md", "\n".join(lines))


def _summary(rows: Sequence[Row]) -> str:
    """Return one line of the page's table."""
    name, weight_bits, activation_bits, rate = rows[0].case
    pairs: list[list[tuple[int | None, int | None]]] = [[(row.cycles, row.our_cycles) for row in rows]]
    pairs += [[(row.macs, row.our_macs) for row in rows]]
    pairs += [[(row.parameters, row.our_parameters) for row in rows], [(row.luts, row.our_luts) for row in rows]]
    shares = [(sum(a == b for a, b in figures if b is not None), sum(b is not None for _, b in figures)) for figures in pairs]
    slowest = max(rows, key=lambda row: row.cycles)
    cells: list[object] = [name, weight_bits, activation_bits, rate, len(rows), *(f"{a} of {b}" for a, b in shares)]
    return "| " + " | ".join(str(cell) for cell in [*cells, f"{slowest.node} ({slowest.cycles})"]) + " |"


def _processor() -> str:
    """Return the processor's name as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
