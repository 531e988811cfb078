"""What the report of a search says, in order, whatever it is written as."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dse import provenance, verdict
from dse.objectives import Objective
from dse.pages import front_files
from dse.pages.content import Block, Front, Listing, Picture, Section, Table, Text
from dse.pages.drawing import even
from dse.pages.facts import Facts
from dse.search import Evaluated

#: rows of a table at most; the CSV files hold all
MOST_ROWS = 60
FRONT = Picture(file="front.png", caption="Accuracy and divergence against each cost")
HISTORY = Picture(file="history.png", caption="Hypervolume of the front against evaluations")
FORMATS = Picture(file="formats.png", caption="Formats of every layer at points of the front")
SENSITIVITY = Picture(file="sensitivity.png", caption="Loss of each option for each group of layers")
PICTURES = (FRONT, HISTORY, FORMATS, SENSITIVITY)


def sections(facts: Facts) -> tuple[Section, ...]:
    """Return the report, naming only pictures that lie in the folder."""
    return (
        Section(title=facts.title, blocks=_opening(facts)),
        Section(title="Verdict", blocks=_verdict(facts)),
        Section(title="Front", blocks=_front(facts)),
        Section(title="Chosen formats", blocks=_chosen(facts)),
        Section(title="Uniform assignments", blocks=_uniform(facts)),
        Section(title="History", blocks=_history(facts)),
        Section(title="Sensitivities", blocks=_sensitivities(facts)),
        Section(title="How it was made", blocks=_provenance(facts)),
    )


def _opening(facts: Facts) -> tuple[Block, ...]:
    found, layers = facts.found, sum(map(len, facts.groups))
    tied = "" if len(facts.groups) == layers else f" in {len(facts.groups)} groups that share formats"
    settings = facts.settings
    options = f"weights from {', '.join(settings.weights)}; activations from {', '.join(settings.activations)}"
    for name, rows in (("network", settings.network_steps), ("layers", settings.layer_steps)):
        options += f"; steps on the {name} from {', '.join(rows)}" if rows != ("none",) else ""
    bounds = f", within {', '.join(map(str, found.bounds))}" if found.bounds else ""
    dropped = sum(bool(trial.dropped) for trial in found.trials)
    infeasible = sum(not trial.dropped and not trial.feasible(found.bounds) for trial in found.trials)
    counts = f"{len(found.trials)} trials, {dropped} of them dropped after few samples, {infeasible} beyond a bound"
    return (
        Text(text=facts.status, strong=True),
        Text(text=f"Searched: {layers} layers{tied}; {options}."),
        Text(text=f"Objectives: {', '.join(_objective(o) for o in found.objectives)}{bounds}."),
        Text(text=f"Sampler {settings.sampler}, seed {settings.seed}; {counts}; {len(found.front)} on the front."),
    )


def _objective(objective: Objective) -> str:
    better = "lower" if objective.direction == "minimize" else "higher"
    return f"{objective.header} ({better} is better)"


def _verdict(facts: Facts) -> tuple[Block, ...]:
    first, *rest = verdict.lines(verdict.judge(facts.found, facts.chosen))
    blocks = [Text(text=_sentence(first), strong=True), *(Text(text=_sentence(line)) for line in rest)]
    if facts.held_out is not None:
        test, validation = facts.held_out, facts.validation_samples
        blocks.append(
            Text(
                text=f"Accuracy of the chosen point on the {test.samples} test samples, which the search never looked at: "
                f"{test.accuracy:.4f} (float32: {test.float_accuracy:.4f}); measured once, for this point alone. "
                f"Every other accuracy here is of the {validation} validation samples (float32: {facts.float_accuracy:.4f})."
            )
        )
    else:
        text = f"Every accuracy here is of the {facts.validation_samples} validation samples (float32: {facts.float_accuracy:.4f})"
        blocks.append(Text(text=f"{text}; the test split is looked at once, at the end of a search, for the point that is chosen."))
    if facts.agreement:
        blocks.append(Text(text=f"model.onnx, run by onnxruntime over the validation split: {facts.agreement}."))
    return tuple(blocks)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _front(facts: Facts) -> tuple[Block, ...]:
    points = facts.found.front_trials
    if not points:
        return (Text(text="No trial that was measured in full keeps the bounds yet, so there is no front."),)
    most = f"{MOST_ROWS} of the {len(points)} points, evenly; front.csv has all. " if len(points) > MOST_ROWS else ""
    example = facts.chosen or points[0]
    return (
        Front(picture=FRONT),
        Text(text=f"{most}Every point is an assignment file; this exports trial {example.number}:"),
        Listing(text=front_files.export_command(facts.folder, example.number, facts.settings.data_dir)),
        Table(frame=front_table(facts)),
    )


def front_table(facts: Facts) -> pd.DataFrame:
    """Return a row for each point of the front, at most ``MOST_ROWS`` of them, in order of the first objective."""
    points = facts.found.front_trials
    picked = [points[i] for i in even(len(points), MOST_ROWS)]
    return _figures(facts, picked).assign(assignment=[front_files.name(point.number) for point in picked])


def _figures(facts: Facts, trials: Sequence[Evaluated]) -> pd.DataFrame:
    rows = [
        {"trial": trial.number, "origin": trial.origin}
        | {facts.objectives[name].header: float(trial.figures[name]) for name in facts.figures}
        for trial in trials
    ]
    return pd.DataFrame(rows)


def _chosen(facts: Facts) -> tuple[Block, ...]:
    if facts.chosen is None:
        return (Text(text="No point is chosen."),)
    how = f"the cheapest with {facts.settings.choose}" if facts.settings.choose else "the knee of the front"
    steps = f"; steps on the network: {'+'.join(facts.chosen.assignment.steps)}" if facts.chosen.assignment.steps else ""
    remarks = [Text(text=f"{name}: {remark}") for name, remark in facts.chosen.remarks.items()]
    layers = facts.chosen.assignment.layers
    rows = [
        {"layer": name, "weight": str(layer.weight), "activation": str(layer.activation)}
        | ({"steps": "+".join(layer.steps)} if any(other.steps for other in layers.values()) else {})
        for name, layer in layers.items()
    ]
    chosen = Text(text=f"Chosen is trial {facts.chosen.number} ({facts.chosen.origin}), {how}{steps}.")
    return (chosen, *remarks, *_if_there(facts.folder, FORMATS), Table(frame=pd.DataFrame(rows)))


def _if_there(folder: Path, picture: Picture) -> tuple[Picture, ...]:
    return (picture,) if (folder / picture.file).exists() else ()


def _uniform(facts: Facts) -> tuple[Block, ...]:
    uniform = [trial for trial in facts.found.trials if trial.uniform and not trial.dropped]
    if not uniform:
        return (Text(text="No uniform assignment was measured."),)
    by = facts.found.objectives[-1]
    uniform.sort(key=lambda trial: (by.loss(trial.figures), trial.number))
    on_front = {trial.number for trial in facts.found.front_trials}
    picked = [uniform[i] for i in even(len(uniform), MOST_ROWS)]
    marks = ["yes" if trial.number in on_front else "" for trial in picked]
    feasible = ["yes" if trial.feasible(facts.found.bounds) else "no" for trial in picked]
    most = f"; {MOST_ROWS} of {len(uniform)}, trials.csv has all" if len(uniform) > MOST_ROWS else ""
    lead = f"Every layer given the same pair, activations unsigned where they can be{most}."
    return (Text(text=lead), Table(frame=_figures(facts, picked).assign(**{"keeps the bounds": feasible, "on the front": marks})))


def _history(facts: Facts) -> tuple[Block, ...]:
    judged = verdict.judge(facts.found, facts.chosen)
    if judged.box is None:
        why = "fewer than two objectives differ among the feasible trials, so there is no hypervolume and no picture of it"
        return (Text(text=_sentence(why)),)
    return (*_if_there(facts.folder, HISTORY), Text(text=_sentence(f"hypervolume is the {judged.box}")))


def _sensitivities(facts: Facts) -> tuple[Block, ...]:
    if facts.sensitivity is None:
        why = "none lie in this folder" if facts.settings.sampler == "front" else f"sampler {facts.settings.sampler} needs none"
        return (Text(text=f"There is no picture of sensitivities: {why}."),)
    said = f"What each option of one group adds to the divergence by itself, scored by {facts.settings.sensitivity}."
    return (Text(text=said), *_if_there(facts.folder, SENSITIVITY))


def _provenance(facts: Facts) -> tuple[Block, ...]:
    settings = facts.settings.to_toml()
    command = (Text(text="The command:"), Listing(text=facts.command)) if facts.command else (Text(text="Called from Python."),)
    return (
        *command,
        Text(text=f"{provenance.day()}; {provenance.machine()}; {provenance.versions()}."),
        Text(text="The settings, as search.toml has them (dse search --config reads such a file):"),
        Listing(text=settings.rstrip()),
    )
