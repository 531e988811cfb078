"""Channel spaces: channels of a network whose stored tensors may be changed together without changing its function.

A space has ``size`` channels. Its diagonal maps multiply what is written into channel c by a positive factor and what is read from
it by the inverse; its orthogonal maps replace the vector x of all its channels by Q x and the rows w of what reads it by Q w. In
both cases every element of every member changes by the map itself or by its inverse transposed, which for an orthogonal map is the
map. Networks are analysed by labels (``channel_labels``) under the rules of their operators (``channel_operators``).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from dse.network import Network, Place
from dse.ptq.channel_classes import OUTSIDE, Classes, Index, distinct, varies
from dse.ptq.channel_labels import Labelling, Passes, Role
from dse.ptq.channel_operators import labelled


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A stored tensor of a space: its elements change by the space's map (``sign`` 1) or by its inverse transposed (-1).

    ``index`` broadcasts against the tensor and holds the channel of each element, ``OUTSIDE`` for those that do not change.
    """

    tensor: str
    #: the layer, or the module of a norm or of another stored tensor
    owner: str
    role: Role
    sign: int
    index: Index


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A computed operand of a layer that carries channels of a space; ``index`` broadcasts against its shape for a batch of one."""

    layer: str
    place: Place
    sign: int
    index: Index


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Channels that change together.

    A product's contraction ties its two factors inversely to each other: what writes the second one then stands with the readers.
    """

    passes: Passes
    size: int
    members: tuple[Member, ...]
    readings: tuple[Reading, ...]
    #: nodes of the norms that an orthogonal map passes; whether it must map the vector of ones to itself for one of them
    norms: tuple[str, ...] = ()
    keeps_mean: bool = False

    @property
    def writers(self) -> tuple[str, ...]:
        """Owners of tensors that change by the map itself."""
        return self._owners(1)

    @property
    def readers(self) -> tuple[str, ...]:
        """Owners of tensors that change by the map's inverse transposed."""
        return self._owners(-1)

    def weights(self, sign: int) -> tuple[Member, ...]:
        """Return the members that multiply: weights of layers, and scales of norms and of channels."""
        return tuple(member for member in self.members if member.sign == sign and member.role in ("weight", "scale"))

    def _owners(self, sign: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.owner for member in self.members if member.sign == sign))

    def __str__(self) -> str:
        """Return the owners of its tensors and its number of channels."""
        return f"{', '.join(self.writers)} -> {', '.join(self.readers)} ({self.size} channels)"


def spaces(network: Network, passes: Passes) -> tuple[Space, ...]:
    """Return the network's channel spaces for diagonal or for orthogonal maps, in the order in which they are written.

    Every element of a tensor belongs to one space of a kind at most for its output channels and to one for its input channels.
    """
    labelling = labelled(network, passes)
    found = _Found(labelling, Classes(labelling))
    grouped: dict[tuple[_Key, ...], list[int]] = defaultdict(list)
    for number, key in sorted(found.keys().items()):
        grouped[tuple(key)].append(number)
    made = (found.space(key, np.array(numbers)) for key, numbers in grouped.items())
    return tuple(space for space in made if space is not None)


def vector_axis(index: Index, size: int) -> int | None:
    """Return the axis along which an index holds every channel of its space, each once, or none of them; None without one."""
    for axis in range(index.ndim):
        rows = np.sort(np.moveaxis(index, axis, -1).reshape(-1, index.shape[axis]), axis=1)
        inside = rows[(rows != OUTSIDE).any(axis=1)]
        whole = bool(len(inside)) and index.shape[axis] >= size
        if whole and (inside[:, :-size] == OUTSIDE).all() and (inside[:, -size:] == np.arange(size)).all():
            return axis
    return None


class _Key(NamedTuple):
    """What a channel has in common with the others of its space: a tensor and its sign, or an operator and one of its vectors."""

    kind: Literal["touch", "row"]
    number: int
    part: int


class _Found:
    """What bears on the classes: for every tensor twice the class of each element, plus one where it carries the factor itself."""

    def __init__(self, labelling: Labelling, classes: Classes) -> None:
        self.labelling = labelling
        self.touched = [_cut(classes.signed(touch.variable, touch.sign)) for touch in labelling.touches]
        self.read = [_cut(classes.signed(read.variable, 1)) for read in labelling.reads]
        self.rows = [distinct(classes.of(rows.variable)) for rows in labelling.rows] if labelling.orthogonal else []

    def keys(self) -> dict[int, list[_Key]]:
        """Return what every class that may change has in common with others."""
        keys: dict[int, list[_Key]] = defaultdict(list)
        for number, signed in enumerate(self.touched):
            for value in np.unique(signed[signed != OUTSIDE]):
                keys[int(value) // 2].append(_Key("touch", number, 2 * (int(value) % 2) - 1))
        for number, rows in enumerate(self.rows):
            for part, row in enumerate(rows):
                for value in np.unique(row[row != OUTSIDE]):
                    keys[int(value)].append(_Key("row", number, part))
        return keys

    def space(self, key: tuple[_Key, ...], numbers: Index) -> Space | None:
        """Make a space of classes with one key; None where nothing reads or writes them, or where they are no vector."""
        position = np.full(self.labelling.count, OUTSIDE)
        position[numbers] = np.arange(len(numbers))
        touches = [(self.labelling.touches[part.number], part) for part in key if part.kind == "touch"]
        rows = [self.labelling.rows[part.number] for part in key if part.kind == "row"]
        space = Space(
            passes=self.labelling.passes,
            size=len(numbers),
            members=tuple(
                Member(
                    tensor=touch.tensor,
                    owner=touch.owner,
                    role=touch.role,
                    sign=part.part,
                    index=_index(self.touched[part.number], position, part.part),
                )
                for touch, part in touches
            ),
            readings=tuple(self._readings(position)),
            norms=tuple(dict.fromkeys(row.norm for row in rows if row.norm is not None)),
            keeps_mean=any(row.mean for row in rows),
        )
        if not (space.writers and space.readers) or (self.labelling.orthogonal and not _is_vector(space)):
            return None
        return space

    def _readings(self, position: Index) -> Iterator[Reading]:
        for read, signed in zip(self.labelling.reads, self.read, strict=True):
            for sign in (1, -1):
                index = _index(signed, position, sign)
                if (index != OUTSIDE).any():
                    yield Reading(layer=read.layer, place=read.place, sign=sign, index=index)


def _index(signed: Index, position: Index, sign: int) -> Index:
    """Return the channel of every element that carries the factor itself (1) or the inverse (-1)."""
    return _cut(np.where((signed != OUTSIDE) & (signed % 2 == (sign > 0)), position[signed // 2], OUTSIDE))


def _is_vector(space: Space) -> bool:
    indices = [part.index for part in space.members] + [part.index for part in space.readings]
    return space.size > 1 and all(vector_axis(index, space.size) is not None for index in indices)


def _cut(index: Index) -> Index:
    """Return an index with the axes that it is the same along cut to length one."""
    for axis in range(index.ndim):
        if not varies(index, axis):
            index = index.take([0], axis)
    return index
