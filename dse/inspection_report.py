"""``dse inspect``: the quantization error of every layer as a table and a figure."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dse import cost_table, inspection
from dse.inspection import LayerError
from dse.opening import open_assignment
from formats.errors import InvalidValueError
from hwmodels.files import replaced, write_text

SERIES = (
    ("weight_sqnr", "weight", "#1f5fa8"),
    ("activation_sqnr", "activation", "#d9822b"),
    ("output_sqnr", "output, layer alone", "#5a9e4b"),
    ("network_sqnr", "output in the network", "#c0223b"),
)
SHARES = (
    ("weight_zeros", "weight zeros", "#8fb3dc"),
    ("activation_zeros", "activation zeros", "#efc08c"),
    ("weight_clipped", "weight clipped", "#1f5fa8"),
    ("activation_clipped", "activation clipped", "#d9822b"),
)


def run(options: argparse.Namespace) -> None:
    """Print the table; with ``--out`` write it and the figure."""
    if options.samples < 1:
        raise InvalidValueError(f"--samples must be at least 1, not {options.samples}")
    experiment, assignment = open_assignment(options)
    images = experiment.split("validation").images[: options.samples]
    errors = inspection.inspect(experiment.preparation, assignment, images)
    frame = inspection.table(errors, assignment)
    print(cost_table.text(frame.round(dict.fromkeys(frame.columns[4:], 4))))
    title = f"{assignment.model} on {assignment.data}, {len(images)} validation samples"
    print(f"\n{title}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "inspection.csv", frame.to_csv(index=False))
        write_figure(options.out / "inspection.png", errors, title)
        print(f"wrote {options.out / 'inspection.csv'} and {options.out / 'inspection.png'}")


def write_figure(path: Path, errors: Sequence[LayerError], title: str) -> None:
    """Draw the ratios of every layer as points, and the shares of zeros and clipped values as bars below them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.55 * len(errors) + 2.5), 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    ratios, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = np.arange(len(errors))
    for name, label, colour in SERIES:
        values = np.array([getattr(error, name) for error in errors])
        ratios.plot(x, np.where(np.isfinite(values), values, np.nan), "o-", color=colour, label=label, linewidth=1, markersize=5)
    ratios.set_ylabel("signal to quantization noise [dB]")
    ratios.legend(fontsize=8)
    width = 0.8 / len(SHARES)
    for number, (name, label, colour) in enumerate(SHARES):
        shares.bar(x + (number - 1.5) * width, [getattr(error, name) for error in errors], width, color=colour, label=label)
    shares.set_ylabel("share of values")
    shares.margins(y=0.3)
    shares.legend(fontsize=8, ncols=len(SHARES), loc="upper center")
    shares.set_xticks(x, [error.layer for error in errors], rotation=60, ha="right", fontsize=8)
    for axes in (ratios, shares):
        axes.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)
    figure.suptitle(title, fontsize=11)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Software": "bitatlas"})
