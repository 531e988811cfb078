"""Any worker proposes from the study alone, and no two propose the same."""

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from dse.proposals import ChoiceTable, Selection
from dse.proposals.frame import Frame
from dse.proposals.rounds import Plan, Proposal, plan, propose
from dse.proposals.sampler import (
    FIGURES,
    NOTE,
    ORIGIN,
    ROUND,
    FrontSampler,
    Stored,
    stall,
    store,
)
from dse.proposals.transactions import serialised
from dse.proposals.variants import Variants
from formats import BitatlasError

GROUPS, OPTIONS = 3, 4
UNIFORM = tuple(Proposal(selection=(option,) * GROUPS, origin="uniform") for option in range(OPTIONS))


def table(groups: int = GROUPS, options: int = OPTIONS) -> ChoiceTable:
    bits = np.arange(2, 2 + options)
    return ChoiceTable(
        groups=tuple(f"layer{g}" for g in range(groups)),
        options=tuple(tuple(f"int{b}" for b in bits) for _ in range(groups)),
        losses=tuple((1 + g) * 4.0**-bits for g in range(groups)),
        costs={"lut": tuple((groups - g) * bits**2.0 for g in range(groups))},
    )


def variants() -> Variants:
    return Variants(tables={"none": table()})


def truth(selection: Selection) -> dict[str, float]:
    chosen = selection[1:]
    return {"kl": table().loss(chosen) * (1 + 0.1 * sum(chosen)), "lut": table().cost("lut", chosen)}


def whole() -> Plan:
    return plan((table(),), Frame.of(table(), "kl", ["lut"]), uniform=UNIFORM, points=6)


def study(storage: optuna.storages.BaseStorage | str | None = None, **options: float) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(storage=storage, directions=["minimize", "minimize"], sampler=FrontSampler(), study_name="s")
    store(made, variants(), whole(), **{"count": 4, **options})  # type: ignore[arg-type]
    return made


def database(folder: Path) -> optuna.storages.RDBStorage:
    return serialised(optuna.storages.RDBStorage(f"sqlite:///{folder}/study.sqlite"))


def opened(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=database(folder), sampler=FrontSampler())


