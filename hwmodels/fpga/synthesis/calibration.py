"""Fills a table: generates, proves and synthesises the units of many pairs, resumes where it was cut off.

Every recipe of a pair is tried with few lanes; the smallest, and what comes near it, with many, so that the fixed cost of a unit
and the cost of a lane can be told apart.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn, TypeVar

import pandas as pd
from tqdm import tqdm

from formats import registry
from formats.arithmetic.accumulator import Accumulator
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.rtl.design import Design
from hwmodels.fpga.rtl.operand import read as read_format
from hwmodels.fpga.rtl.recipes import RECIPES, Recipe, dsp_recipes, fabric_recipes
from hwmodels.fpga.rtl.unit import MacUnit
from hwmodels.fpga.rtl.verilog import verilog_text
from hwmodels.fpga.simulation.simulators import Verdict, simulate
from hwmodels.fpga.simulation.stimulus import stimulus
from hwmodels.fpga.simulation.vectors import Stimulus
from hwmodels.fpga.synthesis import table as tables
from hwmodels.fpga.synthesis.cells import Cells
from hwmodels.fpga.synthesis.table import FEW_LANES, MANY_LANES, Table
from hwmodels.fpga.synthesis.yosys import Source, key, synthesise

Item = TypeVar("Item")
AnyDesign = TypeVar("AnyDesign", bound=Design)

#: length of the dot products that the accumulators of a table hold exactly
DOT_LENGTH = 1024
#: a recipe within this factor of the smallest with few lanes is tried with many
NEAR = 1.03
#: pairs that go through the synthesiser in one call
GROUP = 6

MINIFLOATS = {bits: [f"e{e}m{bits - 1 - e}" for e in range(1, bits)] for bits in (3, 4, 5, 6, 8)}
WEIGHTS = [
    *(f"int{bits}" for bits in range(2, 9)),
    *(name for bits in (3, 4, 5, 6) for name in MINIFLOATS[bits]),
    *("e2m5", "e3m4", "e4m3", "e5m2"),
    *("pot3", "pot4", "pot5", "post3", "post4", "post5", "ternary", "binary"),
]
ACTIVATIONS = [
    *("uint2", "uint3", "uint4", "uint6", "uint8", "int4", "int8"),
    *("ue2m2", "ue3m3", "ulog2_4", "ulogsqrt2_4"),  # what a search gives to operands that are never negative
    *(name for bits in (4, 6, 8) for name in MINIFLOATS[bits]),
]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Names of a weight and an activation format."""

    weight: str
    activation: str

    @property
    def formats(self) -> tuple[Format, Format]:
        """The formats themselves."""
        return registry.scalar(self.weight), registry.scalar(self.activation)

    @property
    def order(self) -> tuple[bool, int]:
        """Place in the order of work: integers first, then by about how wide a lane is."""
        w, a = (read_format(fmt) for fmt in self.formats)
        return not (w.plain and a.plain), w.magnitude_bits + a.magnitude_bits


def shipped_pairs() -> list[Pair]:
    """Return the pairs that the shipped table is to hold, in order of work."""
    pairs = [Pair(weight=w, activation=a) for w, a in product(WEIGHTS, ACTIVATIONS)]
    return sorted(pairs, key=lambda pair: pair.order)


def unit_of(pair: Pair, recipe: Recipe, lanes: int, dot_length: int = DOT_LENGTH) -> MacUnit:
    """Return the unit that the table has a row for."""
    w, a = pair.formats
    return MacUnit(weight=w, activation=a, accumulator=Accumulator.exact(), dot_length=dot_length, lanes=lanes, recipe=recipe)


def calibrate(
    path: Path, pairs: Sequence[Pair], *, known: Table | None = None, jobs: int | None = None, progress: bool = True
) -> Table:
    """Extend the table at ``path`` by the pairs that neither it nor ``known`` has.

    Every group of pairs is written as soon as it is done, so that a run that is cut off goes on where it was. Raises
    ``InvalidValueError`` where the table is by another version of the tool or where a pair cannot be built.
    """
    table = tables.read(path) if path.exists() else tables.empty()
    tables.check_tool(table, path)
    check_sources(table, path)
    for pair in pairs:
        unit_of(pair, fabric_recipes(*map(read_format, pair.formats))[0], MANY_LANES)  # what cannot be built is said at once
    missing = [pair for pair in pairs if not any(is_complete(have, pair) for have in (table, known) if have is not None)]
    groups = [missing[i : i + GROUP] for i in range(0, len(missing), GROUP)]
    with tqdm(total=len(pairs), initial=len(pairs) - len(missing), unit="pair", disable=None if progress else True) as bar:
        return written(path, table, _results(groups, jobs or os.cpu_count() or 1), bar)


