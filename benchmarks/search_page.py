"""The report of ``benchmarks.search``: hypervolume against evaluations, as a table, a figure and a few sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dse.proposals.frame import Frame
from dse.settings import SearchSettings
from hwmodels.files import replaced, write_text
from studies import provenance

#: numbers of evaluations in the table
AT = (25, 50, 100, 200, 400, 1000)
COLOURS = {
    "front-gradient": "#c0223b",
    "front-solo": "#7a1fa2",
    "tpe-default": "#1f5fa8",
    "tpe": "#4aa3df",
    "nsga2": "#d9822b",
    "gp": "#5a9e4b",
    "random": "#8a8f98",
}


def curve(frame: Frame, run: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return evaluations so far, those that sensitivities cost included, and the hypervolume after each."""
    cost = next(name for name in frame.names if name != "kl")
    points = frame.place([{"kl": kl, cost: value} for kl, value in zip(run["kl"], run[cost], strict=True)])
    volumes, best = [], np.empty((0, 2))
    for point in points:  # two axes: keep the front sorted by the first, and add up its steps
        best = np.vstack([best, point])
        best = best[np.lexsort((best[:, 1], best[:, 0]))]
        best = best[best[:, 1] <= np.minimum.accumulate(best[:, 1])]
        inside = np.minimum(best, 1.0)
        widths = np.diff(np.append(inside[:, 0], 1.0))
        volumes.append(float((widths * (1.0 - inside[:, 1])).sum()))
    return run["before"] + np.arange(1, len(volumes) + 1), np.array(volumes)


def table(frame: Frame, runs: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> pd.DataFrame:
    """Return the median over seeds, and the range, of the hypervolume at some numbers of evaluations; blank beyond a run's end."""
    rows = []
    for name in dict.fromkeys(run["method"] for run in runs):
        own = [curve(frame, run) for run in runs if run["method"] == name]
        row: dict[str, object] = {"method": labels[name], "runs": len(own), "before [evaluation]": round(own[0][0][0] - 1, 1)}
        for count in AT:
            found = [volumes[np.searchsorted(at, count, side="right") - 1] for at, volumes in own if at[0] <= count <= at[-1] + 0.5]
            row[f"at {count}"] = f"{np.median(found):.4f} ({min(found):.4f} to {max(found):.4f})" if found else ""
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(frame: Frame, runs: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
    """Say how ours at 50 evaluations compares with the best run of each rival at its end."""
    sentences = []
    rivals = {name: [curve(frame, run) for run in runs if run["method"] == name] for name in labels if not name.startswith("front")}
    for name in [name for name in labels if name.startswith("front")]:
        for run in (run for run in runs if run["method"] == name):
            at, volumes = curve(frame, run)
            if at[0] > 50:
                sentences.append(f"{labels[name]}: sensitivities alone cost {run['before']:.1f} evaluations.")
                continue
            own = float(volumes[np.searchsorted(at, 50, side="right") - 1])
            above, below = [], []
            for rival, curves in rivals.items():
                for ends, values in curves:
                    (above if own > values[-1] else below).append(f"{labels[rival]} at {int(ends[-1])} ({values[-1]:.4f})")
            beaten = f"above all {len(above)} runs of the rivals at their ends" if not below else f"not above {'; '.join(below)}"
            sentences.append(f"{labels[name]}, seed {run['seed']}: {own:.4f} at 50 evaluations, {beaten}.")
    return sentences


def draw(path: Path, frame: Frame, runs: Sequence[Mapping[str, Any]], labels: Mapping[str, str], title: str) -> None:
    """Draw a line for the median and a band over the seeds of every method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in dict.fromkeys(run["method"] for run in runs):
        own = [curve(frame, run) for run in runs if run["method"] == name]
        length = min(len(volumes) for _, volumes in own)
        at, stacked = own[0][0][:length], np.stack([volumes[:length] for _, volumes in own])
        axes.plot(at, np.median(stacked, axis=0), color=COLOURS[name], label=labels[name], linewidth=1.8)
        axes.fill_between(at, stacked.min(axis=0), stacked.max(axis=0), color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("evaluations, sensitivities counted")
    axes.set_ylabel("hypervolume [share of the uniform assignments' box, log axes]")
    axes.grid(visible=True, which="both", linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=8, loc="lower right")
    axes.set_title(title, fontsize=10)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Software": "bitatlas"})


def write(
    folder: Path,
    frame: Frame,
    runs: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    command: str,
    settings: SearchSettings,
    samples: int,
) -> None:
    """Write ``README.md``, ``hypervolume.csv`` and ``hypervolume.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = table(frame, runs, labels)
    write_text(folder / "hypervolume.csv", found.to_csv(index=False))
    title = f"{settings.model} on {settings.data}, KL on {samples} samples against {frame.names[1]}"
    draw(folder / "hypervolume.png", frame, runs, labels, title)
    box = ", ".join(
        f"{n} {low:.3g} to {high:.3g}" for n, low, high in zip(frame.names, frame.ideals, frame.references, strict=True)
    )
    text = [
        "# Hypervolume against evaluations",
        "",
        provenance.lines(command),
        f"{title}. Weights: {', '.join(settings.weights)}; activations: {', '.join(settings.activations)}; layers that read one "
        f"tensor share formats. Hypervolume is measured in the box of the uniform assignments, logarithmic on both axes ({box}); "
        "the ideal corner of that box is out of reach.",
        "",
        *(f"- {sentence}" for sentence in verdict(frame, runs, labels)),
        "",
        "![Hypervolume against evaluations](hypervolume.png)",
        "",
        "Medians over the runs, with the range. `before` is what sensitivities cost, in evaluations: runs of the network times "
        "samples, backward passes as two.",
        "",
        provenance.markdown(found),
        "",
    ]
    write_text(folder / "README.md", "\n".join(text))
