"""A report is valid whatever the search has found, and no name in it is taken for markup."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dse.objectives import MEASURED, Bound
from dse.pages import writing
from dse.pages.facts import Facts, HeldOut, Sensitivity
from dse.report import Outcome
from dse.search import Evaluated

MakeFacts = Callable[..., Facts]
HOSTILE = "</script><script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = str(dict(attrs).get("id") or tag)

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    @property
    def trials(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["front-data"])
        return found


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory,
    make_search: Callable[..., Outcome],
    make_facts: MakeFacts,
    make_sensitivity: Callable[[Outcome], Sensitivity],
) -> Path:
    folder = tmp_path_factory.mktemp("report") / "a <b> & 'c'"
    found = make_search(model=HOSTILE, name=HOSTILE + "{}")
    held_out = HeldOut(accuracy=0.9512, float_accuracy=0.9921, samples=397)
    writing.write(make_facts(folder, found, held_out=held_out, sensitivity=make_sensitivity(found), agreement="equal"))
    return folder


def test_a_report_has_every_picture_and_nothing_half_written(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {"report.md", "report.html", "front.png", "history.png", "formats.png", "sensitivity.png"}
    assert set(re.findall(r"!\[[^]]*\]\((.*?)\)", (written / "report.md").read_text())) == {n for n in names if n.endswith(".png")}


def test_both_reports_say_the_same(written: Path) -> None:
    texts = (written / "report.md").read_text(), (written / "report.html").read_text()
    for said in (
        "24 of 24 trials: finished",
        "6 layers; weights from int8, int4; activations from int8, int4",
        "points of the front are mixed; its hypervolume is 0.",
        "397 test samples, which the search never looked at: 0.9512 (float32: 0.9921)",
        "4 of them dropped after few samples",
        "dse search --model net",
        "numpy ",
        "weight_formats = [",
    ):
        assert [said in text.replace("&quot;", '"') for text in texts] == [True, True], said


def test_names_are_text_and_never_markup(written: Path) -> None:
    found = page(written)
    assert [tag for tag, _ in found.tags].count("script") == 3
    assert "alert(1)" not in found.texts["script"]
    assert found.trials["layers"][0] == HOSTILE + "0"
    assert found.trials["title"] == f"{HOSTILE} on digits"
    assert HOSTILE in found.texts["title"]
    assert HOSTILE not in (written / "report.md").read_text().split("```")[0]


def test_a_page_is_whole_and_fetches_nothing(written: Path) -> None:
    found = page(written)
    sources = [str(value) for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    policy = next(a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; ")
    assert 4e6 < (written / "report.html").stat().st_size < 7e6


def test_the_page_knows_every_trial_measured_in_full(written: Path, make_search: Callable[..., Outcome]) -> None:
    found, shown = make_search(model=HOSTILE, name=HOSTILE + "{}"), page(written).trials
    full = [trial for trial in found.trials if not trial.dropped]
    assert [trial["number"] for trial in shown["trials"]] == [trial.number for trial in full]
    assert shown["dropped"] == 4
    for trial, entry in zip(full, shown["trials"], strict=True):
        layers = trial.assignment.layers.values()
        assert [shown["texts"][i] for i in entry["weights"]] == [str(layer.weight) for layer in layers]
        assert [shown["texts"][i] for i in entry["activations"]] == [str(layer.activation) for layer in layers]
        on_front = trial in found.front_trials
        assert entry["file"] == (f"front/{trial.number:03d}.json" if on_front else None)
        assert (entry["kind"] in ("front", "chosen")) == on_front
    assert [entry["kind"] for entry in shown["trials"]].count("chosen") == 1
    assert (shown["x"], shown["y"]) == ("lut", "kl")
    assert [figure["logarithmic"] for figure in shown["figures"]] == [False, True, True]


def test_one_trial_is_enough(
    tmp_path: Path, make_facts: MakeFacts, make_trial: Callable[..., Evaluated], make_outcome: Callable[..., Outcome]
) -> None:
    writing.write(make_facts(tmp_path, make_outcome(make_trial(0, "int4/int4", 0.1, 10)), status="1 of 9 trials: interrupted"))
    text = (tmp_path / "report.md").read_text()
    assert "**1 of 9 trials: interrupted**" in text
    assert "so there is no hypervolume and no picture of it." in text
    assert "There is no picture of sensitivities: none lie in this folder." in text
    assert "the test split is looked at once, at the end of a search, for the point that is chosen." in text
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html", "front.png", "formats.png"}
    assert len(page(tmp_path).trials["trials"]) == 1


def test_no_front_is_said_and_pictures_of_an_earlier_one_go(
    tmp_path: Path, make_facts: MakeFacts, make_trial: Callable[..., Evaluated], make_outcome: Callable[..., Outcome]
) -> None:
    for name in ("history.png", "formats.png"):
        (tmp_path / name).write_bytes(b"")
    bound = Bound.parse("kl<=0.01", {"kl": MEASURED[1]})
    found = make_outcome(make_trial(0, "int4/int4", 0.1, 10), make_trial(1, "int8/int8", 0.05, 20), bounds=(bound,))
    writing.write(make_facts(tmp_path, found))
    text = (tmp_path / "report.md").read_text()
    assert "No trial that was measured in full keeps the bounds yet, so there is no front." in text
    assert "No point is chosen." in text
    assert "2 beyond a bound; 0 on the front." in text
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html", "front.png"}


def test_one_objective_needs_no_hypervolume(
    tmp_path: Path, make_facts: MakeFacts, make_trial: Callable[..., Evaluated], make_outcome: Callable[..., Outcome]
) -> None:
    trials = [make_trial(i, pair, 0.1 / (i + 1), 10) for i, pair in enumerate(("int4/int4", "int8/int8"))]
    writing.write(make_facts(tmp_path, make_outcome(*trials, objectives=(MEASURED[1],))))
    assert "so there is no hypervolume and no picture of it." in (tmp_path / "report.md").read_text()
    assert (page(tmp_path).trials["x"], page(tmp_path).trials["y"]) == ("lut", "kl")
