"""What a search is about: an experiment, what may be chosen, what is good and what is allowed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.definitions import definitions
from dse.experiment import Experiment
from dse.network import ROLES, Role
from dse.objectives import MEASURED_RANGES, Bound, Objective
from dse.ptq import steps as stepping
from dse.space import Group, Option, Space
from dse.ties import ties
from formats.errors import BitatlasError
from hwmodels import cost
from hwmodels.cost import Cost


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched: an experiment, its space, its objectives and its bounds."""

    experiment: Experiment
    space: Space
    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...]

    @property
    def definitions(self) -> str:
        """SHA-256 over what the formats to choose from mean."""
        named: tuple[tuple[Role, tuple[str, ...]], ...] = (("weight", self.space.weights), ("activation", self.space.activations))
        return definitions(parse_quantizer(text, role) for role, texts in named for text in texts)

    def assignment(self, params: Mapping[str, str]) -> Assignment:
        """Return the assignment that a trial's parameters stand for, signedness fitted to each layer."""
        return self.assigned(self.space.chosen(params), self.space.chosen_network_steps(params))

    def assigned(self, chosen: Mapping[str, Option], network_steps: str) -> Assignment:
        """Return the assignment of options by group name."""
        row = stepping.parse_row(network_steps, "network")
        layers: dict[str, LayerAssignment] = {}
        for group in self.space.groups:
            layers |= self.layer_assignments(group, chosen[group.name], row)
        subject = self.experiment.subject
        in_order = {layer.name: layers[layer.name] for layer in self.experiment.preparation.network.layers}
        return Assignment(model=subject.model, data=subject.dataset.name, layers=in_order, steps=row)

    def layer_assignments(self, group: Group, option: Option, row: tuple[str, ...] = ()) -> dict[str, LayerAssignment]:
        """Return what an option means for each layer of a group, after the network's steps in ``row``."""
        preparation = self.experiment.preparation.after(row)
        weight, activation = (parse_quantizer(text, role) for text, role in zip(option[:2], ROLES, strict=True))
        steps = stepping.parse_row(option.steps, "layer", "block")
        return {name: preparation.resolve(preparation.network.layer(name), weight, activation, steps) for name in group.layers}

    def uniform(self, option: Option, network_steps: str | None = None) -> Assignment:
        """Return the assignment that gives every group the same."""
        chosen = {group.name: self.space.fitted(group, option) for group in self.space.groups}
        return self.assigned(chosen, network_steps or self.space.network_steps[0])

    def figures(self, assignment: Assignment) -> dict[str, float]:
        """Return accuracy, KL and every total cost of an assignment."""
        measured = self.experiment.measure(assignment)
        return {"accuracy": measured.accuracy, "kl": measured.kl, **self.experiment.cost(assignment).total}

    def check_reachable(self) -> None:
        """Raise where a bound on a cost cannot be kept by any assignment of the space, saying by how much.

        Costs that are settled for the network as a whole have no such bound beforehand: they are asked for once with every row of
        steps, so that what no assignment could change, such as a rate beyond any folding, is said before the search.
        """
        for row in self.space.network_steps:  # what this network has no place for is said before the search too
            self.experiment.preparation.after(stepping.parse_row(row, "network"))
        for steps in self.space.steps:
            option = next(option for option in self.space.uniform if option.steps == steps)
            self.experiment.cost(self.uniform(option))
        for bound in self.bounds:
            if bound.objective.is_cost and not bound.objective.by_layer:
                continue
            if not bound.objective.is_cost:
                best = MEASURED_RANGES[bound.objective.name][bound.comparison == ">="]
                if bound.violation({bound.objective.name: best}) > 0:
                    raise BitatlasError(f"constraint {bound} must be within reach, not beyond the best there is, {best:g}")
            else:
                self._check_cost(bound)

    def _check_cost(self, bound: Bound) -> None:
        best, names = self._extreme(bound)
        missed = bound.violation({bound.objective.name: best})
        if missed > 0:
            unit = bound.objective.unit
            raise BitatlasError(
                f"constraint {bound} must be within reach of the formats given, not missed by {missed:g} {unit}: "
                f"the nearest is {best:g} {unit} (with {names})"
            )

    def _extreme(self, bound: Bound) -> tuple[float, str]:
        """Return the cost nearest to the bound's good side; such costs are sums over layers, so each group is taken by itself."""
        name = bound.objective.name
        pick: Callable[..., Option] = min if bound.comparison == "<=" else max
        costs = {option: self.uniform_cost(option, separable=True) for option in self.space.uniform}
        total, used = 0.0, set()
        for group in self.space.groups:
            sums = {
                option: sum(costs[self.space.as_uniform(group, option)].layers[layer][name] for layer in group.layers)
                for option in self.space.options(group)
            }
            chosen = pick(sums, key=sums.__getitem__)
            total += sums[chosen]
            used.add(str(chosen).replace(" ", "/"))
        return total, ", ".join(sorted(used))

    def uniform_cost(self, option: Option, *, separable: bool = False) -> Cost:
        """Return the costs of a uniform assignment, by all cost models or by those that price each layer by itself."""
        models = [model for model in self.experiment.cost_models if model.separable or not separable]
        return cost.evaluate(models, self.experiment.plans(self.uniform(option)))


def groups_of(experiment: Experiment, patterns: tuple[str, ...], *, automatic: bool) -> tuple[Group, ...]:
    """Return the network's layers in groups that share their formats."""
    network = experiment.preparation.network
    return tuple(
        Group(layers=names, stored=any(network.layer(name).weight is not None for name in names))
        for names in ties(network, patterns, automatic)
    )