def work(study: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask(variants().distributions())
        figures = truth(variants().selection(trial.params))
        trial.set_user_attr(FIGURES, figures)
        study.tell(trial, [figures["kl"], figures["lut"]])


def selections(study: optuna.Study) -> list[Selection]:
    return [variants().selection(trial.params) for trial in study.trials if trial.params]


def origins(study: optuna.Study) -> list[str]:
    return [trial.user_attrs[ORIGIN] for trial in study.trials]


def test_what_is_stored_is_read_back_the_same() -> None:
    made = Stored(study(seed=5))
    assert made.plan == whole()
    assert made.variants.to_json() == variants().to_json()
    assert (made.seed, made.count) == (5, 4)


def test_trials_follow_the_rounds_and_hold_their_origin() -> None:
    made = study()
    work(made, 14)
    wanted = [proposal.origin for proposal in whole().first]
    assert origins(made)[: len(wanted)] == wanted
    assert set(origins(made)[len(wanted) :]) <= {"exchange", "refit:lut", "random"}
    assert [trial.user_attrs[ROUND] for trial in made.trials] == sorted(trial.user_attrs[ROUND] for trial in made.trials)


def test_rounds_are_what_propose_says() -> None:
    made = study()
    opening = len(whole().first)
    work(made, opening)
    known = {selection: truth(selection) for selection in selections(made)}
    wanted = propose((table(),), known, 4, whole())
    work(made, len(wanted))
    assert selections(made)[opening:] == [proposal.selection for proposal in wanted]


def test_every_selection_is_tried_once_before_any_is_repeated() -> None:
    made = study()
    work(made, OPTIONS**GROUPS + 1)
    tried = selections(made)
    assert len(set(tried[:-1])) == OPTIONS**GROUPS
    notes = [trial.user_attrs.get(NOTE, "") for trial in made.trials]
    assert notes[-1] == "no selection is left untried: this one is a repetition"
    for trial, note in zip(made.trials[:-1], notes, strict=False):
        assert (trial.user_attrs[ORIGIN] == "random") == bool(note)
        assert not note or note.startswith("stalled at hypervolume") or note == "nothing new promises to add to the front"


def test_a_stall_is_said_with_its_figures() -> None:
    made = study(epsilon=10.0)
    opening = len(whole().first)
    work(made, opening + 8)
    assert stall(made) is not None
    work(made, 1)
    assert origins(made)[-1] == "random"
    assert made.trials[-1].user_attrs[NOTE] == str(stall(made))


def test_random_selections_are_seeded() -> None:
    def drawn(seed: int) -> list[Selection]:
        made = study(epsilon=10.0, seed=seed)
        work(made, len(whole().first) + 16)
        return selections(made)

    assert drawn(1) == drawn(1) != drawn(2)


def test_failed_and_running_trials_are_not_tried_again() -> None:
    made = study()
    failed = made.ask(variants().distributions())
    made.tell(failed, state=TrialState.FAIL)
    made.ask(variants().distributions())  # runs on
    work(made, 12)
    tried = selections(made)
    assert len(set(tried)) == len(tried)


def test_an_interrupted_worker_s_silence_is_waited_for_only_so_long() -> None:
    made = study()
    made.sampler = FrontSampler(patience=0.2)
    made.ask()  # begun, and never says what it tries
    work(made, 2)
    assert len(made.get_trials(states=(TrialState.COMPLETE,))) == 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_threads_that_ask_in_turn_never_repeat(kind: str, tmp_path: Path) -> None:
    made = study(optuna.storages.InMemoryStorage() if kind == "memory" else database(tmp_path))
    studies = [made, made] if kind == "memory" else [opened(tmp_path), opened(tmp_path)]
    threads = [threading.Thread(target=work, args=(part, 12)) for part in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tried = [variants().selection(trial.params) for trial in made.get_trials(states=(TrialState.COMPLETE,))]
    assert len(tried) == len(set(tried)) == 24


def _work_alone(folder: Path, trials: int) -> None:
    work(opened(folder), trials)


def test_processes_that_know_the_storage_alone_never_repeat(tmp_path: Path) -> None:
    made = study(database(tmp_path))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work_alone, args=(tmp_path, 10)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    tried = [variants().selection(trial.params) for trial in made.get_trials(states=(TrialState.COMPLETE,))]
    assert len(tried) == len(set(tried)) == 20


def test_a_large_table_fits_into_a_database(tmp_path: Path) -> None:
    large = Variants(tables={"none": table(groups=60, options=48)})
    made = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.sqlite", directions=["minimize"] * 2)
    store(made, large, plan((large.first,), Frame.of(large.first, "kl", ["lut"])))
    assert len(large.to_json()) > 100_000
    assert Stored(made).variants.to_json() == large.to_json()


def test_a_study_without_a_table_is_refused() -> None:
    made = optuna.create_study(directions=["minimize"] * 2, sampler=FrontSampler(), study_name="bare")
    with pytest.raises(BitatlasError, match=r"study must hold a table of choices and a plan, not lack them \(bare\)"):
        made.ask(variants().distributions())


def test_trials_without_figures_are_refused() -> None:
    made = study()
    made.tell(made.ask(variants().distributions()), [1.0, 2.0])
    for _ in range(3):  # the rest of the first round waits already
        made.ask(variants().distributions())
    with pytest.raises(BitatlasError, match=r"trials must hold the figure 'kl', not lack it \(trial 0\)"):
        made.ask(variants().distributions())


def test_other_parameters_are_refused() -> None:
    trial = study().ask()
    with pytest.raises(BitatlasError, match="parameter must be a group of the study's table, not 'x'"):
        trial.suggest_float("x", 0, 1)


def test_a_trial_that_was_dropped_on_few_samples_counts_with_what_it_came_to() -> None:
    made = study()
    trial = made.ask(variants().distributions())
    trial.set_user_attr(FIGURES, {"kl": 9.0, "lut": 1.0})
    made.tell(trial, state=TrialState.PRUNED)
    assert Stored(made).figures(made.trials[0]) == {"kl": 9.0, "lut": 1.0}
