"""What everything that quantizes a tensor can do: a format with a scaling policy, a block format, a method of the literature."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from formats.codec import Codes
from formats.format import Format
from formats.granularity import Granularity


class StorageBits(NamedTuple):
    """Bits that a quantized tensor takes: codes as ``formats.pack`` packs them, and everything else needed to decode them."""

    codes: int
    scales: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.codes + self.scales


class EncodedTensor(Protocol):
    """A tensor as hardware stores it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""

    @property
    def storage_bits(self) -> StorageBits:
        """Bits that it takes."""

    def decode(self) -> NDArray[np.float32]:
        """Return the float32 values that it stands for, in the tensor's own shape."""


class TensorQuantizer(Protocol):
    """Anything that quantizes a tensor, by its text form; hashable, equal to another of the same text.

    The first axis of a tensor holds its channels.
    """

    @property
    def granularity(self) -> Granularity:
        """Which values share a scale."""

    @property
    def width(self) -> float:
        """Bits of code for one value, scales apart."""

    @property
    def format(self) -> Format:
        """The one table of values that every code is looked up in; ``ValueError`` where there is none."""

    @property
    def formats(self) -> tuple[Format, ...]:
        """The registered formats whose codes it writes."""

    @property
    def static(self) -> bool:
        """Whether ``fit`` can fix it beforehand to one format and one scale, as an activation needs."""

    def per_tensor(self) -> "TensorQuantizer":
        """Return the same with one scale for the whole tensor, as far as it can be had."""

    def encode(self, x: NDArray[np.float32]) -> EncodedTensor:
        """Quantize a float32 tensor of any shape. Raises ``ValueError`` for NaN and infinities."""

    def fit(self, sample: NDArray[Any]) -> tuple[Format, float]:
        """Return the format and the scale for values like those of ``sample``; ``ValueError`` where it is not static."""

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits that a tensor of ``shape`` takes."""


Q = TypeVar("Q", bound=TensorQuantizer)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowTensor(Generic[Q]):
    """An encoded tensor with a code for each value: ``rows`` of shape (R, n), laid out as the quantizer's granularity says."""

    quantizer: Q
    shape: tuple[int, ...]
    rows: Codes

    @cached_property
    def codes(self) -> Codes:
        """The codes in the tensor's own shape."""
        return self.quantizer.granularity.from_rows(self.rows, self.shape)

    @property
    def storage_bits(self) -> StorageBits:
        """Bits that the tensor takes."""
        return self.quantizer.storage_bits(self.shape)
