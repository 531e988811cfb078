"""What low-bit formats are worth on a GPU: speed-up over bfloat16 against rows, where it ends, and how well times are predicted.

Built from the tables of timings under ``hwmodels/gpu/tables/``, which ``dse calibrate gpu`` makes on a machine with a GPU. Without
one it says so, and gives what rooflines allow at most and what compiled kernels have to issue at least.
"""

import argparse
from pathlib import Path

import pandas as pd

from hwmodels.files import write_text
from hwmodels.gpu import devices
from studies import command, gpu_kernels_data, gpu_kernels_figures, gpu_kernels_issue, provenance
from studies.gpu_kernels_data import Measured

COMMAND = "python -m studies.gpu_kernels"
REPORT = Path("reports/gpu_kernels")
RESULTS = Path("results/gpu_kernels")


def page(tables: list[Measured], bounds: pd.DataFrame, issued: list[str], out: Path, made_by: str) -> str:
    """Return the report's text; tables and figures of devices are written on the way."""
    lines = ["# Low-bit formats on GPUs", "", made_by]
    if not tables:
        lines += [
            "**No table of timings is there yet**: `dse calibrate gpu --out hwmodels/gpu/tables`, run on a machine with one of "
            f"{', '.join(devices.names())}, makes it. All that follows is what data sheets allow and what compiled kernels have to "
            "issue; nothing here was measured.",
            "",
        ]
    for found in tables:
        lines += _measured(found, out)
    lines += [
        "## What data sheets allow at most",
        "",
        "Time of a bfloat16 product over that of each kind, both by roofline (operations at the peak rate or bytes at the memory's,"
        " whichever takes longer), for weights of 4096 x 4096 and the number of rows above each column. Launches, decoding and "
        "everything else that a kernel does are left out: real speed-ups are below these.",
        "",
        "![Speed-up that rooflines allow](bounds.png)",
        "",
        provenance.markdown(bounds),
        "",
        "Weights alone get smaller with most formats: a gain while the weights' bytes set the time, and none once the tensor cores "
        "do. Only what tensor cores take as it is, int8 and float8, multiplies faster. Powers of two, of its root and ternary "
        "numbers are decoded to what the tensor cores take: their use is in bytes here, in logic on an FPGA.",
        "",
        *issued,
    ]
    return "\n".join(lines)


def _measured(found: Measured, out: Path) -> list[str]:
    name = found.device.name
    table = gpu_kernels_data.speed_ups(found)
    parts = list(gpu_kernels_data.predictions(found))
    write_text(out / f"speed_ups_{name}.csv", table.to_csv(index=False))
    gpu_kernels_figures.write_speed_ups(out / f"speed_ups_{name}.png", table, found.label)
    gpu_kernels_figures.write_roofline(out / f"roofline_{name}.png", found)
    gpu_kernels_figures.write_predictions(out / f"predictions_{name}.png", parts, found.label)
    return [
        f"## {found.device.product}",
        "",
        f"Measured on {found.label}; {len(found.frame)} timings.",
        "",
        f"![Speed-up over bfloat16 against rows](speed_ups_{name}.png)",
        "",
        provenance.markdown(gpu_kernels_data.crossovers(table)),
        "",
        f"![Achieved rates under the roofline](roofline_{name}.png)",
        "",
        "Fits of the cost model, each timing predicted by a fit to all the others of its family and weight, or of its family where "
        "those are too few; the tile is chosen on all:",
        "",
        provenance.markdown(gpu_kernels_data.errors(parts)),
        "",
        f"![Predicted against measured times](predictions_{name}.png)",
        "",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="into another folder, and compiling fewer kernels")
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick under {RESULTS})")
    options = parser.parse_args(arguments)
    out = options.out or (RESULTS / "quick-report" if options.quick else REPORT)
    bounds = pd.concat([gpu_kernels_data.bounds(devices.get(name)) for name in devices.names()], ignore_index=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "bounds.csv", bounds.to_csv(index=False))
    gpu_kernels_figures.write_bounds(out / "bounds.png", bounds)
    tables = gpu_kernels_data.measured()
    issued = gpu_kernels_issue.section(out, quick=options.quick)
    write_text(out / "README.md", page(tables, bounds, issued, out, provenance.lines(COMMAND + " --quick" * options.quick)))
    print(f"report in {out}")


if __name__ == "__main__":
    command.run(main)
