"""From a search as it stands to what its report says of it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from dse import provenance
from dse.addresses import shown
from dse.pages.facts import Facts, HeldOut, Sensitivity
from dse.problem import Problem
from dse.proposals.table import ChoiceTable
from dse.ptq import steps as stepping
from dse.report import Outcome
from dse.search import Evaluated
from dse.space import Option
from dse.stating import Statement


def facts(
    statement: Statement,
    folder: Path,
    found: Outcome,
    chosen: Evaluated | None,
    status: str,
    *,
    held_out: HeldOut | None = None,
    agreement: str = "",
) -> Facts:
    """Gather what the report of a search says."""
    problem, settings = statement.problem, statement.settings
    experiment = problem.experiment
    return Facts(
        folder=folder,
        settings=settings,
        command=command(settings.storage),
        groups=tuple(group.layers for group in problem.space.groups),
        found=found,
        chosen=chosen,
        status=status,
        objectives=statement.objectives,
        float_accuracy=experiment.float_figures("validation").accuracy,
        validation_samples=len(experiment.split("validation")),
        held_out=held_out,
        agreement=agreement,
        sensitivity=sensitivity(problem, folder, chosen),
    )


def held_out(problem: Problem, chosen: Evaluated) -> HeldOut:
    """Measure the chosen point, and it alone, on the test split."""
    experiment = problem.experiment
    return HeldOut(
        accuracy=experiment.measure(chosen.assignment, "test").accuracy,
        float_accuracy=experiment.float_figures("test").accuracy,
        samples=len(experiment.split("test")),
    )


def command(storage: str | None) -> str:
    """Return the command line without the password of the database in it; empty where Python code called."""
    secret = storage or ""
    return provenance.command_line([text.replace(secret, shown(secret)) if secret else text for text in sys.argv])


def sensitivity(problem: Problem, folder: Path, chosen: Evaluated | None) -> Sensitivity | None:
    """Return the losses that lie in the folder, for the network after the chosen point's steps; None where there are none.

    They are those of this very search: it refuses others before its first trial.
    """
    rows = problem.space.network_steps
    used = stepping.row(chosen.assignment.steps) if chosen is not None else rows[0]
    suffix = f"-{rows.index(used)}" if len(rows) > 1 and used in rows else ""
    path = folder / f"sensitivity{suffix}.json"
    if not path.exists():
        return None
    table = ChoiceTable.from_json(json.dumps(json.loads(path.read_text(encoding="utf-8"))["table"]))
    return Sensitivity(table=table, chosen=chosen_options(problem, table, chosen) if chosen is not None else {})


def chosen_options(problem: Problem, table: ChoiceTable, chosen: Evaluated) -> Mapping[str, str]:
    """Return by group the option of the table that an assignment has there, where it has one of them."""
    layers, row = chosen.assignment.layers, chosen.assignment.steps
    found = {}
    for group in problem.space.groups:
        own = {name: layers[name] for name in group.layers}
        for option in table.options[table.groups.index(group.name)]:
            if problem.layer_assignments(group, Option.parse(option), row) == own:
                found[group.name] = option
                break
    return found
