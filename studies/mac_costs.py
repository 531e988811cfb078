"""Compare what multiply-accumulates of all formats cost on an FPGA, by synthesis, by formulas and by the fitted model.

Reads the table of synthesised units that ships with the project, so it synthesises nothing itself.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import pandas as pd

from formats.errors import BitatlasError
from hwmodels.files import write_text
from hwmodels.fpga import mac_model
from hwmodels.fpga.requantizer_model import requantizer_price
from hwmodels.fpga.synthesis.calibration import shipped_pairs
from hwmodels.fpga.synthesis.table import SHIPPED, Table
from studies import command, mac_costs_figures, provenance
from studies.mac_costs_data import PAIR, beyond, comparison, pairs, recipes, same_size, slices, weights_alone, whole_table
from studies.mac_costs_page import findings, page

COMMAND = "python -m studies.mac_costs"
REPORT = Path("reports/mac_costs")
QUICK_REPORT = Path("results/mac_costs")
#: pairs of a quick run, spread over the table
QUICK_PAIRS = 60
#: pairs from which there is something to compare
FEWEST_PAIRS = 20


def thinned(table: Table, count: int) -> Table:
    """Return a table with about ``count`` of its pairs."""
    names = table.rows[PAIR].drop_duplicates()
    kept = names.iloc[:: max(1, -(-len(names) // count))]
    return Table(tool=table.tool, rows=table.rows.merge(kept, on=PAIR).reset_index(drop=True))


def coverage(table: Table) -> str:
    """Return how many of the pairs that the table is to hold are there, and by which tool."""
    there = set(table.rows[PAIR].itertuples(index=False, name=None))
    wanted = [(pair.weight, pair.activation) for pair in shipped_pairs()]
    missing = [pair for pair in wanted if pair not in there]
    text = (
        f"The table is by {table.tool}: {len(table.rows)} units of {len(there)} pairs of formats, "
        f"{len(wanted) - len(missing)} of the {len(wanted)} that it is to hold."
    )
    return f"{text} **{len(missing)} are missing**, so figures are of those that are there." if missing else text


def report(table: Table, out: Path, made: str, source: str) -> None:
    """Write the report on a table, of which ``source`` tells, into a folder."""
    model = mac_model.MacModel(table=table)
    found = len(whole_table(table.rows)[PAIR].drop_duplicates())
    if found < FEWEST_PAIRS:
        raise BitatlasError(f"table must hold {FEWEST_PAIRS} pairs of formats or more, not {found}")
    lines = pairs(table.rows)
    tables = {
        "compared": pd.concat([comparison(lines), beyond(table.rows)], ignore_index=True),
        "recipes": recipes(table.rows, lines),
        "same": same_size(model, requantizer_price),
        "alone": weights_alone(lines),
        "dsp": slices(table.rows),
    }
    told = findings(lines, *(tables[name] for name in ("compared", "recipes", "same", "alone", "dsp")))
    write_text(out / "mac_costs.csv", lines.round(2).to_csv(index=False))
    figures = mac_costs_figures
    figures.save(out / "bits.png", partial(figures.against_bits, lines=lines), (12, 9))
    figures.save(out / "pairs.png", partial(figures.heat_map, lines=lines), (13, 13))
    figures.save(out / "estimates.png", partial(figures.estimates, lines=lines), (16, 4.6))
    figures.save(out / "minifloats.png", partial(figures.minifloats, found=tables["same"]), (12, 6))
    write_text(out / "README.md", page(made, source, tables, told))


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"about {QUICK_PAIRS} pairs of the table")
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick {QUICK_REPORT})")
    parser.add_argument("--table", type=Path, default=SHIPPED, help="table of synthesised units (default: the one shipped)")
    options = parser.parse_args(arguments)
    out = options.out or (QUICK_REPORT if options.quick else REPORT)
    began = time.monotonic()
    table = mac_model.model(options.table).table
    given = [" --quick"] * options.quick + [f" --table {options.table.name}"] * (options.table != SHIPPED)
    made = provenance.lines("".join((COMMAND, *given)))
    used, source = table, coverage(table)
    if options.quick:
        used = thinned(table, QUICK_PAIRS)
        source += f" This run took {len(used.rows[PAIR].drop_duplicates())} of the pairs."
    report(used, out, made, source)
    print(f"report in {out}; {time.monotonic() - began:.0f} s, peak memory {provenance.peak_memory_mebibytes():.0f} MiB")


if __name__ == "__main__":
    command.run(main)
