"""What the report's pictures share: a canvas without a window, colours, texts that are never read as formulas."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.files import replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
FAINT, LINE, CHOSEN = "#b9c0c8", "#5b6672", "#c0223b"
#: by the kind of a trial's origin; samplers of Optuna's share the last
KINDS = {"uniform": "#d9822b", "front": "#1f5fa8", "refit": "#5a9e4b", "exchange": "#8a4fb5", "random": "#8c8c8c"}
OTHER = "#2a9d9d"


def colour(kind: str) -> str:
    """Return the colour of a kind of origin."""
    return KINDS.get(kind, OTHER)


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """Yield a figure of so many inches, and write it whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": "bitatlas"})


def even(count: int, most: int, kept: frozenset[int] = frozenset()) -> list[int]:
    """Return at most ``most`` of ``count`` indices in order, evenly spread with both ends, and those that are ``kept`` in any case.

    An index that is kept takes the place of its nearest.
    """
    if count <= most:
        return list(range(count))
    chosen = [round(i * (count - 1) / (most - 1)) for i in range(most)]
    for index in kept - set(chosen):
        nearest = min((i for i in range(most) if chosen[i] not in kept), key=lambda i: abs(chosen[i] - index))
        chosen[nearest] = index
    return sorted(chosen)
