"""The table that proposals are made from: what every option of every group adds to the divergence and to each cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dse import results
from dse.objectives import Objective
from dse.problem import Problem
from dse.proposals.frame import Frame
from dse.proposals.rounds import Plan, Proposal, plan
from dse.proposals.table import ChoiceTable, Column
from dse.proposals.variants import Variants
from dse.ptq import steps as stepping
from dse.results import code_version
from dse.sensitivity import groups as scored
from dse.sensitivity import store
from dse.sensitivity.score import score
from dse.settings import Fingerprint
from dse.space import Option
from formats.errors import InvalidValueError
from hwmodels.files import cache_directory

LOSS = "kl"
#: calibration samples that sensitivities are scored on
SAMPLES = 256


def minimised(objective: Objective, figure: float) -> float:
    """Return a figure as something above zero of which less is better: the reciprocal of one that is maximised."""
    return figure if objective.direction == "minimize" else 1.0 / max(figure, 1e-300)


def figures_to_minimise(problem: Problem, figures: Mapping[str, float]) -> dict[str, float]:
    """Return the divergence and the cost objectives and bounds of measured figures, all to be minimised."""
    return {LOSS: figures[LOSS], **{o.name: minimised(o, figures[o.name]) for o in cost_objectives(problem)}}


def cost_objectives(problem: Problem) -> list[Objective]:
    """Return the costs that are objectives or have bounds, each once."""
    bounded = [bound.objective for bound in problem.bounds]
    return list(dict.fromkeys(o for o in (*problem.objectives, *bounded) if o.is_cost))


def losses(problem: Problem, method: str, folder: Path, network_steps: str, samples: int = SAMPLES, seed: int = 0) -> ChoiceTable:
    """Return the scored losses of every option, from the folder or the cache where they were scored before.

    What was scored for another search, with other budgets or costs, is not scored again. Raises ``BitatlasError`` where the folder
    holds losses of something else.
    """
    row = stepping.parse_row(network_steps, "network")
    images = problem.experiment.preparation.calibration.images[:samples]
    fingerprint = _fingerprint(problem, method, network_steps, len(images), seed)
    rows = problem.space.network_steps
    path = folder / f"sensitivity{'' if len(rows) == 1 else f'-{rows.index(network_steps)}'}.json"
    if path.exists():
        return store.read(path, fingerprint)
    kept = cache_directory() / "sensitivity" / f"{results.key(*fingerprint.parts, *fingerprint.parts.values())}.json"
    if kept.exists():
        table = store.read(kept, fingerprint)
    else:
        table = _scored(problem, method, row, images, seed, path.with_suffix(".partial.json"), fingerprint)
        kept.parent.mkdir(parents=True, exist_ok=True)
        store.write(kept, table, fingerprint)
    store.write(path, table, fingerprint)
    return table


def _fingerprint(problem: Problem, method: str, network_steps: str, samples: int, seed: int) -> Fingerprint:
    space = problem.space
    return Fingerprint(
        parts={
            **problem.experiment.identity,
            "network steps": network_steps,
            "method": method,
            "samples": str(samples),
            "seed": str(seed),
            "groups": "; ".join(f"{group.name}: {', '.join(group.layers)}" for group in space.groups),
            "options": "; ".join(map(str, space.uniform)),
            "formats": problem.definitions,
            "code": code_version(),
        }
    )


def _scored(
    problem: Problem,
    method: str,
    row: tuple[str, ...],
    images: NDArray[np.float32],
    seed: int,
    partial: Path,
    fingerprint: Fingerprint,
) -> ChoiceTable:
    space, preparation = problem.space, problem.experiment.preparation.after(row)
    by_name = {group.name: group for group in space.groups}
    groups = [scored.Group(name=g.name, layers=g.layers, options=tuple(map(str, space.options(g)))) for g in space.groups]

    def fillings_of(group: scored.Group, option: str) -> scored.Fillings:
        return preparation.layer_fillings(problem.layer_assignments(by_name[group.name], Option.parse(option), row))

    found = score(
        preparation.network, groups, fillings_of, images, method=method, seed=seed, partial_file=partial, fingerprint=fingerprint
    )
    return ChoiceTable(groups=tuple(by_name), options=tuple(group.options for group in groups), losses=found)


def with_costs(problem: Problem, table: ChoiceTable) -> ChoiceTable:
    """Return the table with what every option adds to each cost.

    What is a sum over layers is exact. Of a cost that the network as a whole settles, an option's part is the layers' own figures,
    or their share of the multiply-accumulates, in the network that has this option everywhere: a stand-in, which proposals are made
    by and never judged by.
    """
    space = problem.space
    costs = {option: problem.uniform_cost(option) for option in space.uniform}
    layers = problem.experiment.preparation.network.layers
    macs = {layer.name: layer.workload.macs for layer in layers}
    total = sum(macs.values())

    def part(objective: Objective, option: Option, names: Sequence[str]) -> float:
        found = costs[option]
        if objective.direction == "minimize" and all(objective.name in found.layers[name] for name in names):
            return sum(found.layers[name][objective.name] for name in names)
        return minimised(objective, found.total[objective.name]) * sum(macs[name] for name in names) / total

    def column(objective: Objective) -> Column:
        return tuple(
            np.array([part(objective, space.as_uniform(group, option), group.layers) for option in space.options(group)])
            for group in space.groups
        )

    return table.with_costs({objective.name: column(objective) for objective in cost_objectives(problem)})


def proposal_plan(problem: Problem, variants: Variants) -> Plan:
    """Return what to try first, in which frame, and the budgets that proposals keep.

    Raises ``BitatlasError`` where no objective is a cost, and where no selection keeps the bounds on costs.
    """
    tables = tuple(variants.tables.values())
    # what comes out the same whatever is chosen is nothing to propose by
    names = [o.name for o in problem.objectives if o.is_cost and any(np.ptp(part) > 0 for part in variants.first.column(o.name))]
    if not names:
        given = ", ".join(objective.name for objective in problem.objectives)
        raise InvalidValueError(
            f"objectives must hold a cost that depends on the formats for the sampler front, not only {given}; "
            "nearest: --sampler tpe"
        )
    frame = Frame.of_all(tables, LOSS, names)
    uniform = [
        Proposal(selection=selection(problem, variants.first, option), origin=f"uniform {str(option).replace(' ', '/')}")
        for option in problem.space.uniform
    ]
    exact = {
        b.objective.name: minimised(b.objective, b.limit) for b in problem.bounds if b.objective.is_cost and b.objective.by_layer
    }
    return plan(tables, frame, uniform=uniform, budgets=exact)


def selection(problem: Problem, table: ChoiceTable, option: Option) -> tuple[int, ...]:
    """Return the selection that gives every group the same option, without steps where there is no weight to prepare."""
    return table.selection({group.name: str(problem.space.fitted(group, option)) for group in problem.space.groups})


def variants(problem: Problem, method: str, folder: Path) -> Variants:
    """Return losses and costs of every option, for every row of the network's steps."""
    rows = problem.space.network_steps
    return Variants(tables={row: with_costs(problem, losses(problem, method, folder, row)) for row in rows})
