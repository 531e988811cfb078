"""The front as a picture: accuracy and the first measured objective against each cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dse.objectives import Objective
from dse.report import Outcome
from dse.search import Evaluated
from hwmodels.files import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAINT, FRONT, UNIFORM, CHOSEN = "#b9c0c8", "#1f5fa8", "#d9822b", "#c0223b"


def write_front(
    path: Path, found: Outcome, chosen: Evaluated | None, float_accuracy: float, objectives: Mapping[str, Objective], title: str
) -> None:
    """Draw the front: dominated trials faint, uniform assignments and the chosen point marked, float accuracy as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    costs = [objective for objective in found.objectives if objective.is_cost]
    costs = costs or [next(objective for objective in objectives.values() if objective.is_cost)]
    rows = [objectives["accuracy"], objectives["kl"]]
    figure = Figure(figsize=(5.6 * len(costs) + 1.6, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(costs), sharex="col", sharey="row", squeeze=False)
    for row, measured in enumerate(rows):
        for column, cost in enumerate(costs):
            axes = grid[row][column]
            _draw_points(axes, found, chosen, cost, measured)
            if measured.name == "accuracy":
                axes.axhline(float_accuracy, color="black", linewidth=1, linestyle="--", label=f"float32: {float_accuracy:.4f}")
            _dress(axes, cost, measured, bottom=row == len(rows) - 1, left=column == 0)
    # the upper half is where choices are made: points that no one would take do not squeeze the rest
    low, high = _accuracy_range(found, float_accuracy)
    grid[0][0].set_ylim(low, high)
    hidden = sum(trial.figures["accuracy"] < low for trial in found.trials if not trial.dropped)
    if hidden:
        grid[0][0].set_title(
            f"{hidden} trials lie below; the front is by {', '.join(o.name for o in found.objectives)}", fontsize=9
        )
    grid[0][0].legend(loc="lower right", fontsize=8, framealpha=0.9)
    figure.suptitle(title, fontsize=11)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, metadata={"Software": "bitatlas"})


def _draw_points(axes: "Axes", found: Outcome, chosen: Evaluated | None, cost: Objective, measured: Objective) -> None:
    def scatter(trials: Sequence[Evaluated], **style: object) -> None:
        x = [trial.figures[cost.name] for trial in trials]
        y = [trial.figures[measured.name] for trial in trials]
        axes.scatter(x, y, **style)  # type: ignore[arg-type]

    front_trials = sorted(found.front_trials, key=lambda trial: trial.figures[cost.name])
    measured_in_full = [trial for trial in found.trials if not trial.dropped]
    scatter(measured_in_full, s=14, color=FAINT, label="all trials", zorder=1)
    uniform = [trial for trial in measured_in_full if trial.uniform]
    scatter(uniform, s=34, facecolors="none", edgecolors=UNIFORM, linewidths=1.3, marker="s", label="uniform", zorder=3)
    if set(found.objectives) == {cost, measured}:  # then the front is a line in this very plane
        x = [trial.figures[cost.name] for trial in front_trials]
        axes.plot(x, [trial.figures[measured.name] for trial in front_trials], color=FRONT, linewidth=1, alpha=0.6, zorder=2)
    scatter(front_trials, s=26, color=FRONT, label="front", zorder=4)
    if chosen is not None:
        scatter([chosen], s=190, color=CHOSEN, marker="*", label=f"chosen: trial {chosen.number}", zorder=5)


def _dress(axes: "Axes", cost: Objective, measured: Objective, *, bottom: bool, left: bool) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if measured.name == "kl":
        axes.set_yscale("log")
    if bottom:
        axes.set_xlabel(cost.header)
    if left:
        axes.set_ylabel({"accuracy": "accuracy on validation [share]", "kl": "KL divergence from float32 [nat]"}[measured.name])


def _accuracy_range(found: Outcome, float_accuracy: float) -> tuple[float, float]:
    accuracies = sorted(trial.figures["accuracy"] for trial in found.trials if not trial.dropped)
    low = max(accuracies[len(accuracies) // 4] - 0.02, 0.0)
    high = min(1.0, max(float_accuracy, accuracies[-1])) + 0.01
    return min(low, high - 0.05), high
