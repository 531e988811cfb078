"""A search is reproducible, resumable at any moment, and refuses to mix what does not belong together."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState

from dse import searching, stating
from dse.assignment import Assignment
from dse.experiment import Experiment, prepare
from dse.export.runtime import Agreement
from dse.ledger import FILE, Ledger, locked
from dse.models.loading import Subject
from dse.objectives import Bound, available
from dse.pages import writing
from dse.problem import Problem, groups_of
from dse.searching import search
from dse.settings import SearchSettings, merge
from dse.space import Space
from formats import BitatlasError
from hwmodels.cost import CostModel
from hwmodels.fpga.pipeline import Target

SETTINGS = SearchSettings(
    model="resnet8", data="digits", formats=("int8", "int4", "e2m1", "ternary"), objectives=("kl", "lut"), trials=24, out="-"
)


#: networks made ready, by what they are made of and the folder that their figures are kept in
_prepared: dict[tuple[object, ...], Experiment] = {}


def _prepare_once(subject: Subject, cycles: int, target: Target | None, gpus: Sequence[CostModel]) -> Experiment:
    assert not gpus
    key = (subject.model, subject.dataset.name, cycles, str(target), os.environ["BITATLAS_CACHE"])
    if key not in _prepared:
        _prepared[key] = prepare(subject, cycles, target=target)
    return _prepared[key]


def _export_nothing(experiment: Experiment, assignment: Assignment, path: Path) -> Agreement:
    path.write_bytes(b"")
    return Agreement(samples=1, equal=1, largest_difference=0.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a short search and other tests look at; the fixture ``finished`` comes before this."""
    hurry(monkeypatch)


def hurry(patch: pytest.MonkeyPatch) -> None:
    """Do not trace again, draw pictures, or export."""
    patch.setattr("dse.stating.prepare", _prepare_once)
    patch.setattr("dse.pages.writing.write", writing.write_markdown)
    patch.setattr("dse.searching.export_checked", _export_nothing)


