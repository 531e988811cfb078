"""Which values of a tensor share a scale."""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.names import unknown_name

_SIZE = "([1-9][0-9]{0,4})"
EXAMPLES = ("tensor", "channel", "group32", "block8x8")


@dataclass(frozen=True, kw_only=True)
class Granularity:
    """Which values share a scale: ``tensor``, ``channel``, ``group{n}``, ``block{r}x{c}``, or ``block`` for block formats.

    A channel is an index of the first axis; its values are the other axes flattened in C order. A group is n neighbouring values
    of a channel. A tile ``block{r}x{c}`` is c neighbouring values of each of r neighbouring channels. Groups and tiles at the
    edge may be smaller. ``block`` leaves it to the format.
    """

    name: str
    #: values of a group, or of one channel within a tile
    size: int = 0
    #: channels of a tile
    channels: int = 1

    @staticmethod
    def parse(text: str) -> "Granularity":
        """Read the text form, such as ``group32`` or ``block8x8``."""
        if text in ("tensor", "channel", "block"):
            return Granularity(name=text)
        group = re.fullmatch(f"group{_SIZE}", text)
        if group is not None:
            return Granularity(name="group", size=int(group[1]))
        tile = re.fullmatch(f"block{_SIZE}x{_SIZE}", text)
        if tile is None:
            raise unknown_name("granularity", text, EXAMPLES)
        return Granularity(name="tile", channels=int(tile[1]), size=int(tile[2]))

    def __str__(self) -> str:
        """Return the text form."""
        return {"group": f"group{self.size}", "tile": f"block{self.channels}x{self.size}"}.get(self.name, self.name)

    def row_count(self, shape: tuple[int, ...]) -> int:
        """Return how many scales a tensor of ``shape`` has."""
        if self.name == "tensor" or not shape:
            return 1
        channels, width = _padded(shape, self.channels, self.size)
        return channels if self.name == "channel" else channels // self.channels * (width // self.size)

    def row_length(self, shape: tuple[int, ...]) -> int:
        """Return how many values each row of a tensor of ``shape`` has."""
        if self.name == "tensor" or not shape:
            return math.prod(shape)
        return self.channels * self.size if self.size else math.prod(shape[1:])

    def pads(self, shape: tuple[int, ...]) -> bool:
        """Whether some group or tile of a tensor of ``shape`` is filled up with zeros."""
        return bool(shape) and math.prod(_padded(shape, self.channels, self.size)) != math.prod(shape)

    def to_rows(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the values of ``x`` as (R, n), one row for each scale; what is short is filled up with zeros."""
        if self.name == "tensor" or x.ndim == 0:
            return x.reshape(1, -1)
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        if self.name == "channel":
            return flat
        height, width = _padded(x.shape, self.channels, self.size)
        padded = np.pad(flat, ((0, height - flat.shape[0]), (0, width - flat.shape[1])))
        if self.name == "group":
            return padded.reshape(-1, self.size)
        tiles = padded.reshape(height // self.channels, self.channels, width // self.size, self.size).swapaxes(1, 2)
        return tiles.reshape(-1, self.channels * self.size)

    def from_rows(self, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Undo ``to_rows`` for a tensor of ``shape``."""
        if self.name not in ("group", "tile") or not shape:
            return rows.reshape(shape)
        height, width = _padded(shape, self.channels, self.size)
        if self.name == "tile":
            tiles = rows.reshape(height // self.channels, width // self.size, self.channels, self.size)
            rows = tiles.swapaxes(1, 2)
        return rows.reshape(height, width)[: shape[0], : math.prod(shape[1:])].reshape(shape)


TENSOR = Granularity(name="tensor")


def _padded(shape: tuple[int, ...], channels: int, size: int) -> tuple[int, int]:
    """Return the number of channels and of values of each, filled up to whole tiles."""
    width = math.prod(shape[1:])
    return shape[0] + -shape[0] % channels, width + -width % max(size, 1)
