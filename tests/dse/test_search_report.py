"""Whatever ends a search, its folder holds a report that is valid and says so."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dse import evaluate, experiment, searching
from dse.evaluate import Figures
from dse.experiment import Experiment
from dse.searching import search
from dse.settings import SearchSettings
from formats import BitatlasError

SETTINGS = SearchSettings(model="resnet8", data="digits", formats=("int8", "int4"), trials=6, sampler="tpe", out="-")


def run(folder: Path, **changes: object) -> list[str]:
    said: list[str] = []
    search(replace(SETTINGS, out=str(folder), **changes), say=said.append)  # type: ignore[arg-type]
    return said


def status(folder: Path) -> str:
    """Return what the report says at its top, having checked that everything beside it is valid and of the same trials."""
    text = (folder / "report.md").read_text()
    found = re.search(r"^\*\*(.*)\*\*$", text, re.MULTILINE)
    assert found is not None
    front = pd.read_csv(folder / "front.csv")
    assert {int(path.stem) for path in (folder / "front").iterdir()} == set(front["trial"])
    page = (folder / "report.html").read_text()
    embedded = re.search(r'<script type="application/json" id="front-data">(.*?)</script>', page)
    assert embedded is not None
    shown = json.loads(embedded[1])
    assert {trial["number"] for trial in shown["trials"] if trial["file"]} == set(front["trial"])
    assert len(shown["trials"]) == len(pd.read_csv(folder / "trials.csv"))
    assert not list(folder.glob("**/*.partial*"))
    return found[1]


def ending(error: BaseException, after: int) -> Callable[..., Figures]:
    """Return what measures so many times, and then raises."""
    done: list[int] = []

    def measure(*given: object, **named: object) -> Figures:
        done.append(1)
        if len(done) > after:
            raise error
        return evaluate.measure(*given, **named)  # type: ignore[arg-type]

    return measure


@pytest.fixture
def unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path / "cache"))


def test_a_finished_search_says_its_verdict_and_the_accuracy_on_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[str] = []
    measure = Experiment.measure

    def watched(self: Experiment, assignment: object, split: str = "validation", samples: int | None = None) -> Figures:
        splits.append(split)
        return measure(self, assignment, split, samples)  # type: ignore[arg-type]

    monkeypatch.setattr(Experiment, "measure", watched)
    said = run(tmp_path / "out")
    assert status(tmp_path / "out") == "6 of 6 trials: finished"
    assert splits.count("test") == 1  # of the chosen point, and of no other
    assert splits[-1] == "test"
    text = (tmp_path / "out" / "report.md").read_text()
    verdict = [line for line in said if "mixed" in line]
    assert 2 <= len(verdict) <= 3
    assert all(line[1:] in text.replace("\\", "") for line in verdict)
    on_test = next(line for line in said if line.startswith("accuracy on test: "))
    assert on_test.removeprefix("accuracy on test: ") in text
    assert "Called from Python." in text
    assert 'sampler = "tpe"' in text
    assert "sampler tpe needs none" in text


def test_a_stalled_search_says_why_and_shows_its_sensitivities(tmp_path: Path) -> None:
    """Two formats for one group: everything is tried soon."""
    run(tmp_path / "out", sampler="front", formats=("int8",), activation_formats=("int8", "int4"), tie=(".*",), trials=40)
    assert re.fullmatch(r"\d+ of 40 trials: .*; stopped after \d+ of 40 trials", status(tmp_path / "out"))
    assert (tmp_path / "out" / "sensitivity.png").exists()
    assert "![Loss of each option for each group of layers](sensitivity.png)" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("unmeasured")
def test_an_interrupted_search_has_a_report_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "measure", ending(KeyboardInterrupt(), after=3))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    assert status(tmp_path / "out") == "3 of 6 trials: interrupted; the same command goes on from here"
    assert "the test split is looked at once, at the end" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("unmeasured")
def test_a_search_that_fails_has_a_report_that_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "measure", ending(ValueError("no <memory>"), after=2))
    with pytest.raises(ValueError, match="no <memory>"):
        run(tmp_path / "out")
    assert status(tmp_path / "out") == r"2 of 6 trials: failed: no \<memory\>"


def test_a_condition_that_nothing_meets_is_said_in_the_report(tmp_path: Path) -> None:
    with pytest.raises(BitatlasError, match="--choose"):
        run(tmp_path / "out", choose="accuracy>=0.9999")
    assert status(tmp_path / "out").startswith(
        r"6 of 6 trials: failed: --choose accuracy\>=0.9999 must be met by a point of the front"
    )
    assert "No point is chosen." in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("unmeasured")
def test_a_report_that_cannot_be_written_does_not_hide_why_the_search_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "measure", ending(ValueError("the reason"), after=1))
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(ValueError, match="the reason") as raised:
        run(tmp_path / "out")
    assert raised.value.__notes__[0].startswith("the report could not be written: ")


def test_while_a_search_goes_on_the_text_follows_every_writing_and_the_page_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    class Watched(searching.Writer):
        def write(self) -> None:
            super().write()
            if self.trials:
                text = (self.folder / "report.md").read_text()
                seen.append((text.splitlines()[2], (self.folder / "report.html").exists()))

    monkeypatch.setattr(searching, "Writer", Watched)
    monkeypatch.setattr(searching, "WRITE_EVERY", 0.0)
    monkeypatch.setattr(searching, "REPORT_EVERY", 1e9)
    run(tmp_path / "out", trials=3)
    assert [text for text, _ in seen[:3]] == [
        f"**{n} of 3 trials: not finished; the same command goes on from here**" for n in (1, 2, 3)
    ]
    assert not any(there for _, there in seen)
    monkeypatch.setattr(searching, "REPORT_EVERY", 0.0)
    monkeypatch.setattr(searching, "REPORT_PAUSES", 0.0)
    seen.clear()
    run(tmp_path / "often", trials=2)
    assert all(there for _, there in seen)
