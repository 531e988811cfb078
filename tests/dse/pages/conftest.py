"""Facts of a search made by hand."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.objectives import MEASURED, Objective
from dse.pages.facts import Facts, Sensitivity
from dse.proposals.table import ChoiceTable
from dse.report import Outcome
from dse.search import Evaluated
from dse.settings import SearchSettings

LUT = Objective(name="lut", unit="LUT", model="finn-formula", by_layer=True)
DROPPED = "KL 0.3 on 16 samples, where the front has 0.02 for no more"

MakeFacts = Callable[..., Facts]
MakeSearch = Callable[..., Outcome]


@pytest.fixture(scope="session")
def make_search(make_trial: Callable[..., Evaluated], make_outcome: Callable[..., Outcome]) -> MakeSearch:
    """Make an outcome as a search leaves it: uniform trials, then others from several origins, some of them dropped."""

    def make(layers: int = 6, trials: int = 24, model: str = "net", name: str = "block{}.conv", steps: bool = False) -> Outcome:
        draw = random.Random(0)
        names = [name.format(i) for i in range(layers)]
        weights, activations, bits = ("int8", "int4", "e2m1", "ternary"), ("uint8", "uint4"), {"int8": 8, "uint8": 8, "ternary": 2}

        def one(number: int) -> Evaluated:
            pairs = [f"{draw.choice(weights)}/{draw.choice(activations)}" for _ in names]
            if number < 4:
                pairs = [pairs[0]] * layers
            origin = f"uniform {pairs[0]}" if number < 4 else ("front:lut", "refit:lut", "exchange")[number % 3]
            used = sum(bits.get(part, 4) for pair in pairs for part in pair.split("/")) / layers
            kl, dropped = float(np.exp(-used / 2)) * draw.uniform(0.5, 2), DROPPED if number > 4 and number % 5 == 0 else ""
            chosen = {n: f"{pair}/gptq" if steps and draw.random() < 0.4 else pair for n, pair in zip(names, pairs, strict=True)}
            return make_trial(number, chosen, kl, 100 * used, origin=origin, dropped=dropped, model=model)

        return make_outcome(*(one(number) for number in range(trials)))

    return make


@pytest.fixture(scope="session")
def make_sensitivity() -> Callable[[Outcome], Sensitivity]:
    """Make sensitivities for the layers of an outcome."""

    def make(found: Outcome, options: int = 6) -> Sensitivity:
        layers = tuple(found.trials[0].assignment.layers)
        names = tuple(f"int{2 + i // 5} e2m{1 + i % 5}" for i in range(options))
        losses = np.random.default_rng(0).lognormal(-6, 2, (len(layers), options))
        losses[0, 0] = 0.0
        table = ChoiceTable(groups=layers, options=(names,) * len(layers), losses=tuple(losses))
        return Sensitivity(table=table, chosen={layer: names[i % options] for i, layer in enumerate(layers)})

    return make


@pytest.fixture(scope="session")
def make_facts() -> MakeFacts:
    """Make the facts of an outcome."""

    def make(folder: Path, found: Outcome, **changes: Any) -> Facts:
        first = found.trials[0].assignment
        settings = SearchSettings(
            model=first.model,
            data=first.data,
            out=str(folder),
            weight_formats=("int8", "int4"),
            activation_formats=("int8", "int4"),
        )
        given: dict[str, Any] = {
            "folder": folder,
            "settings": settings,
            "command": "dse search --model net",
            "groups": tuple((name,) for name in first.layers),
            "found": found,
            "chosen": found.front_trials[0] if found.front else None,
            "status": "24 of 24 trials: finished",
            "objectives": {objective.name: objective for objective in (*MEASURED, LUT)},
            "float_accuracy": 0.99,
            "validation_samples": 300,
        }
        folder.mkdir(parents=True, exist_ok=True)
        return Facts(**given | changes)

    return make
