"""Trials and outcomes made by hand."""

from collections.abc import Callable, Mapping

import pytest

from dse import report
from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.objectives import MEASURED, Bound, Objective
from dse.report import Outcome
from dse.search import Evaluated

ACCURACY, KL = MEASURED
LUT = Objective(name="lut", unit="LUT", model="finn-formula", by_layer=True)

MakeTrial = Callable[..., Evaluated]
MakeOutcome = Callable[..., Outcome]


def assignment(pairs: Mapping[str, str], model: str = "net") -> Assignment:
    """Return an assignment for pairs such as ``int4/uint8`` by layer."""
    layers = {}
    for name, pair in pairs.items():
        weight, activation, *steps = pair.split("/")
        layers[name] = LayerAssignment(
            weight=parse_quantizer(weight, "weight"), activation=parse_quantizer(activation, "activation"), steps=tuple(steps)
        )
    return Assignment(model=model, data="digits", layers=layers)


@pytest.fixture(scope="session")
def make_trial() -> MakeTrial:
    """Make a trial of two layers; ``pair`` for both makes it uniform unless it has another origin."""

    def make(
        number: int,
        pairs: str | Mapping[str, str],
        kl: float,
        lut: float,
        *,
        origin: str = "",
        dropped: str = "",
        model: str = "net",
    ) -> Evaluated:
        given = {"first": pairs, "second": pairs} if isinstance(pairs, str) else pairs
        figures = {"kl": kl, "lut": lut} if dropped else {"accuracy": max(0.0, 1 - kl), "kl": kl, "lut": lut}
        return Evaluated(
            number=number,
            ledger_number=number,
            origin=origin or (f"uniform {pairs}" if isinstance(pairs, str) else "tpe"),
            assignment=assignment(given, model),
            figures=figures,
            dropped=dropped,
        )

    return make


@pytest.fixture(scope="session")
def make_outcome() -> MakeOutcome:
    """Make an outcome of trials, by default for KL and LUTs."""

    def make(*trials: Evaluated, objectives: tuple[Objective, ...] = (KL, LUT), bounds: tuple[Bound, ...] = ()) -> Outcome:
        return report.outcome(trials, objectives, bounds)

    return make
