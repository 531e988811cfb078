import re

import pytest

from dse.experiment import cost_models
from dse.objectives import Bound, available, find
from dse.targets import target
from formats import BitatlasError

OBJECTIVES = available(cost_models())


def test_every_objective_has_a_unit() -> None:
    headers = [objective.header for objective in OBJECTIVES.values()]
    assert headers == [
        "accuracy [share]",
        "kl [nat]",
        "weight_bits [bit, storage]",
        "scale_bits [bit, storage]",
        "bops [bit operation, widths]",
        "lut [LUT, finn-formula]",
    ]


def test_a_device_brings_its_objectives() -> None:
    found = available(cost_models(target=target("zu7ev", 1000.0, None, None)))
    assert {"lut", "dsp", "bram", "uram", "fps", "latency_us", "energy_pj", "budget_share"} <= set(found)
    assert "cycles" not in found
    assert (found["fps"].direction, found["fps"].header) == ("maximize", "fps [1/s, dataflow on zu7ev]")
    assert found["fps"].loss({"fps": 3.0}) == -3.0
    assert not found["lut"].by_layer
    assert OBJECTIVES["lut"].by_layer


def test_less_loss_is_better_in_either_direction() -> None:
    figures = {"accuracy": 0.9, "kl": 0.1}
    assert OBJECTIVES["accuracy"].loss(figures) == -0.9
    assert OBJECTIVES["kl"].loss(figures) == 0.1


def test_an_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"^objective must be a known name, not 'luts'; nearest: lut$"):
        find("luts", OBJECTIVES)


@pytest.mark.parametrize(
    ("text", "value", "violation"), [("lut<=20000", 21000, 1000), ("lut <= 2e4", 19000, -1000), ("accuracy>=0.97", 0.95, 0.02)]
)
def test_a_bound_measures_by_how_much_it_is_missed(text: str, value: float, violation: float) -> None:
    bound = Bound.parse(text, OBJECTIVES)
    assert bound.violation({bound.objective.name: value}) == pytest.approx(violation)
    assert Bound.parse(str(bound), OBJECTIVES) == bound


@pytest.mark.parametrize("text", ["lut", "lut<20000", "lut<=many", "lut==3", "<=3", "lut<=nan", ""])
def test_what_is_no_bound_is_refused(text: str) -> None:
    message = f"a bound must be NAME<=NUMBER or NAME>=NUMBER, such as lut<=20000, not {text!r}"
    with pytest.raises(BitatlasError, match=f"^{re.escape(message)}$"):
        Bound.parse(text, OBJECTIVES)
