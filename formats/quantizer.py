"""A format with a scaling policy, and tensors quantized by it."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.codec import Codes
from formats.errors import InvalidValueError
from formats.format import Format
from formats.names import unknown_name
from formats.registry import scalar
from formats.scaling import ScaleChoice


@dataclass(frozen=True, kw_only=True)
class Granularity:
    """Which values share a scale: the whole ``tensor``, each ``channel`` (index of the first axis), or ``group{n}``.

    A group is n neighbouring values within a channel, its axes flattened in C order; the last may be shorter.
    """

    name: str
    size: int = 0

    @staticmethod
    def parse(text: str) -> "Granularity":
        """Read the text form, such as ``group32``."""
        if text in ("tensor", "channel"):
            return Granularity(name=text)
        match = re.fullmatch(r"group([1-9][0-9]{0,4})", text)
        if match is None:
            raise unknown_name("granularity", text, ("tensor", "channel", "group32"))
        return Granularity(name="group", size=int(match[1]))

    def __str__(self) -> str:
        """Return the text form."""
        return f"group{self.size}" if self.name == "group" else self.name

    def to_rows(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the values of ``x`` as (R, n), one row for each scale; a short last group is filled up with zeros."""
        if self.name == "tensor" or x.ndim == 0:
            return x.reshape(1, -1)
        channels = x.reshape(len(x), math.prod(x.shape[1:]))
        if self.name == "channel":
            return channels
        short = -channels.shape[1] % self.size
        return np.pad(channels, ((0, 0), (0, short))).reshape(-1, self.size)

    def from_rows(self, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Undo ``to_rows`` for a tensor of ``shape``."""
        if self.name != "group" or not shape:
            return rows.reshape(shape)
        per_channel = math.prod(shape[1:])
        padded = per_channel + -per_channel % self.size
        return rows.reshape(shape[0], padded)[:, :per_channel].reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """A format's name, which values share a scale, and how the scale is chosen.

    Its text form joins the three by colons and round-trips: ``int4:channel:mse``, ``e2m1:group32:absmax``,
    ``uint8:tensor:percentile99.9``.
    """

    format_name: str
    granularity: Granularity
    choice: ScaleChoice

    @staticmethod
    def parse(text: str, *, granularity: str = "tensor", choice: str = "absmax") -> "Quantizer":
        """Read the text form; the second and the third part may be left out and take the defaults given here."""
        parts = text.split(":")
        if len(parts) > 3 or not all(parts):
            raise InvalidValueError(f"quantizer must be FORMAT[:GRANULARITY[:CHOICE]], such as int4:channel:mse, not {text!r}")
        name, granularity, choice = (*parts, *(granularity, choice)[len(parts) - 1 :])
        return Quantizer(
            format_name=scalar(name).name, granularity=Granularity.parse(granularity), choice=ScaleChoice.parse(choice)
        )

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.format_name}:{self.granularity}:{self.choice}"

    @property
    def format(self) -> Format:
        """The format itself."""
        return scalar(self.format_name)

    def scales(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the chosen scale of each row of ``granularity.to_rows(x)``, float32 of shape (R,)."""
        return self.choice.scales(self.format, self.granularity.to_rows(x))

    def encode(self, x: NDArray[np.float32]) -> "QuantizedTensor":
        """Choose scales for ``x`` and encode it."""
        rows = self.granularity.to_rows(x)
        scales = self.choice.scales(self.format, rows)
        codes = self.format.encode(rows, scales[:, np.newaxis])
        return QuantizedTensor(quantizer=self, shape=x.shape, rows=codes, scales=scales)


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor:
    """A tensor as hardware stores it: codes and scales.

    ``rows`` are codes of shape (R, n), ``scales`` float32 of shape (R,), both laid out as ``quantizer.granularity`` says.
    """

    quantizer: Quantizer
    shape: tuple[int, ...]
    rows: Codes
    scales: NDArray[np.float32]

    @cached_property
    def codes(self) -> Codes:
        """The codes in the tensor's own shape."""
        return self.quantizer.granularity.from_rows(self.rows, self.shape)

    def decode(self) -> NDArray[np.float32]:
        """Return the float32 values that the codes and scales stand for, in the tensor's own shape."""
        rows = self.quantizer.format.decode(self.rows, self.scales[:, np.newaxis])
        return self.quantizer.granularity.from_rows(rows, self.shape)
