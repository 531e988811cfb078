"""What a search chooses from: two formats and steps for every group of tied layers, and steps for the network."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from optuna.distributions import CategoricalDistribution

from dse.ptq.steps import NONE

#: the parameter that names the steps of the whole network
NETWORK = "network steps"
PARTS = ("weight", "activation", "steps")


class Option(NamedTuple):
    """What a group of layers may be given: texts of two quantizers and of a row of steps."""

    weight: str
    activation: str
    steps: str = NONE

    def __str__(self) -> str:
        """Return the text form; none of its parts holds a blank."""
        return f"{self.weight} {self.activation}" + (f" {self.steps}" if self.steps != NONE else "")

    @staticmethod
    def parse(text: str) -> "Option":
        """Read the text form."""
        return Option(*text.split(" "))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers that get the same formats and steps, called by the first one's name."""

    layers: tuple[str, ...]
    #: whether any of them has a stored weight, which steps could prepare
    stored: bool

    @property
    def name(self) -> str:
        """The group's name."""
        return self.layers[0]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Groups, and what to choose from, as the user named it."""

    groups: tuple[Group, ...]
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    #: rows of steps to choose from for a layer's weight, and for the network
    steps: tuple[str, ...] = (NONE,)
    network_steps: tuple[str, ...] = (NONE,)

    def options(self, group: Group) -> tuple[Option, ...]:
        """Return what a group may be given."""
        steps = self.steps if group.stored else (NONE,)
        return tuple(Option(*parts) for parts in itertools.product(self.weights, self.activations, steps))

    def fitted(self, group: Group, option: Option) -> Option:
        """Return what a uniform option comes to for a group: without stored weights there is nothing for steps to prepare."""
        return option if group.stored else option._replace(steps=NONE)

    def as_uniform(self, group: Group, option: Option) -> Option:
        """Return the uniform option of which a group without stored weights takes the formats alone."""
        return option if group.stored else option._replace(steps=self.steps[0])

    @property
    def uniform(self) -> tuple[Option, ...]:
        """Everything that all groups may be given alike: pairs of one format first, then by weight, without steps first."""
        options = [Option(*parts) for parts in itertools.product(self.weights, self.activations, self.steps)]
        return tuple(sorted(options, key=lambda option: (option.steps != self.steps[0], option.weight != option.activation)))

    def distributions(self) -> dict[str, CategoricalDistribution]:
        """Return one categorical parameter for each thing to choose."""
        found = {NETWORK: CategoricalDistribution(self.network_steps)} if len(self.network_steps) > 1 else {}
        for group in self.groups:
            choices = dict(zip(PARTS, (self.weights, self.activations, self.steps), strict=True))
            if not group.stored or self.steps == (NONE,):
                del choices["steps"]
            found |= {f"{group.name}/{part}": CategoricalDistribution(given) for part, given in choices.items()}
        return found

    def params(self, chosen: Mapping[str, Option], network_steps: str | None = None) -> dict[str, str]:
        """Return a trial's parameters for options by group name."""
        values = {f"{name}/{part}": text for name, option in chosen.items() for part, text in zip(PARTS, option, strict=True)}
        values[NETWORK] = network_steps or self.network_steps[0]
        return {name: values[name] for name in self.distributions()}

    def chosen(self, params: Mapping[str, str]) -> dict[str, Option]:
        """Return the options by group name that a trial's parameters stand for."""
        return {
            group.name: Option(
                params[f"{group.name}/weight"],
                params[f"{group.name}/activation"],
                params.get(f"{group.name}/steps", NONE),
            )
            for group in self.groups
        }

    def chosen_network_steps(self, params: Mapping[str, str]) -> str:
        """Return the row of network steps that a trial's parameters stand for."""
        return params.get(NETWORK, self.network_steps[0])
