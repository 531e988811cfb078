"""``dse rtl``: a generated multiply-accumulate unit, proved equal to the emulator, in a folder of its own."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats import registry
from formats.arithmetic.accumulator import Accumulator
from formats.errors import BitatlasError, InvalidValueError, require
from formats.format import Format
from formats.names import unknown_name
from hwmodels.files import replaced_folder

if TYPE_CHECKING:
    from hwmodels.fpga.rtl.requantizer.specification import Requantizer
    from hwmodels.fpga.rtl.unit import MacUnit

README, REQUANTIZER = "README.md", "requantizer"
#: what a folder made by this command may hold, beside files of vectors
OWN = (README, REQUANTIZER, "unit.v", "testbench.v", "simulation.vvp")
REQUANTIZERS = ("search", "thresholds", "normalise", "shift", "multiplier-single", "multiplier-double")


def run(options: argparse.Namespace) -> None:
    """Write the unit that the options name, and its requantizer where an output format is given; both are proved first."""
    require("amaranth", "dse rtl", extra="fpga")
    from dse import rtl_page
    from hwmodels.fpga.simulation.requantizer_stimulus import requantizer_stimulus
    from hwmodels.fpga.simulation.stimulus import stimulus

    unit = unit_of(options)
    requantizer = requantizer_of(unit, options.output, options.requantizer)
    with replaced_folder(options.out, _refuse_others) as folder:
        proofs = [prove(unit, stimulus(unit), folder)]
        if requantizer is not None:
            (folder / REQUANTIZER).mkdir()
            proofs.append(prove(requantizer, requantizer_stimulus(requantizer), folder / REQUANTIZER))
        (folder / README).write_text(rtl_page.page(unit, requantizer, proofs, folder), encoding="utf-8")
    for design, proof in zip((unit, requantizer), proofs, strict=False):
        assert design is not None
        print(f"{design.name}: {proof.compared} cycles equal to the emulator by {proof.simulator}")
    print(f"wrote {options.out}")


def unit_of(options: argparse.Namespace) -> "MacUnit":
    """Return the unit that ``weight``, ``activation``, ``accumulator``, ``dot_length``, ``lanes`` and ``recipe`` stand for."""
    from hwmodels.fpga.rtl.operand import read
    from hwmodels.fpga.rtl.recipes import RECIPES, dsp_recipes, fabric_recipes
    from hwmodels.fpga.rtl.unit import MacUnit

    weight, activation = registry.scalar(options.weight), registry.scalar(options.activation)
    readings = read(weight), read(activation)
    fitting = dict.fromkeys(recipe.name for recipe in (*fabric_recipes(*readings), *dsp_recipes(*readings)))
    name = options.recipe or best_recipe(weight, activation, options.lanes, options.dot_length) or next(iter(fitting))
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    if name not in fitting:
        raise InvalidValueError(f"recipe of {weight.name} x {activation.name} must be one of {', '.join(fitting)}, not {name}")
    return MacUnit(
        weight=weight,
        activation=activation,
        accumulator=Accumulator.parse(options.accumulator),
        dot_length=options.dot_length,
        lanes=options.lanes,
        recipe=RECIPES[name],
    )


def best_recipe(weight: Format, activation: Format, lanes: int, dot_length: int) -> str | None:
    """Return the recipe of fewest LUTs by the table, None where the table has no such pair."""
    from hwmodels.fpga import mac_model

    model = mac_model.model()
    if not model.holds(weight, activation) or lanes < 1 or dot_length < 1:
        return None
    return model.price(weight, activation, lanes=lanes, dot_length=dot_length, dsp=False).recipe


def requantizer_of(unit: "MacUnit", output: str | None, kind: str | None) -> "Requantizer | None":
    """Return the requantizer from the unit's accumulator to a format; None without one.

    Raises ``ValueError`` for a unit with two sums, which no one number stands for before they are joined.
    """
    if output is None:
        if kind is not None:
            raise InvalidValueError(f"requantizer must have an output format, not {kind} alone: name one by --output")
        return None
    from hwmodels.fpga.rtl.requantizer.multiplier import MultiplierRequantizer
    from hwmodels.fpga.rtl.requantizer.normalise import NormaliseRequantizer
    from hwmodels.fpga.rtl.requantizer.shift import ShiftRequantizer
    from hwmodels.fpga.rtl.requantizer.thresholds import SearchRequantizer, ThresholdRequantizer

    if unit.has_root:
        raise InvalidValueError(
            f"accumulator of a requantizer must be one number, not the two of {unit.weight.name} x {unit.activation.name}"
        )
    given: dict[str, Any] = {"accumulator_bits": unit.accumulator_bits, "output": registry.scalar(output)}
    if kind in (None, "search"):
        return SearchRequantizer(**given)
    if kind == "thresholds":
        return ThresholdRequantizer(**given)
    if kind == "normalise":
        return NormaliseRequantizer(**given, lsb_exponent=sum(reading.lsb_exponent for reading in unit.readings))
    if kind == "shift":
        return ShiftRequantizer(**given, shifts=(0, unit.accumulator_bits - 1))
    if kind in REQUANTIZERS:
        return MultiplierRequantizer(**given, variant=str(kind).removeprefix("multiplier-"))
    raise unknown_name("requantizer", str(kind), REQUANTIZERS)


def prove(design: Any, given: Any, folder: Path) -> Any:
    """Prove a design in ``folder`` and leave its Verilog, test bench and vectors there, whichever simulator there is."""
    from hwmodels.fpga.simulation.simulators import simulate, write_files

    verdict = simulate(design, given, folder)
    if verdict.simulator != "icarus":
        write_files(design, given, folder)
    return verdict


def _refuse_others(path: Path) -> None:
    """Raise where there are things in a folder that this command has not written."""
    others = sorted(entry.name for entry in path.iterdir() if not _is_own(entry.name))
    if others:
        raise BitatlasError(f"output folder must be empty or hold an earlier unit alone, not {others[0]}: {path}")


def _is_own(name: str) -> bool:
    return name in OWN or name.endswith(".hex")
