"""The trials of a search as the page's script reads them."""

import json
from collections.abc import Iterable
from typing import Any

from dse.pages import front_files
from dse.pages.facts import Facts
from dse.pages.short_names import short
from dse.search import Evaluated


def as_json(facts: Facts) -> str:
    """Return the trials that were measured in full, with their figures and assignments, as JSON that may stand in a page."""
    trials = [trial for trial in facts.found.trials if not trial.dropped]
    texts = _Texts()
    content = {
        "title": facts.title,
        "folder": str(facts.folder),
        "dataDir": facts.settings.data_dir,
        "figures": _figures(facts, trials),
        "x": _default(facts, cost=True),
        "y": _default(facts, cost=False),
        "floatAccuracy": facts.float_accuracy,
        "objectives": [objective.name for objective in facts.found.objectives],
        "layers": list(trials[0].assignment.layers) if trials else [],
        "trials": [_trial(facts, trial, texts) for trial in trials],
        "texts": texts.known,
        "short": [short(text) for text in texts.known],
        "dropped": len(facts.found.trials) - len(trials),
    }
    # nothing in a script element may look like markup; in JSON these three stand in strings alone
    return json.dumps(content).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Texts:
    """Numbers texts, each once: thousands of trials name the same few quantizers."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._numbers: dict[str, int] = {}

    def numbers(self, texts: Iterable[str]) -> list[int]:
        for text in texts:
            if text not in self._numbers:
                self._numbers[text] = len(self.known)
                self.known.append(text)
        return [self._numbers[text] for text in texts]


def _figures(facts: Facts, trials: list[Evaluated]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "header": facts.objectives[name].header,
            "unit": facts.objectives[name].unit,
            "higherIsBetter": facts.objectives[name].direction == "maximize",
            "logarithmic": facts.objectives[name].unit != "share" and all(trial.figures[name] > 0 for trial in trials),
        }
        for name in facts.figures
    ]


def _default(facts: Facts, *, cost: bool) -> str:
    """Return the figure that an axis begins with: the first cost, or the first that is measured, an objective if there is one."""
    kind = [o for o in (*facts.found.objectives, *facts.objectives.values()) if o.is_cost == cost]
    return kind[0].name


def _trial(facts: Facts, trial: Evaluated, texts: _Texts) -> dict[str, Any]:
    on_front = any(trial is facts.found.trials[i] for i in facts.found.front)
    layers = trial.assignment.layers.values()
    return {
        "number": trial.number,
        "origin": trial.origin,
        "kind": _kind(facts, trial, on_front),
        "uniform": trial.uniform,
        "file": front_files.name(trial.number) if on_front else None,
        "figures": [trial.figures[name] for name in facts.figures],
        "weights": texts.numbers([str(layer.weight) for layer in layers]),
        "activations": texts.numbers([str(layer.activation) for layer in layers]),
        "steps": texts.numbers(["+".join(layer.steps) for layer in layers]),
        "networkSteps": "+".join(trial.assignment.steps),
        "remarks": dict(trial.remarks),
    }


def _kind(facts: Facts, trial: Evaluated, on_front: bool) -> str:
    if facts.chosen is not None and trial.number == facts.chosen.number:
        return "chosen"
    if on_front:
        return "front"
    if not trial.feasible(facts.found.bounds):
        return "infeasible"
    return "uniform" if trial.uniform else "dominated"
