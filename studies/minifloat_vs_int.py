"""Minifloats against integers of the same width, after every post-training step: accuracy against memory and against LUTs.

The question of "Shedding the Bits" (Aggarwal et al., arXiv 2311.12359) on a residual network, a depthwise one and a vision
transformer: weights and activations of 3 to 8 bits, the integer and every split of a minifloat, each step on and off. What was
measured is looked up, so a run that was cut off goes on where it was.
"""

import argparse
import time
from pathlib import Path

from hwmodels.files import write_text
from studies import command, minifloat_vs_int_figures, provenance
from studies.minifloat_vs_int_data import FULL, QUICK, Scope, measured
from studies.minifloat_vs_int_page import page

COMMAND = "python -m studies.minifloat_vs_int"
REPORT = Path("reports/minifloat_vs_int")
QUICK_REPORT = Path("results/minifloat_vs_int")


def report(scope: Scope, out: Path, made: str) -> None:
    """Measure, and write tables, pictures and the page into a folder."""
    lines, floats = measured(scope)
    write_text(out / "minifloat_vs_int.csv", lines.round(6).to_csv(index=False))
    for model in scope.models:
        minifloat_vs_int_figures.write_fronts(out / f"{model}.png", lines[lines["model"] == model], floats[model])
    minifloat_vs_int_figures.write_widths(out / "widths.png", lines, floats)
    write_text(out / "README.md", page(scope, lines, floats, made))


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="digits, three widths, no learned rounding")
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick {QUICK_REPORT})")
    options = parser.parse_args(arguments)
    out = options.out or (QUICK_REPORT if options.quick else REPORT)
    began = time.monotonic()
    report(QUICK if options.quick else FULL, out, provenance.lines(COMMAND + " --quick" * options.quick))
    print(f"report in {out}; {time.monotonic() - began:.0f} s, peak memory {provenance.peak_memory_mebibytes():.0f} MiB")


if __name__ == "__main__":
    command.run(main)