def run(folder: Path, **changes: object) -> searching.SearchResult:
    return search(replace(SETTINGS, out=str(folder), **changes), say=lambda text: None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "out"
    run(folder)
    return folder


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv")


def test_every_result_is_there_and_nothing_half_written(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    tables = {"trials.csv", "front.csv", "front", "chosen.json", "model.onnx", "sensitivity.json"}
    assert names >= {".lock", FILE, "search.toml", "front.png", "report.md", "report.html", *tables}
    assert not [name for name in names if name.startswith(FILE + "-") or "partial" in name or "tmp" in name]


def test_tables_have_units_and_every_trial(finished: Path) -> None:
    table = trials(finished)
    assert table["trial"].tolist() == list(range(24))
    assert {
        "accuracy [share]",
        "kl [nat]",
        "lut [LUT, finn-formula]",
        "weight_bits [bit, storage]",
        "stem weight",
        "stem activation",
    } <= set(table)
    front = pd.read_csv(finished / "front.csv")
    assert set(front["trial"]) == set(table.loc[table["front"], "trial"])
    assert front["kl [nat]"].is_monotonic_increasing
    assert front["lut [LUT, finn-formula]"].is_monotonic_decreasing


def test_the_exact_front_and_uniform_assignments_come_first(finished: Path) -> None:
    origins = trials(finished)["origin"].tolist()
    assert {origin.split(" ")[0] for origin in origins} == {"front:lut", "uniform"}
    assert {"uniform ternary/ternary", "uniform int8/int8"} <= set(origins)  # the ends of the front are called what they are


def test_the_chosen_assignment_is_a_file_of_the_front(finished: Path) -> None:
    chosen = json.loads((finished / "chosen.json").read_text())
    front = pd.read_csv(finished / "front.csv")
    assert chosen["figures"]["kl"] in front["kl [nat]"].tolist()
    assert next(iter(chosen["layers"])) == "stem"


def test_the_same_command_and_seed_give_the_same_trials(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path / "cache"))  # measured anew, not looked up
    run(tmp_path / "again")
    assert (tmp_path / "again" / "trials.csv").read_bytes() == (finished / "trials.csv").read_bytes()


def test_another_seed_gives_other_trials_by_a_sampler_that_draws(tmp_path: Path) -> None:
    """Other samplers than ours begin with the uniform assignments."""
    first, second = (run(tmp_path / str(s), seed=s, sampler="random", formats=("int4", "e2m1"), trials=8) for s in (0, 1))
    for result in (first, second):
        assert [trial.uniform for trial in result.outcome.trials] == [True] * 4 + [False] * 4
    drawn = [[trial.assignment.digest for trial in result.outcome.trials] for result in (first, second)]
    assert drawn[0][:4] == drawn[1][:4]
    assert not set(drawn[0][4:]) & set(drawn[1])


def test_trials_added_later_are_those_of_a_longer_search(finished: Path, tmp_path: Path) -> None:
    for trials in (3, 24):
        run(tmp_path / "out", trials=trials)
    assert (tmp_path / "out" / "trials.csv").read_bytes() == (finished / "trials.csv").read_bytes()


def test_the_saved_configuration_resumes_its_own_search(tmp_path: Path) -> None:
    run(tmp_path / "out", constraint=("lut<=60000",), trials=4, data=None)
    saved = merge(tmp_path / "out" / "search.toml", {})
    assert saved.data == "digits"
    assert search(saved, say=lambda text: None).outcome.trials[3].number == 3


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    for name in ("a?b %41#c", "ü"):
        run(tmp_path / name, trials=1)
        assert (tmp_path / name / FILE).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a?b %41#c", "ü"}


def test_a_failed_choice_leaves_no_earlier_one(tmp_path: Path) -> None:
    run(tmp_path / "out", trials=4)
    with pytest.raises(BitatlasError, match="--choose"):
        run(tmp_path / "out", trials=4, choose="accuracy>=0.9999")
    assert not (tmp_path / "out" / "chosen.json").exists()
    assert not (tmp_path / "out" / "model.onnx").exists()


@pytest.mark.parametrize("bound", ["accuracy>=1.5", "kl<=-1"])
def test_a_bound_beyond_the_best_there_is_is_refused_at_once(tmp_path: Path, bound: str) -> None:
    with pytest.raises(BitatlasError, match=rf"^constraint {bound} must be within reach, not beyond the best there is, "):
        run(tmp_path / "out", constraint=(bound,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_search_in_two_parts_equals_one(tmp_path: Path, sampler: str) -> None:
    formats = ("int4", "e2m1")  # few uniform assignments, so that the sampler has most of the trials
    run(tmp_path / "whole", sampler=sampler, formats=formats, trials=32)
    # what is proposed before the cut must not depend on how many trials were asked for
    run(tmp_path / "parts", sampler=sampler, formats=formats, trials=23)
    run(tmp_path / "parts", sampler=sampler, formats=formats, trials=32)
    assert (tmp_path / "parts" / "trials.csv").read_bytes() == (tmp_path / "whole" / "trials.csv").read_bytes()


#: ``dse search`` that is struck down by a signal in the midst of measuring its n-th trial
STRUCK = """
import os, sys
from dse.cli import main
from dse.experiment import Experiment
from dse.ledger import Ledger
blow, number, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
take, measure, taken = Ledger.take, Experiment.measure, []
def counted(self, *arguments, **options):
    trial = take(self, *arguments, **options)
    taken.append(trial)
    return trial
def struck(self, *arguments, **options):
    if len(taken) == number:
        os.kill(os.getpid(), blow)
    return measure(self, *arguments, **options)
Ledger.take, Experiment.measure = counted, struck
sys.exit(main(arguments))
"""
#: by sampler: changes, and the trial that is struck; of ours, one of a round of refits and exchanges
STRUCK_SEARCHES: dict[str, tuple[dict[str, object], int]] = {
    "front": ({"formats": ("int4", "int8", "e2m1"), "trials": 40}, 36),
    "tpe": ({"sampler": "tpe", "trials": 30}, 25),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Searches by sampler that nothing struck."""
    folders = {sampler: tmp_path_factory.mktemp("whole") / sampler for sampler in STRUCK_SEARCHES}
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        for sampler, folder in folders.items():
            run(folder, **STRUCK_SEARCHES[sampler][0])
    return folders


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("sampler", list(STRUCK_SEARCHES))
def test_a_search_struck_down_goes_on_and_ends_the_same(
    whole: dict[str, Path], tmp_path: Path, sampler: str, blow: signal.Signals
) -> None:
    changes, number = STRUCK_SEARCHES[sampler]
    settings = replace(SETTINGS, out=str(tmp_path), **changes)  # type: ignore[arg-type]
    arguments = ["search", "--model", "resnet8", "--data", "digits", "--formats", ",".join(settings.formats), "--sampler", sampler]
    arguments += ["--trials", str(settings.trials), "--out", str(tmp_path)]
    process = subprocess.run(
        [sys.executable, "-c", STRUCK, str(int(blow)), str(number), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for what runs in the background
    )
    with closing(Ledger.join(tmp_path / FILE, "search")) as ledger:
        left = ledger.study.get_trials()[number - 1]
        assert len(ledger.finished()) == number - 1
    assert left.params
    if blow == signal.SIGINT:
        assert (process.returncode, left.state) == (130, TrialState.WAITING)
        said = f"interrupted after {number - 1} of {settings.trials} trials, all kept; the same command goes on from here\n"
        assert process.stdout == said
        assert "Traceback" not in process.stderr
        assert len(trials(tmp_path)) == number - 1
    else:
        assert (process.returncode, left.state) == (-signal.SIGKILL, TrialState.RUNNING)
    run(tmp_path, **changes)
    assert (tmp_path / "trials.csv").read_bytes() == (whole[sampler] / "trials.csv").read_bytes()
    origins = trials(tmp_path)["origin"]
    assert origins[number - 1].split(":")[0] in ("refit", "exchange", "tpe")
    assert not list(tmp_path.glob("*partial*"))


def test_what_was_measured_before_is_not_measured_again(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("dse.experiment.measure", refuse)
    run(tmp_path / "looked up")
    assert (tmp_path / "looked up" / "trials.csv").read_bytes() == (finished / "trials.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 3}, "seed was 0, is 3"),
        ({"formats": ("int8", "int4")}, "weight formats was int8,int4,e2m1,ternary, is int8,int4"),
        ({"model": "mobilenet"}, "model was resnet8, is mobilenet; "),
        ({"objectives": ("accuracy", "lut")}, "objectives was kl,lut, is accuracy,lut"),
        ({"constraint": ("lut<=90000",)}, "constraint was , is lut<=90000"),
        ({"cycles": 512}, "cycles was 1024, is 512"),
    ],
)
def test_a_folder_of_another_search_is_refused(finished: Path, change: dict[str, object], difference: str) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(BitatlasError, match=re.escape(difference)) as caught:
        run(finished, **change)
    assert str(caught.value).startswith(f"search in {finished} must go on as it began, not with changes (")
    assert str(caught.value).endswith("); use another --out")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_changed_code_is_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stating, "code_version", lambda: "f" * 64)
    with pytest.raises(BitatlasError, match=r"code was [0-9a-f]{12}…, is ffffffffffff…"):
        run(finished)


def test_a_broken_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database, however long it may be" * 100)
    message = f"ledger must be a usable database, not fail (file is not a database): {tmp_path / FILE}"
    with pytest.raises(BitatlasError, match=f"^{re.escape(message)}$"):
        run(tmp_path)


def test_two_searches_in_one_folder_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BitatlasError, match=r"^folder must be used by one search at a time"):
        run(tmp_path)


def test_a_budget_out_of_reach_says_by_how_much(tmp_path: Path) -> None:
    with pytest.raises(BitatlasError) as caught:
        run(tmp_path / "out", constraint=("lut<=2000",))
    assert re.fullmatch(
        r"constraint lut<=2000 must be within reach of the formats given, not missed by \d+ LUT: "
        r"the nearest is \d+ LUT \(with [\w/, ]+\)",
        str(caught.value),
    )
    assert not (tmp_path / "out").exists()


def test_the_cheapest_reachable_cost_is_found_by_layer(resnet8: Experiment) -> None:
    """One layer's cheapest pair need not be another's: the least sum is looked for layer by layer."""
    objectives = available(resnet8.cost_models)
    problem = Problem(
        experiment=resnet8,
        space=Space(groups=groups_of(resnet8, (), automatic=False), weights=("int8", "pot4"), activations=("int8", "int4")),
        objectives=(objectives["kl"],),
        bounds=(Bound.parse("lut<=1", objectives),),
    )
    with pytest.raises(BitatlasError) as caught:
        problem.check_reachable()
    nearest = float(str(caught.value).split("nearest is ")[1].split()[0])
    pairs = [(w, a) for w in problem.space.weights for a in problem.space.activations]
    names = [layer.name for layer in resnet8.preparation.network.layers]
    params = [{f"{name}/weight": w for name in names} | {f"{name}/activation": a for name in names} for w, a in pairs]
    uniform = [problem.figures(problem.assignment(each))["lut"] for each in params]
    assert nearest <= min(uniform) + 1


def test_constraints_mark_trials_and_bound_the_front(tmp_path: Path) -> None:
    run(tmp_path / "out", constraint=("lut<=40000", "accuracy>=0.9"))
    table = trials(tmp_path / "out")
    keeps = (table["lut [LUT, finn-formula]"] <= 40000) & (table["accuracy [share]"] >= 0.9)
    assert (table["feasible"] == keeps).all()
    assert 0 < keeps.sum() < len(table)
    assert keeps[table["front"]].all()


def test_no_feasible_trial_names_the_nearest_and_keeps_the_tables(tmp_path: Path) -> None:
    message = (
        r"^constraints must be kept by at least one trial, not by none of 24: "
        r"the nearest, trial \d+, misses accuracy>=0.999 by 0.\d+ share$"
    )
    with pytest.raises(BitatlasError, match=message):
        run(tmp_path / "out", constraint=("accuracy>=0.999",))
    assert len(trials(tmp_path / "out")) == 24
    assert not trials(tmp_path / "out")["front"].any()
    assert len(pd.read_csv(tmp_path / "out" / "front.csv")) == 0


def test_a_condition_chooses_the_cheapest_point_that_meets_it(finished: Path) -> None:
    result = run(finished, choose="accuracy>=0.95")
    meeting = [trial for trial in result.outcome.front_trials if trial.figures["accuracy"] >= 0.95]
    assert result.chosen.figures["lut"] == min(trial.figures["lut"] for trial in meeting)
    with pytest.raises(
        BitatlasError,
        match=r"^--choose accuracy>=0.9999 must be met by a point of the front, not missed by 0\.0\d+ share",
    ):
        run(finished, choose="accuracy>=0.9999")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ("int4", "int44")}, "b of format int{b} must be 2 to 16, not 44; nearest: int16"),
        ({"formats": ("int4", "int4")}, "formats must be different from each other, not int4,int4"),
        ({"model": "resnet9"}, "model must be a known name, not 'resnet9'; nearest: resnet8"),
        ({"objectives": ("kl", "lutt")}, "objective must be a known name, not 'lutt'; nearest: lut"),
        ({"constraint": ("area<=3",)}, "objective must be a known name, not 'area'"),
        ({"choose": "accuracy=3"}, "a bound must be NAME<=NUMBER or NAME>=NUMBER, such as lut<=20000, not 'accuracy=3'"),
        ({"device": "zu7eg"}, "device must be a known name, not 'zu7eg'; nearest: zu9eg, zu7ev, zu3eg"),
        ({"data": "mnist"}, "data set must be a known name, not 'mnist'; nearest: fashion-mnist"),
    ],
)
def test_bad_names_are_refused_before_anything_is_written(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(BitatlasError, match=re.escape(message)):
        run(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


DEVICE = {"device": "zynq7020", "fps": 20000.0, "trials": 10, "formats": ("int4", "e2m1"), "objectives": ("kl", "lut", "bram")}


def test_a_device_is_searched_with_its_resources_as_objectives(tmp_path: Path) -> None:
    said: list[str] = []
    result = search(replace(SETTINGS, out=str(tmp_path / "out"), **DEVICE), say=said.append)  # type: ignore[arg-type]
    table = trials(tmp_path / "out")
    assert (table["fps [1/s, dataflow on zynq7020]"] >= 20000).all()
    assert table["feasible"].all()
    assert table["binding resource"].str.contains("allowed on zynq7020").all()
    layers = [layer.name for layer in result.experiment.preparation.network.layers]
    assert set(table["bottleneck"].str.split(" ").str[0]) <= set(layers)
    assert any(line.startswith("bottleneck: ") for line in said)
    assert any(line.startswith("binding resource: ") for line in said)
    run(tmp_path / "again", **DEVICE)
    assert (tmp_path / "again" / "trials.csv").read_bytes() == (tmp_path / "out" / "trials.csv").read_bytes()


def test_a_bound_on_a_resource_leads_the_folding(tmp_path: Path) -> None:
    changes = {**DEVICE, "fps": None, "budget": 0.5, "objectives": ("kl", "fps")}
    free = run(tmp_path / "free", **changes).outcome.trials
    bound = run(tmp_path / "bound", **changes, constraint=("bram<=8", "dsp<=3")).outcome.trials
    assert max(trial.figures["bram"] for trial in free) > 8
    for trial in bound:
        assert trial.figures["bram"] <= 8
        assert trial.figures["dsp"] <= 3
        assert 0 < trial.figures["budget_share"] <= 1


def test_a_trial_that_does_not_fit_is_infeasible_not_an_end(tmp_path: Path) -> None:
    """A rate that only the cheaper pair of formats keeps on the device."""
    changes = {**DEVICE, "formats": ("int8", "ternary"), "fps": 300000.0, "sampler": "random", "trials": 4}
    run(tmp_path / "out", **changes)
    table = trials(tmp_path / "out").set_index("origin")
    share = table["budget_share [share, dataflow on zynq7020]"]
    assert (table["feasible"] == (share <= 1)).all()
    assert table["feasible"].to_dict()["uniform ternary/ternary"]
    assert not table["feasible"].to_dict()["uniform int8/int8"]
    assert (table["fps [1/s, dataflow on zynq7020]"] >= 300000).all()


def test_a_rate_beyond_every_folding_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        BitatlasError, match=r"^frame rate must be at most 980392 at 100 MHz, not 1e\+07: the window stage of layer 'stem'"
    ):
        run(tmp_path / "out", **{**DEVICE, "fps": 1e7})
    assert not (tmp_path / "out").exists()
