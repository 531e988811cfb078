"""The page in a real browser: Debian's Chromium without a window, from a file, with a pointer."""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from dse import cli
from dse.pages import writing
from dse.pages.facts import Facts
from dse.report import Outcome
from dse.searching import search
from dse.settings import SearchSettings

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not os.environ.get("CI"):
        for program in ("chromium", "chromedriver"):
            if shutil.which(program) is None:
                pytest.skip(f"needs {program}: install chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1500,1300"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium has none to offer to root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


class Page:
    """A report in the browser, and what one does with it."""

    def __init__(self, browser: Any, folder: Path) -> None:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser, self.css = browser, By.CSS_SELECTOR
        self.wait = WebDriverWait(browser, 20)
        for log in ("browser", "performance"):
            browser.get_log(log)  # those of the page before
        browser.get((folder / "report.html").as_uri())
        self.wait.until(lambda _: self.found("#front-plot .points path"))

    def found(self, selector: str) -> list[Any]:
        elements: list[Any] = self.browser.find_elements(self.css, selector)
        return elements

    def text(self, selector: str) -> str:
        return "\n".join(element.text for element in self.found(selector))

    def traces(self) -> list[dict[str, Any]]:
        script = "return document.getElementById('front-plot').data.map(({name, x, y, customdata}) => ({name, x, y, customdata}))"
        traces: list[dict[str, Any]] = self.browser.execute_script(script)
        return traces

    def point(self, trial: int) -> Any:
        """Return the mark of a trial, which can be pointed at."""
        shown = [trace for trace in self.traces() if trace["x"] and not (trace["customdata"] is None and trace["name"] is None)]
        number, trace = next((i, t) for i, t in enumerate(shown) if trial in (t["customdata"] or []))
        marks = [group.find_elements(self.css, ".points path") for group in self.found("#front-plot .scatterlayer .trace")]
        marks = [group for group in marks if group]  # a line has none
        return marks[number][trace["customdata"].index(trial)]

    def point_at(self, trial: int, *, click: bool = False) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.browser).move_to_element(self.point(trial))
        (actions.click() if click else actions).perform()

    def requests(self) -> set[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {url.partition(":")[0] for url in sent}

    def complaints(self) -> list[Any]:
        log: list[Any] = self.browser.get_log("browser")
        return log


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "it's a search"
    search(
        SearchSettings(model="resnet8", data="digits", formats=("int8", "int4"), trials=9, sampler="tpe", out=str(folder)),
        say=lambda text: None,
    )
    return folder


@pytest.fixture
def page(browser: Any, searched: Path) -> Page:
    return Page(browser, searched)


def test_a_point_shows_its_assignment_and_clicked_the_command_that_exports_it(
    page: Page, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = min((searched / "front").iterdir())
    assignment = json.loads(file.read_text())
    trial = int(file.stem)
    page.point_at(trial)
    page.wait.until(lambda _: page.found("#front-plot .hoverlayer .hovertext"))
    label = page.text("#front-plot .hoverlayer .hovertext")
    assert label.startswith(f"trial {trial} (uniform ")
    for name, layer in assignment["layers"].items():
        weight, activation = (layer[role].split(":")[0] for role in ("weight", "activation"))
        assert f"{name}: {weight} / {activation}" in label
    page.point_at(trial, click=True)
    page.wait.until(lambda _: page.found("#export-command"))
    for layer in assignment["layers"].values():
        assert layer["weight"] in page.text("#panel")
    page.found("#copy-command")[0].click()
    page.wait.until(lambda _: page.text("#copy-command") == "Copied")
    command = shlex.split(page.text("#export-command"))
    monkeypatch.chdir(tmp_path)
    assert command[0] == "dse"
    assert cli.main(command[1:]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"model-{trial:03d}.onnx"]
    onnx.checker.check_model(tmp_path / f"model-{trial:03d}.onnx")
    assert (page.requests(), page.complaints()) == ({"file", "data"}, [])


def test_axes_switch_between_figures_and_scales(page: Page) -> None:
    def kinds() -> list[str]:
        script = "const {xaxis, yaxis} = document.getElementById('front-plot').layout; return [xaxis.type, yaxis.type]"
        made: list[str] = page.browser.execute_script(script)
        return made

    def choose(selector: str) -> None:
        page.found(selector)[0].click()

    assert kinds() == ["log", "log"]
    choose("#x-log")
    assert kinds() == ["linear", "log"]
    choose("#y-figure option[value=accuracy]")
    page.wait.until(lambda _: "float32: 0.9900" in page.text("#front-plot .annotation"))
    assert kinds() == ["linear", "linear"]
    choose("#x-figure option[value=bops]")
    assert kinds() == ["log", "linear"]
    assert "bops [bit operation, widths]" in page.text("#front-plot .xtitle")
    assert page.complaints() == []


def test_a_row_of_a_table_shows_its_trial(page: Page) -> None:
    row = page.found("tr[data-trial]")[-1]
    page.browser.execute_script("arguments[0].click()", row)
    assert page.text("#panel h3").startswith(f"Trial {row.get_attribute('data-trial')}: ")
    assert {other.get_attribute("data-trial") for other in page.found("tr.selected")} == {row.get_attribute("data-trial")}


def test_a_moved_folder_is_exported_from_where_it_is(browser: Any, searched: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(searched, tmp_path / "moved & renamed #2")
    page = Page(browser, moved)
    page.point_at(int(min((searched / "front").iterdir()).stem), click=True)
    page.wait.until(lambda _: page.found("#export-command"))
    assert Path(shlex.split(page.text("#export-command"))[3]).parent == moved / "front"


def test_names_that_look_like_markup_are_shown_as_they_are(
    browser: Any, tmp_path: Path, make_search: Callable[..., Outcome], make_facts: Callable[..., Facts]
) -> None:
    facts = make_facts(tmp_path, make_search(layers=40, model=HOSTILE, name=HOSTILE + "{}", steps=True))
    writing.write(facts)
    page = Page(browser, tmp_path)
    assert page.text("h1") == f"{HOSTILE} on digits"
    assert facts.chosen is not None
    page.point_at(facts.chosen.number)
    page.wait.until(lambda _: page.found("#front-plot .hoverlayer .hovertext"))
    assert f"{HOSTILE}0" in page.text("#front-plot .hoverlayer .hovertext")
    assert len(page.found("#front-plot .hoverlayer .hovertext .line")) <= 19
    page.point_at(facts.chosen.number, click=True)
    page.wait.until(lambda _: page.found("#export-command"))
    assert f"{HOSTILE}39" in page.text("#panel")
    assert (page.requests(), page.complaints()) == ({"file", "data"}, [])
