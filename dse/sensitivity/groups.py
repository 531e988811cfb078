"""What is scored: groups of layers with options, and what an option puts into the layers' slots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dse.network import Filling, Network, Place
from formats.errors import InvalidValueError

Fillings = Mapping[tuple[str, Place], Filling]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers that take one option together."""

    name: str
    layers: tuple[str, ...]
    options: tuple[str, ...]


#: returns what an option puts into the slots of a group's layers
FillingsOf = Callable[[Group, str], Fillings]
#: losses of every option of every group: float64 of shape (options,) by group
Losses = tuple[NDArray[np.float64], ...]


def check(network: Network, groups: Sequence[Group]) -> None:
    """Refuse groups of unknown layers, layers that are in two groups, and groups without options."""
    known = {layer.name for layer in network.layers}
    taken: set[str] = set()
    for group in groups:
        if not group.layers or not group.options:
            raise InvalidValueError(f"a group must have layers and options, not lack them (group {group.name!r})")
        for name in group.layers:
            if name not in known or name in taken:
                what = "in one group" if name in taken else "in the network"
                raise InvalidValueError(f"layers of groups must be {what}, not {name!r} (group {group.name!r})")
            taken.add(name)


def all_fillings(groups: Sequence[Group], fillings_of: FillingsOf) -> list[list[Fillings]]:
    """Return the fillings of every option of every group, none of them for a layer outside its group."""
    made = []
    for group in groups:
        options = [fillings_of(group, option) for option in group.options]
        for option, fillings in zip(group.options, options, strict=True):
            foreign = [name for name, _ in fillings if name not in group.layers]
            if foreign:
                where = f"(group {group.name!r}, option {option!r})"
                raise InvalidValueError(f"fillings must be for the group's layers, not for {foreign[0]!r} {where}")
        made.append(options)
    return made


def filled_copy(filling: Filling, operand: Tensor) -> Tensor:
    """Return what a filling makes of an operand, which stays as it is: fillings may overwrite what they are given."""
    return filling(operand.clone())
