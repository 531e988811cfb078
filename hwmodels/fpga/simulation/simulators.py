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
from hwmodels.fpga.rtl.unit import MacHardware, MacUnit
from hwmodels.fpga.rtl.verilog import mac_verilog
from hwmodels.fpga.simulation.stimulus import Stimulus
from hwmodels.fpga.simulation.vectors import TESTBENCH, packed, testbench, write_vectors

SECONDS = 600


class NotEqualError(BitatlasError):
    """Hardware that does not do what the emulator does."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A passed proof."""

    simulator: str
    #: sums that were compared
    compared: int


def available() -> str:
    """Return the simulator that is taken unless one is named."""
    return "icarus" if shutil.which("iverilog") and shutil.which("vvp") else "amaranth"


def simulate(unit: MacUnit, given: Stimulus, folder: Path, simulator: str | None = None) -> Verdict:
    """Drive a unit with a stimulus in ``folder``; ``NotEqualError`` names the first difference."""
    name = simulator or available()
    if name not in SIMULATORS:
        raise unknown_name("simulator", name, SIMULATORS)
    return SIMULATORS[name](unit, given, folder)


def _icarus(unit: MacUnit, given: Stimulus, folder: Path) -> Verdict:
    """Compile and run the very Verilog that is synthesised."""
    (folder / "unit.v").write_text(mac_verilog(unit), encoding="ascii")
    (folder / TESTBENCH).write_text(testbench(unit, len(given)), encoding="ascii")
    write_vectors(folder, unit, given)
    _run(["iverilog", "-g2001", "-s", "testbench", "-o", "simulation.vvp", TESTBENCH, "unit.v"], folder, unit)
    printed = _run(["vvp", "-n", "simulation.vvp"], folder, unit)
    passed = re.search(r"^PASS (\d+)$", printed, re.M)
    if passed is None:
        first = next((line for line in printed.splitlines() if line.startswith("cycle")), printed.strip()[-300:])
        raise NotEqualError(f"{unit.name} must equal the emulator, not differ: {first}")
    return _checked(unit, given, Verdict(simulator="icarus", compared=int(passed[1])))


def _run(command: list[str], folder: Path, unit: MacUnit) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        raise BitatlasError(f"{command[0]} must be installed (Debian: iverilog), or take the simulator amaranth") from None
    except subprocess.TimeoutExpired:
        raise BitatlasError(f"simulation of {unit.name} must end within {SECONDS} s, not go on") from None
    if done.returncode != 0:
        raise BitatlasError(f"{command[0]} must accept {unit.name}, not fail: {(done.stderr or done.stdout).strip()[:300]}")
    return done.stdout


def _amaranth(unit: MacUnit, given: Stimulus, folder: Path) -> Verdict:
    """Run the design itself in Python; ``folder`` stays empty."""
    from amaranth.sim import Simulator

    del folder
    hardware = MacHardware(unit)
    weights = [int(word, 16) for word in packed(given.weights, unit.weight.bits)]
    activations = [int(word, 16) for word in packed(given.activations, unit.activation.bits)]
    outputs = [hardware.sum] if hardware.sum_odd is None else [hardware.sum, hardware.sum_odd]
    compared = 0

    async def bench(context: object) -> None:
        nonlocal compared
        ctx: Any = context
        for cycle in range(len(given)):
            ctx.set(hardware.weights, weights[cycle])
            ctx.set(hardware.activations, activations[cycle])
            ctx.set(hardware.enable, int(given.enable[cycle]))
            ctx.set(hardware.first, int(given.first[cycle]))
            await ctx.tick()
            if given.check[cycle]:
                compared += 1
                found = [int(ctx.get(output)) for output in outputs]
                wanted = [int(sums[cycle]) for sums in given.expected]
                if found != wanted:
                    raise NotEqualError(
                        f"{unit.name} must equal the emulator, not differ: cycle {cycle}: sums {found}, not {wanted}"
                    )

    simulator = Simulator(hardware)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return _checked(unit, given, Verdict(simulator="amaranth", compared=compared))


def _checked(unit: MacUnit, given: Stimulus, verdict: Verdict) -> Verdict:
    """Refuse a verdict over fewer sums than were asked for."""
    if verdict.compared != int(given.check.sum()):
        raise NotEqualError(f"{unit.name} must be compared in {int(given.check.sum())} cycles, not {verdict.compared}")
    return verdict


SIMULATORS: dict[str, Callable[[MacUnit, Stimulus, Path], Verdict]] = {"icarus": _icarus, "amaranth": _amaranth}
