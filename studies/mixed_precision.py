"""What a search finds beyond uniform assignments: with and without mixed formats, with and without post-training steps.

Four searches for each of three networks. The uniform assignments are all measured, without steps and after every row of them; the
others are searched by the sampler ``front``. Ledgers are kept under ``results/`` and measurements are looked up, so a run that was
cut off goes on where it was.
"""

import argparse
import time
from pathlib import Path

from hwmodels.files import write_text
from studies import command, mixed_precision_data, mixed_precision_figures, provenance
from studies.mixed_precision_data import FULL, QUICK
from studies.mixed_precision_page import page, table

COMMAND = "python -m studies.mixed_precision"
REPORT = Path("reports/mixed_precision")
RESULTS = Path("results/mixed_precision")


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="digits, fewer formats and trials")
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick under {RESULTS})")
    options = parser.parse_args(arguments)
    out = options.out or (RESULTS / "quick-report" if options.quick else REPORT)
    scope = QUICK if options.quick else FULL
    began = time.monotonic()
    networks = [mixed_precision_data.found(scope, model, RESULTS) for model in scope.models]
    write_text(out / "mixed_precision.csv", table(networks).to_csv(index=False))
    mixed_precision_figures.write_fronts(out / "fronts.png", networks)
    for network in networks:
        for variant in mixed_precision_data.VARIANTS:
            chosen = network.chosen[variant.name]
            if chosen is not None:
                chosen.point.assignment.write(out / "assignments" / f"{network.model}-{variant.slug}.json")
    write_text(out / "README.md", page(scope, networks, provenance.lines(COMMAND + " --quick" * options.quick)))
    print(f"report in {out}; {time.monotonic() - began:.0f} s, peak memory {provenance.peak_memory_mebibytes():.0f} MiB")


if __name__ == "__main__":
    command.run(main)
