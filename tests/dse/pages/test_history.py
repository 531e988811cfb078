"""The history of a search: every trial counts, and what it added is told apart."""

from collections.abc import Callable

import pytest

from dse import report
from dse.objectives import Bound
from dse.pages.history import History, history, kind, share
from dse.report import Outcome
from dse.rungs import Dropped, Rung
from dse.search import Evaluated
from dse.volume import Box
from formats import BitatlasError

MakeTrial = Callable[..., Evaluated]
MakeOutcome = Callable[..., Outcome]


def history_of(found: Outcome, samples: int = 300) -> History:
    made = history(found, samples)
    assert made is not None
    return made


def test_the_hypervolume_after_each_trial_is_that_of_the_trials_so_far(make_search: Callable[..., Outcome]) -> None:
    found = make_search(trials=40)
    made, box = history_of(found), Box.of(found)
    assert box is not None
    for count in range(1, 41):
        front = report.outcome(found.trials[:count], found.objectives, ()).front_trials
        assert made.volumes[count - 1] == pytest.approx(box.share(box.place(front)), abs=1e-12)
    assert list(made.joined) == [b > a for a, b in zip((0.0, *made.volumes[:-1]), made.volumes, strict=True)]


def test_a_dropped_trial_counts_its_rungs_share_of_the_samples(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    why = str(Dropped(kl=0.3, rung=Rung(samples=64, margin=2.0), better=0.1))
    trials = [
        make_trial(0, "int4/int4", 0.1, 10),
        make_trial(1, "int8/int8", 0.3, 20, dropped=why),
        make_trial(2, "int8/int4", 0.2, 5),
    ]
    assert history_of(make_outcome(*trials), samples=256).evaluations == (1.0, 1.25, 2.25)
    with pytest.raises(BitatlasError, match=r"^a dropped trial must say on how many samples, not 'for no reason' \(trial 3\)$"):
        share(make_trial(3, "int8/int8", 0.3, 20, dropped="for no reason"), 256)


def test_trials_beyond_a_bound_add_nothing(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    trials = [make_trial(0, "int4/int4", 0.1, 10), make_trial(1, "int8/int8", 0.01, 99), make_trial(2, "int8/int4", 0.05, 20)]
    found = make_outcome(*trials)
    bound = Bound.parse("lut<=50", {"lut": found.objectives[1]})
    assert history_of(make_outcome(*trials, bounds=(bound,))).joined == (True, False, True)


def test_no_box_no_history(make_trial: MakeTrial, make_outcome: MakeOutcome) -> None:
    assert history(make_outcome(make_trial(0, "int4/int4", 0.1, 10)), 300) is None


@pytest.mark.parametrize(
    ("origin", "expected"), [("uniform int4/int4", "uniform"), ("front:lut", "front"), ("exchange", "exchange"), ("tpe", "tpe")]
)
def test_a_kind_is_the_first_word_of_an_origin(origin: str, expected: str) -> None:
    assert kind(origin) == expected
