"""The report of a search as files: its text alone, quick enough for every step, or with all that is drawn."""

from dse import plot, verdict
from dse.pages import formats_picture, front_data, history, html_page, markdown_page, sensitivity_picture
from dse.pages.facts import Facts
from dse.pages.sections import FORMATS, FRONT, HISTORY, PICTURES, SENSITIVITY, sections
from hwmodels.files import write_text

TEXT, PAGE = "report.md", "report.html"


def write_markdown(facts: Facts) -> None:
    """Write ``report.md``; it shows the pictures that lie in the folder, whose titles say how far the search was."""
    there = frozenset(picture.file for picture in PICTURES if (facts.folder / picture.file).exists())
    write_text(facts.folder / TEXT, markdown_page.page(sections(facts), there))


def write(facts: Facts) -> None:
    """Write the pictures, ``report.md`` and ``report.html``; a picture that cannot be drawn is removed, and the text says why."""
    trials = f"{len(facts.found.trials)} trials"
    drawn = (
        (FRONT.file, _draw_front(facts, trials)),
        (HISTORY.file, _draw_history(facts)),
        (FORMATS.file, _draw_formats(facts, trials)),
        (SENSITIVITY.file, _draw_sensitivity(facts)),
    )
    for file, made in drawn:
        if not made:
            (facts.folder / file).unlink(missing_ok=True)
    write_markdown(facts)
    write_text(facts.folder / PAGE, html_page.page(sections(facts), front_data.as_json(facts), facts.folder))


def _draw_front(facts: Facts, trials: str) -> bool:
    if all(trial.dropped for trial in facts.found.trials):
        return False
    title = f"{facts.title}: {trials}, {len(facts.found.front)} on the front"
    plot.write_front(facts.folder / FRONT.file, facts.found, facts.chosen, facts.float_accuracy, facts.objectives, title)
    return True


def _draw_history(facts: Facts) -> bool:
    made = history.history(facts.found, facts.validation_samples)
    if made is None:
        return False
    judged = verdict.judge(facts.found, facts.chosen)
    history.write(facts.folder / HISTORY.file, made, judged.uniform_volume, facts.title)
    return True


def _draw_formats(facts: Facts, trials: str) -> bool:
    if not facts.found.front:
        return False
    shown = formats_picture.columns(facts.found, facts.chosen)
    title = f"{facts.title}, {trials}"
    formats_picture.write(facts.folder / FORMATS.file, shown, facts.found.objectives, title)
    return True


def _draw_sensitivity(facts: Facts) -> bool:
    if facts.sensitivity is None:
        return False
    sensitivity_picture.write(facts.folder / SENSITIVITY.file, facts.sensitivity, facts.title)
    return True
