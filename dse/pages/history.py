"""How the front grew: hypervolume against evaluations, one trial after the other."""

import re
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dse.pages.drawing import CHOSEN, FAINT, LINE, colour, picture
from dse.proposals.hypervolume import Points, non_dominated
from dse.report import Outcome
from dse.search import Evaluated
from dse.volume import Box
from formats.errors import BitatlasError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class History:
    """Of every trial in order: where it came from, how many full evaluations were made with it, and the hypervolume then."""

    kinds: tuple[str, ...]
    evaluations: tuple[float, ...]
    volumes: tuple[float, ...]
    box: Box

    @property
    def joined(self) -> tuple[bool, ...]:
        """Whether the trial added to the front of its time."""
        return tuple(after > before for before, after in zip((0.0, *self.volumes), self.volumes, strict=False))


def kind(origin: str) -> str:
    """Return what an origin is at its heart: ``refit`` for ``refit:lut``, ``uniform`` for ``uniform int4/int4``."""
    return re.split(r"[: ]", origin, maxsplit=1)[0]


def share(trial: Evaluated, samples: int) -> float:
    """Return how much of a full evaluation on ``samples`` samples a trial took: one that was dropped counts its last rung's."""
    if not trial.dropped:
        return 1.0
    rung = re.search(r"\bon (\d+) samples\b", trial.dropped)
    if rung is None:
        raise BitatlasError(f"a dropped trial must say on how many samples, not {trial.dropped!r} (trial {trial.number})")
    return int(rung[1]) / samples


def history(found: Outcome, samples: int) -> History | None:
    """Return the history of a search whose full evaluations are of ``samples`` samples; None where there is no hypervolume."""
    box = Box.of(found)
    if box is None:
        return None
    front: Points = np.empty((0, len(box.objectives)))
    volumes = []
    for trial in found.trials:
        if trial.feasible(found.bounds):
            point = box.place([trial])
            if not (front <= point).all(axis=1).any():  # else it adds nothing
                front = np.vstack([front, point])
                front = front[non_dominated(front)]
        volumes.append(box.share(front))
    return History(
        kinds=tuple(kind(trial.origin) for trial in found.trials),
        evaluations=tuple(accumulate(share(trial, samples) for trial in found.trials)),
        volumes=tuple(volumes),
        box=box,
    )


def write(path: Path, made: History, uniform_volume: float, title: str) -> None:
    """Draw the hypervolume as steps, trials that added to it as points coloured by origin, and all trials as strokes below."""
    with picture(path, 9.0, 5.0) as figure:
        axes, strokes = figure.subplots(2, 1, sharex=True, height_ratios=(12, 1))
        axes.plot(made.evaluations, made.volumes, drawstyle="steps-post", color=LINE, linewidth=1.2, zorder=2)
        x, y, joined = np.array(made.evaluations), np.array(made.volumes), np.array(made.joined)
        of = np.array(made.kinds)
        for name in dict.fromkeys(made.kinds):
            own = of == name
            label = f"{name}: {int((own & joined).sum())} of {int(own.sum())} added"
            axes.scatter(x[own & joined], y[own & joined], s=26, color=colour(name), label=label, zorder=3)
            strokes.vlines(x[own], 0, 1, color=colour(name), linewidth=1.0)
        if uniform_volume > 0:
            text = f"uniform assignments alone: {uniform_volume:.4f}"
            axes.axhline(uniform_volume, color=CHOSEN, linewidth=1, linestyle="--", label=text, zorder=1)
        _mark_changes(axes, made)
        axes.set_ylabel("hypervolume of the front [share of the box]")
        axes.grid(visible=True, linewidth=0.4, alpha=0.6)
        axes.legend(fontsize=8, loc="lower right", framealpha=0.9)
        strokes.set_yticks([])
        strokes.set_ylabel("trials", rotation=0, ha="right", va="center", fontsize=8)
        strokes.set_xlabel("evaluations on the whole validation split; dropped trials count their share of it")
        strokes.set_ylim(0, 1)
        figure.suptitle(
            f"{title}: {made.volumes[-1]:.4f} after {made.evaluations[-1]:.4g} evaluations", fontsize=11, parse_math=False
        )


def _mark_changes(axes: "Axes", made: History) -> None:
    """Mark where trials of each kind begin, but for the first."""
    for number, name in enumerate(list(dict.fromkeys(made.kinds))[1:]):
        first = made.kinds.index(name)
        at = (made.evaluations[first - 1] + made.evaluations[first]) / 2
        axes.axvline(at, color=FAINT, linewidth=1, zorder=0)
        height = 1.01 + 0.04 * (number % 3)  # those that begin one after the other would stand on the same spot
        place = axes.get_xaxis_transform()
        axes.text(at, height, f"{name} ▸", color=colour(name), fontsize=8, transform=place, parse_math=False)
