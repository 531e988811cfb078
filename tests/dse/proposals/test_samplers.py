"""Samplers by name, and whether they look at constraints."""

import optuna
import pytest

from dse.proposals import samplers
from dse.proposals.sampler import FrontSampler
from formats.errors import UnknownNameError


def feasible_share(name: str, constrained: bool, *, groups: int, trials: int) -> float:
    """Return the share of the later half of trials within a constraint that both objectives draw away from."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=samplers.make(name, 0))
    choices = [f"o{option}" for option in range(6)]
    kept = []
    for _ in range(trials):
        trial = study.ask()
        options = [choices.index(trial.suggest_categorical(f"x{group}", choices)) for group in range(groups)]
        excess = float(sum(options) - 2 * groups)  # options from 0 to 5: less than half of all selections keep it
        if constrained:
            trial.set_constraint("sum", excess)
        study.tell(trial, [-float(sum(options)), -float(options[0])])
        kept.append(excess <= 0)
    late = kept[trials // 2 :]
    return sum(late) / len(late)


@pytest.mark.parametrize(
    ("name", "groups", "trials"), [("tpe", 4, 80), ("nsga2", 4, 400), pytest.param("gp", 4, 30, marks=pytest.mark.slow)]
)
def test_constraints_are_honoured(name: str, groups: int, trials: int) -> None:
    with_it, without_it = (feasible_share(name, constrained, groups=groups, trials=trials) for constrained in (True, False))
    assert with_it > without_it + 0.3


def test_names_are_known() -> None:
    assert [type(samplers.make(name, 0)).__name__ for name in samplers.NAMES] == [
        "FrontSampler",
        "TPESampler",
        "NSGAIISampler",
        "GPSampler",
        "RandomSampler",
    ]
    assert isinstance(samplers.make("front", 3), FrontSampler)
    with pytest.raises(UnknownNameError) as raised:
        samplers.make("nsga", 0)
    assert str(raised.value) == "sampler must be a known name, not 'nsga'; nearest: nsga2"
