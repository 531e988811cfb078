"""The simulators: Icarus Verilog where it is installed, Amaranth's own where not."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.errors import BitatlasError
from formats.names import unknown_name
from hwmodels.fpga.rtl.design import Design
from hwmodels.fpga.rtl.verilog import hardware_text
from hwmodels.fpga.simulation.vectors import TESTBENCH, Stimulus, input_words, testbench, write_vectors

SECONDS = 600
#: file of the design itself
UNIT = "unit.v"
COMPILED = "simulation.vvp"
COMPILE, EXECUTE = ("iverilog", "-g2001", "-s", "testbench"), ("vvp", "-n")


class NotEqualError(BitatlasError):
    """Hardware that does not do what the emulator does."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A passed proof."""

    simulator: str
    #: cycles whose outputs were compared
    compared: int


def available() -> str:
    """Return the simulator that is taken unless one is named."""
    return "icarus" if shutil.which("iverilog") and shutil.which("vvp") else "amaranth"


def simulate(design: Design, given: Stimulus, folder: Path, simulator: str | None = None) -> Verdict:
    """Drive a design with a stimulus in ``folder``; ``NotEqualError`` names the first difference."""
    name = simulator or available()
    if name not in SIMULATORS:
        raise unknown_name("simulator", name, SIMULATORS)
    return SIMULATORS[name](design, given, folder)


def write_files(design: Design, given: Stimulus, folder: Path) -> None:
    """Write the design as Verilog, its test bench, and the files of vectors that this reads."""
    hardware = design.hardware()
    write_vectors(folder, hardware, given)
    (folder / TESTBENCH).write_text(testbench(design.name, hardware, len(given)), encoding="ascii")
    (folder / UNIT).write_text(hardware_text(design.name, hardware), encoding="ascii")


def _icarus(design: Design, given: Stimulus, folder: Path) -> Verdict:
    """Compile and run the very Verilog that is synthesised."""
    write_files(design, given, folder)
    _run([*COMPILE, "-o", COMPILED, TESTBENCH, UNIT], folder, design)
    printed = _run([*EXECUTE, COMPILED], folder, design)
    (folder / COMPILED).unlink()
    passed = re.search(r"^PASS (\d+)$", printed, re.M)
    if passed is None:
        first = next((line for line in printed.splitlines() if line.startswith("cycle")), printed.strip()[-300:])
        raise NotEqualError(f"{design.name} must equal the emulator, not differ: {first}")
    return _checked(design, given, Verdict(simulator="icarus", compared=int(passed[1])))


def _run(command: list[str], folder: Path, design: Design) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        raise BitatlasError(f"{command[0]} must be installed (Debian: iverilog), or take the simulator amaranth") from None
    except subprocess.TimeoutExpired:
        raise BitatlasError(f"simulation of {design.name} must end within {SECONDS} s, not go on") from None
    if done.returncode != 0:
        raise BitatlasError(f"{command[0]} must accept {design.name}, not fail: {(done.stderr or done.stdout).strip()[:300]}")
    return done.stdout


def _amaranth(design: Design, given: Stimulus, folder: Path) -> Verdict:
    """Run the design itself in Python; ``folder`` stays empty."""
    from amaranth.sim import Simulator

    del folder
    hardware = design.hardware()
    words = input_words(hardware, given)
    compared = 0

    async def bench(context: object) -> None:
        nonlocal compared
        ctx: Any = context
        for cycle in range(len(given)):
            for port in hardware.inputs:
                ctx.set(port.as_unsigned(), int(words[port.name][cycle], 16))
            await ctx.tick()
            if given.check[cycle]:
                compared += 1
                for port in hardware.outputs:
                    found, wanted = int(ctx.get(port.as_unsigned())), int(given.expected[port.name][cycle]) % 2 ** len(port)
                    if found != wanted:
                        what = f"cycle {cycle}: {port.name} {found:x}, not {wanted:x}"
                        raise NotEqualError(f"{design.name} must equal the emulator, not differ: {what}")

    simulator = Simulator(hardware)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return _checked(design, given, Verdict(simulator="amaranth", compared=compared))


def _checked(design: Design, given: Stimulus, verdict: Verdict) -> Verdict:
    """Refuse a verdict over fewer cycles than were asked for."""
    if verdict.compared != int(given.check.sum()):
        raise NotEqualError(f"{design.name} must be compared in {int(given.check.sum())} cycles, not {verdict.compared}")
    return verdict


SIMULATORS: dict[str, Callable[[Design, Stimulus, Path], Verdict]] = {"icarus": _icarus, "amaranth": _amaranth}
