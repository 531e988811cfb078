"""What becomes of searched assignments in other programs: every export target, every client, size, operators, agreement, time.

For each network of the zoo one assignment of whole numbers whose scales are powers of two, as flows for FPGAs take them, and one of
mixed formats, both found by a search on digits. FINN runs where its environment is there (``make finn-venv``).
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from dse.results import code_version
from formats.errors import require
from hwmodels.files import write_text
from studies import command, export_flows_data, provenance
from studies.mac_costs_figures import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMAND = "python -m studies.export_flows"
REPORT = Path("reports/export_flows")
RESULTS = Path("results/export_flows")
TRIALS, QUICK_TRIALS = 60, 12


def page(frame: pd.DataFrame, subjects: list[str], made_by: str) -> str:
    """Return the report's text."""
    refused = frame["result"].str.startswith("refused")
    ran = frame[~refused & ~frame["result"].str.startswith("not run")]
    shown = frame.drop(columns=["kinds", "functions"]).astype(object).fillna("")
    return "\n".join(
        [
            "# Searched assignments in the hands of other programs",
            "",
            made_by,
            f"{len(ran)} exports were run by a client of their own, {int(refused.sum())} pairs of assignment and target or client "
            "were refused beforehand, each with its reason below. *shifts*: whole numbers of 2 to 8 bits, scales powers of two, "
            "exact accumulators; *mixed*: integers, minifloats, powers of two and of its root, ternary, NF4. Both are the cheapest "
            "points of a search's front with at least 0.94 accuracy on validation.",
            "",
            "*onnxruntime* and *qonnx* run the whole validation split (300 samples); hls4ml's project is compiled by g++ and run "
            f"on {export_flows_data.SAMPLES} samples put on its input's grid; finn-plus runs its estimate-only steps, and its "
            "streamlined network is run by qonnx. Agreement is with the emulator. In whole numbers a bias is a multiple of the "
            "accumulator's LSB, which is coarse where activations have 2 bits: the searches of *mixed* did not know that.",
            "",
            provenance.markdown(shown),
            "",
            "![Size of the exported files](sizes.png)",
            "",
            "## The assignments",
            "",
            *subjects,
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="resnet8 alone, few trials")
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick under {RESULTS})")
    options = parser.parse_args(arguments)
    for package in ("qonnx", "hls4ml"):
        require(package, COMMAND, extra="flows")
    out = options.out or (RESULTS / "quick-report" if options.quick else REPORT)
    models = export_flows_data.MODELS[:1] if options.quick else export_flows_data.MODELS
    trials = QUICK_TRIALS if options.quick else TRIALS
    began = time.monotonic()
    found, named = [], []
    # results of other code do not mix with this one's
    folder = RESULTS / f"{'quick' if options.quick else 'full'}-{code_version()[:8]}"
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=2 * len(models), desc="assignments", disable=None) as bar:
        for subject in export_flows_data.subjects(models, trials, folder):
            found.extend(export_flows_data.rows(subject, Path(scratch)))
            path = out / "assignments" / f"{subject.assignment.model}-{subject.kind}.json"
            subject.assignment.write(path)
            named.append(f"- `assignments/{path.name}`: {_summary(subject)}")
            bar.update()
    frame = export_flows_data.table(found)
    write_text(out / "export_flows.csv", frame.to_csv(index=False))
    write_sizes(out / "sizes.png", frame)
    write_text(out / "README.md", page(frame, named, provenance.lines(COMMAND + " --quick" * options.quick)))
    print(f"report in {out}; {time.monotonic() - began:.0f} s, peak memory {provenance.peak_memory_mebibytes():.0f} MiB")


def write_sizes(path: Path, frame: pd.DataFrame) -> None:
    """Draw how large the files are that each target makes."""
    sizes = frame.dropna(subset=["KiB"]).drop_duplicates(["model", "assignment", "target"])
    wide = sizes.assign(name=sizes["model"] + ", " + sizes["assignment"]).pivot(index="name", columns="target", values="KiB")
    save(path, partial(_sizes, wide=wide), (9, 4))


def _sizes(figure: "Figure", wide: pd.DataFrame) -> None:
    axes = figure.subplots()
    wide.plot.bar(ax=axes, rot=15, width=0.8)
    axes.set(xlabel="", ylabel="exported file [KiB]", title="Size by target")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(title="target")


def _summary(subject: export_flows_data.Subject) -> str:
    pairs = [f"{layer.weight.format.name}/{layer.activation.format.name}" for layer in subject.assignment.layers.values()]
    counts = {pair: pairs.count(pair) for pair in dict.fromkeys(pairs)}
    return ", ".join(f"{count} {pair}" for pair, count in counts.items())


if __name__ == "__main__":
    command.run(main)
