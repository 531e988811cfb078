"""The main job at the size of a first look: which format for which layer of a small residual network?

Searches number formats for every weight and every activation of resnet8 on handwritten digits, scored by divergence from the
float network and by the look-up tables of a pipeline on a small FPGA; leaves the front, its picture, and the chosen model as ONNX.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from dse import verdict
from dse.objectives import available
from dse.ptq import steps as stepping
from dse.report import table
from dse.results import code_version
from dse.searching import SearchResult, search
from dse.settings import SearchSettings
from hwmodels.files import write_text
from studies import command, provenance

COMMAND = "python -m studies.quickstart"
REPORT = Path("reports/quickstart")
RESULTS = Path("results/quickstart")  # the search's ledger; not part of the report
FORMATS = ("int4", "int8", "e2m1", "e3m2", "pot4", "post4", "ternary")
#: rows of post-training steps to choose from for every weight
STEPS = ("none", "gptq+correct_bias")
DEVICE, FPS = "zynq7020", 50_000
WHERE = f"{DEVICE} at {FPS:,} samples a second"
COPIED = ("trials.csv", "front.csv", "front.png", "history.png", "formats.png", "sensitivity.png", "chosen.json", "model.onnx")


def settings(*, quick: bool, folder: Path) -> SearchSettings:
    """Return what is searched; ``quick`` takes fewer trials."""
    return SearchSettings(
        model="resnet8",
        data="digits",
        formats=FORMATS,
        objectives=("kl", "lut"),
        layer_steps=STEPS,
        device=DEVICE,
        fps=FPS,
        trials=60 if quick else 300,
        choose="accuracy>=0.97",
        out=str(folder),
    )


def report(result: SearchResult, seconds: float) -> str:
    """Return the report's text."""
    experiment, found, chosen = result.experiment, result.outcome, result.chosen
    headers = {name: objective.header for name, objective in available(experiment.cost_models).items()}
    front = table(found.front_trials, found, headers)[["trial", "origin", *headers.values()]].drop(columns=headers["scale_bits"])
    mixed = [trial for trial in found.front_trials if not trial.uniform]
    layers = pd.DataFrame(
        [
            {"layer": name, "weight": str(layer.weight), "activation": str(layer.activation), "steps": stepping.row(layer.steps)}
            for name, layer in chosen.assignment.layers.items()
        ]
    )
    test, float_test = experiment.measure(chosen.assignment, "test"), experiment.float_figures("test")
    return "\n".join(
        [
            "# Quickstart: resnet8 on digits",
            "",
            provenance.lines(COMMAND),
            f"{len(found.trials)} trials in {seconds:.0f} s; {len(found.front)} points on the front, "
            f"of which {len(mixed)} mix formats and {len(found.front) - len(mixed)} are uniform.",
            "",
            "![Accuracy and divergence against LUTs](front.png)",
            "",
            *(f"- {line}" for line in verdict.lines(verdict.judge(found, chosen))),
            "",
            "![Hypervolume against evaluations](history.png)",
            "",
            f"**Chosen**: trial {chosen.number} ({chosen.origin}), the cheapest point of the front with at least 0.97 accuracy "
            f"on the validation split. Accuracy on the {len(experiment.split('test'))} test images, which the search never saw: "
            f"{test.accuracy:.4f} (float32: {float_test.accuracy:.4f}).",
            "",
            f"**ONNX**: `model.onnx` run by onnxruntime over the validation split: {result.agreement}.",
            "",
            "## The front",
            "",
            provenance.markdown(front),
            "",
            "## The chosen assignment",
            "",
            "![Formats of every layer along the front](formats.png)",
            "",
            provenance.markdown(layers),
            "",
            f"LUTs are those of a pipeline on a {WHERE}, every layer folded for that rate anew. Units and requantizers as Yosys "
            "maps them, or predicted by a model fitted to those that it mapped; memories, windows and control by formula "
            "(`dse cost` says which for each layer). Nothing was placed or routed.",
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 trials in place of 300")
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick under {RESULTS})")
    options = parser.parse_args(arguments)
    options.out = options.out or (RESULTS / "quick-report" if options.quick else REPORT)
    # results of other code do not mix with this one's: each version of the code has a ledger of its own
    folder = RESULTS / f"{'quick' if options.quick else 'full'}-{code_version()[:8]}"
    began = time.monotonic()
    result = search(settings(quick=options.quick, folder=folder))
    for name in COPIED:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / name).write_bytes((folder / name).read_bytes())
    write_text(options.out / "README.md", report(result, time.monotonic() - began))
    print(f"report in {options.out}; peak memory {provenance.peak_memory_mebibytes():.0f} MiB")


if __name__ == "__main__":
    command.run(main)
