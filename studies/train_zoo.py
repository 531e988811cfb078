"""Train the networks of the zoo and ship their weights with a table of measured float accuracy.

Answers: how accurate is each shipped float network, on images that neither training nor any search has seen?
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from dse import data
from dse.data import Dataset
from dse.models import weights_file, zoo
from formats import InvalidValueError
from hwmodels.files import replaced, write_text
from studies import command, provenance
from studies.training import Epoch, Recipe, accuracy, train

COMMAND = "python -m studies.train_zoo"
REPORT = Path("reports/train_zoo")

RECIPES = {
    ("resnet8", "digits"): Recipe(epochs=60, peak_learning_rate=4e-3, batch=50, shift=1, flip=False, bfloat16=False),
    ("mobilenet", "digits"): Recipe(epochs=60, peak_learning_rate=4e-3, batch=50, shift=1, flip=False, bfloat16=False),
    ("vit", "digits"): Recipe(epochs=120, peak_learning_rate=2e-3, batch=50, shift=1, flip=False, bfloat16=False),
    ("resnet8", "fashion-mnist"): Recipe(epochs=22, peak_learning_rate=4e-3),
    ("mobilenet", "fashion-mnist"): Recipe(epochs=16, peak_learning_rate=4e-3),
    ("vit", "fashion-mnist"): Recipe(epochs=20, peak_learning_rate=2e-3, bfloat16=False),
}


def train_one(model: str, dataset: Dataset, recipe: Recipe, out: Path, weights: Path) -> tuple[dict[str, object], list[Epoch]]:
    """Train one network, write its weights into ``weights`` and return its row of the table and its learning curve."""
    module = zoo.build(model, dataset, seed=recipe.seed)
    label = f"{model}-{dataset.name}"

    def report(epoch: Epoch) -> None:
        tqdm.write(f"{label} epoch {epoch.number}: loss {epoch.loss:.4f} nat, validation accuracy {epoch.validation_accuracy:.4f}")

    history = train(module, dataset, recipe, out / "checkpoints" / f"{label}.pt", report)
    row: dict[str, object] = {
        "model": model,
        "data": dataset.name,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "validation_accuracy": round(accuracy(module, dataset.validation), 4),
        "test_accuracy": round(accuracy(module, dataset.test), 4),
        "test_samples": len(dataset.test),
    }
    weights_file.save(module, weights / f"{label}.safetensors", {key: str(value) for key, value in row.items()})
    return row, history


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    made.add_argument(
        "--quick", action="store_true", help="two epochs of everything, weights under --out: a check that training runs"
    )
    where = f"{REPORT}, with --quick results/train_zoo"
    made.add_argument("--out", type=Path, help=f"folder of the report and of the checkpoints (default: {where})")
    made.add_argument(
        "--weights", type=Path, help="folder of the trained weights (default: the package's own; with --quick under --out)"
    )
    made.add_argument("--only", action="append", metavar="MODEL-DATA", help="train this network only; may be repeated")
    made.add_argument("--data-dir", type=Path, help="folder with the IDX files of Fashion-MNIST")
    made.add_argument(
        "--threads", type=int, default=1, help="threads for training; the result depends on it (default: %(default)s)"
    )
    return made


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    options = parser().parse_args(arguments)
    if options.threads < 1:
        raise InvalidValueError(f"--threads must be at least 1, not {options.threads}")
    torch.set_num_threads(options.threads)
    options.out = options.out or (Path("results/train_zoo") if options.quick else REPORT)
    weights = options.weights or (options.out / "weights" if options.quick else zoo.WEIGHTS_FOLDER)
    labels = [f"{model}-{name}" for model, name in RECIPES]
    unknown = sorted(set(options.only or ()) - set(labels))
    if unknown:
        raise InvalidValueError(f"--only must be one of {', '.join(labels)}, not {unknown[0]}")
    table = options.out / "accuracy.csv"
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    for (model, name), recipe in RECIPES.items():
        if options.only and f"{model}-{name}" not in options.only:
            continue
        dataset = data.load(name, options.data_dir)
        row, history = train_one(model, dataset, replace(recipe, epochs=2) if options.quick else recipe, options.out, weights)
        rows = [old for old in rows if (old["model"], old["data"]) != (model, name)] + [row]
        write_tables(options.out, rows, f"{model}-{name}", history)
        print(pd.DataFrame([row]).to_string(index=False))
    write_text(weights / "accuracy.csv", pd.DataFrame(rows).to_csv(index=False))
    write_report(options.out, pd.DataFrame(rows))


def write_tables(out: Path, rows: list[dict[str, object]], label: str, history: list[Epoch]) -> None:
    """Write the accuracy table so far and one network's learning curve."""
    write_text(out / "accuracy.csv", pd.DataFrame(rows).to_csv(index=False))
    curve = pd.DataFrame([vars(epoch) for epoch in history]).rename(columns={"loss": "loss [nat]"})
    write_text(out / "curves" / f"{label}.csv", curve.to_csv(index=False))


def write_report(out: Path, rows: pd.DataFrame) -> None:
    """Write the learning curves as a picture and the table as a page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("digits", "fashion-mnist"), strict=True):
        for path in sorted((out / "curves").glob(f"*-{name}.csv")):
            curve = pd.read_csv(path)
            axes.plot(curve["number"], curve["validation_accuracy"], label=path.stem.removesuffix(f"-{name}"))
        axes.set(title=name, xlabel="epoch", ylabel="accuracy on validation [share]")
        axes.set_ylim(0.95 if name == "digits" else 0.75, 1.0)
        axes.grid(visible=True, linewidth=0.4)
        if axes.lines:
            axes.legend()
    with replaced(out / "curves.png") as temporary:
        figure.savefig(temporary, dpi=110)
    page = [
        "# The zoo's float networks",
        "",
        provenance.lines(COMMAND),
        "Accuracy is the share of right predictions in float32; `test_accuracy` is on images that neither training nor any",
        "search sees. Recipes are in `studies/train_zoo.py`; an interrupted run goes on after its last epoch.",
        "",
        provenance.markdown(rows),
        "",
        "![Validation accuracy by epoch](curves.png)",
        "",
    ]
    write_text(out / "README.md", "\n".join(page))


if __name__ == "__main__":
    command.run(main)