def check_sources(table: Table, path: Path) -> None:
    """Refuse to extend counts of units that are no longer generated as they were: of every recipe the narrowest unit is compared.

    Raises ``InvalidValueError`` naming the unit and the file.
    """
    narrowest = table.rows.sort_values(["accumulator_bits", "lanes"], kind="stable").drop_duplicates("recipe")
    for row in narrowest.to_dict("records"):
        pair = Pair(weight=str(row["weight"]), activation=str(row["activation"]))
        unit = unit_of(pair, RECIPES[str(row["recipe"])], int(row["lanes"]), int(row["dot_length"]))
        if key(Source(name=unit.name, verilog=verilog_text(unit)), dsp=bool(row["dsp_allowed"])) != row["key"]:
            raise InvalidValueError(
                f"table must be of units as they are generated today, not of others ({unit.name}): {path}; name another file"
            )


def written(
    path: Path, table: Table, results: Iterable[tuple[Sequence[Item], list[dict[str, object]]]], bar: "tqdm[NoReturn]"
) -> Table:
    """Write the table after each group of results, so that what is done is kept."""
    for group, rows in results:
        table = tables.extended(table, rows)
        tables.write(path, table)
        bar.update(len(group))
    return table


def is_complete(table: Table, pair: Pair) -> bool:
    """Whether the table has the pair's units with many lanes, which come last."""
    rows = table.rows
    of_pair = rows[(rows["weight"] == pair.weight) & (rows["activation"] == pair.activation)]
    with_dsp = of_pair["dsp_allowed"] == 1
    wanted = [~with_dsp, with_dsp] if dsp_recipes(*map(read_format, pair.formats)) else [~with_dsp]
    return all(bool((of_pair[use]["lanes"] == MANY_LANES).any()) for use in wanted)


def _results(groups: Sequence[Sequence[Pair]], jobs: int) -> Iterator[tuple[Sequence[Pair], list[dict[str, object]]]]:
    return in_processes(groups, measure, jobs)


def in_processes(
    groups: Sequence[Sequence[Item]], work: Callable[[Sequence[Item]], list[dict[str, object]]], jobs: int
) -> Iterator[tuple[Sequence[Item], list[dict[str, object]]]]:
    """Work on groups in processes of their own, handing out the rows as they come."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = list(groups)
        running: dict[Future[list[dict[str, object]]], Sequence[Item]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    group = waiting.pop(0)
                    running[pool.submit(work, group)] = group
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        except BaseException:  # an interrupt above all: what is under way would only be thrown away
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def measure(pairs: Sequence[Pair]) -> list[dict[str, object]]:
    """Return the rows of some pairs."""
    rows: list[dict[str, object]] = []
    for dsp in (False, True):
        choose = dsp_recipes if dsp else fabric_recipes
        wanted = [(pair, recipe) for pair in pairs for recipe in choose(*map(read_format, pair.formats))]
        few = measure_units([unit_of(pair, recipe, FEW_LANES) for pair, recipe in wanted], dsp=dsp)
        best = [unit_of(pair, recipe, MANY_LANES) for pair in pairs for recipe in _near_best(pair, few)]
        rows += [*few, *measure_units(best, dsp=dsp)]
    return rows


def _near_best(pair: Pair, rows: Iterable[dict[str, object]]) -> list[Recipe]:
    """Return the recipes of a pair that are the smallest, or near it: of DSP slices first, then of LUTs."""
    own = [row for row in rows if (row["weight"], row["activation"]) == (pair.weight, pair.activation)]
    frame = pd.DataFrame(own)
    if frame.empty:
        return []
    kept = frame[frame["lut"] <= NEAR * frame["lut"].min()]
    return [RECIPES[str(name)] for name in kept["recipe"]]


def measure_units(units: Sequence[MacUnit], *, dsp: bool) -> list[dict[str, object]]:
    """Prove the units equal to the emulator, then synthesise them: no count without a proof of that very source."""
    rows = []
    for unit, (proof, cells) in zip(units, measured(units, stimulus, dsp=dsp), strict=True):
        identity: dict[str, object] = {
            "weight": unit.weight.name,
            "activation": unit.activation.name,
            "lanes": unit.lanes,
            "recipe": unit.recipe.name,
            "dsp_allowed": int(dsp),
            "dot_length": unit.dot_length,
            "accumulator_bits": unit.accumulator_bits,
        }
        rows.append(tables.row(identity | proof, cells))
    return rows


def measured(
    designs: Sequence[AnyDesign], drive: Callable[[AnyDesign], Stimulus], *, dsp: bool
) -> list[tuple[dict[str, object], Cells]]:
    """Prove designs and synthesise them in one call; return for each the columns on its proof, and its cells."""
    if not designs:
        return []
    proved = [_prove(design, drive(design)) for design in designs]
    sources = [Source(name=design.name, verilog=verilog_text(design)) for design in designs]
    cells = synthesise(sources, dsp=dsp)
    proofs: list[dict[str, object]] = [
        {"compared": verdict.compared, "simulator": verdict.simulator, "key": key(source, dsp=dsp)}
        for verdict, source in zip(proved, sources, strict=True)
    ]
    return [(proof, cells[design.name]) for proof, design in zip(proofs, designs, strict=True)]


def _prove(design: Design, given: Stimulus) -> Verdict:
    with TemporaryDirectory() as folder:
        return simulate(design, given, Path(folder))
