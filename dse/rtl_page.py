"""The page that lies beside generated Verilog: what it is, its ports, how it was proved, what it costs."""

import re
from collections.abc import Sequence
from pathlib import Path

from hwmodels.fpga import mac_model, requantizer_model
from hwmodels.fpga.mac_model import FIGURES
from hwmodels.fpga.rtl.requantizer.specification import Requantizer
from hwmodels.fpga.rtl.unit import MacUnit
from hwmodels.fpga.simulation.simulators import COMPILE, COMPILED, EXECUTE, UNIT, Verdict
from hwmodels.fpga.simulation.vectors import TESTBENCH

#: folder of the requantizer beside the unit
REQUANTIZER = "requantizer"
MEANINGS = {
    "clk": "clock, rising edge",
    "rst": "reads nothing: no register is reset",
    "enable": "the sum changes at this clock edge",
    "first": "the sum starts again from 0",
    "weights": "weight codes, lane 0 lowest",
    "activations": "activation codes, lane 0 lowest",
    "sum": "the accumulator, two's complement",
    "sum_odd": "accumulator of the odd powers of the square root of two: the value is sum + sum_odd * sqrt(2), in LSBs",
    "accumulator": "the number to turn into a code, two's complement",
    "thresholds": "ascending, the least one lowest; two's complement, one bit more than the accumulator",
    "multiplier": "31 bits",
    "places": "how far beyond the least shift to the right it goes",
    "code": "code of the output format",
}


def page(unit: MacUnit, requantizer: Requantizer | None, proofs: Sequence[Verdict], folder: Path) -> str:
    """Return the page as Markdown; ``proofs`` are of the unit and, where there is one, of the requantizer, both in ``folder``."""
    lsb = sum(reading.lsb_exponent for reading in unit.readings)
    length = ", which the accumulator holds exactly" if unit.accumulator.kind == "exact" else ""
    text = [
        f"# {unit.weight.name} x {unit.activation.name}",
        "",
        f"A multiply-accumulate unit of {unit.lanes} lanes: in each enabled clock cycle the products of {unit.lanes} weights "
        f"({unit.weight.name}) and activations ({unit.activation.name}) are added to the sum.",
        "",
        f"- accumulator: `{unit.accumulator}`, {unit.accumulator_bits} bits; its LSB is worth 2^{lsb} (times the scales)",
        f"- dot products: up to {unit.dot_length} elements{length}",
        f"- recipe: `{unit.recipe.name}`",
        f"- cost of its recipe: {unit_cost(unit)}",
        "",
        *ports(unit.name, (folder / UNIT).read_text(encoding="ascii")),
        "",
        *proof(proofs[0], "this folder"),
    ]
    if requantizer is not None:
        text += [
            "",
            "## Requantizer",
            "",
            f"`{REQUANTIZER}/{UNIT}` turns the accumulator into codes of {requantizer.output.name}; kind `{requantizer.kind}`.",
            f"One code a clock cycle, {requantizer.latency} clock edges after its accumulator.{_of_thresholds(requantizer)}",
            f"Cost: {requantizer_cost(requantizer)}.",
            "",
            *ports(requantizer.name, (folder / REQUANTIZER / UNIT).read_text(encoding="ascii")),
            "",
            *proof(proofs[1], f"`{REQUANTIZER}/`"),
        ]
    return "\n".join([*text, ""])


def _of_thresholds(requantizer: Requantizer) -> str:
    if requantizer.family not in ("search", "thresholds"):
        return ""
    return " The thresholds of a scale come from `hwmodels.fpga.rtl.requantizer.levels.thresholds`."


def ports(name: str, verilog: str) -> list[str]:
    """Return the module's name and a table of its ports."""
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", verilog, re.M)
    return [
        f"Module `{name}`:",
        "",
        "| port | direction | bits | meaning |",
        "|---|---|---|---|",
        *(f"| `{port}` | {kind} | {int(top or 0) + 1} | {_meaning(port)} |" for kind, top, port in found),
    ]


def _meaning(port: str) -> str:
    stage = port.rpartition("_")[2]
    if port.startswith("threshold_"):
        address = f"the one at `address_{stage}`, in the same cycle" if stage != "0" else "the middle one"
        return f"threshold of stage {stage}, two's complement: {address}"
    if port.startswith("address_"):
        return f"which of the {2 ** int(stage)} thresholds stage {stage} needs, ascending"
    return MEANINGS[port]


def proof(verdict: Verdict, where: str) -> list[str]:
    """Return how the design was proved, and how to do it again."""
    return [
        f"Equal to the emulator in {verdict.compared} compared cycles (simulator: {verdict.simulator}). Again, in {where},",
        "from which the test bench reads its vectors (`*.hex`, one word a cycle):",
        "",
        f"    {' '.join(COMPILE)} -o {COMPILED} {TESTBENCH} {UNIT}",
        f"    {' '.join(EXECUTE)} {COMPILED}",
    ]


def unit_cost(unit: MacUnit) -> str:
    """Return what the table of synthesised units says of this recipe."""
    model = mac_model.model()
    for line in model.lines.get((unit.weight.name, unit.activation.name, False), ()):
        if line.recipe == unit.recipe.name:
            bits = f"with an exact accumulator of {line.accumulator_bits} bits"
            return f"{_figures(line.at(unit.lanes))} for {unit.lanes} lanes {bits} ({model.table.tool}, xc7, without DSP slices)"
    return "not in the table of synthesised units: `dse calibrate fpga` measures it"


def requantizer_cost(requantizer: Requantizer) -> str:
    """Return what the table of synthesised requantizers says of this kind."""
    model = requantizer_model.model()
    found = model.price(requantizer.kind, requantizer.accumulator_bits, requantizer.output, dsp=False)
    if found is None:
        return "not in the table of synthesised requantizers"
    figures = _figures(tuple(float(getattr(found, name)) for name in FIGURES))
    return f"{figures}, without the memory of its parameters ({model.table.tool}, xc7, without DSP slices)"


def _figures(figures: tuple[float, ...]) -> str:
    named = dict(zip(FIGURES, figures, strict=True))
    return (
        f"{named['lut']:.0f} LUT, {named['carry4']:.0f} CARRY4, {named['flip_flops']:.0f} flip-flops, {named['arrival_ps']:.0f} ps"
    )
