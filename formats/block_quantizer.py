"""Block formats as quantizers: the format itself says which values share a scale, how it is chosen and how it is stored."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.block import BlockFormat, BlockScales
from formats.codec import Codes
from formats.errors import InvalidValueError
from formats.format import Format
from formats.granularity import Granularity
from formats.registry import get
from formats.tensor_quantizer import StorageBits


@dataclass(frozen=True, kw_only=True)
class BlockQuantizer:
    """A block format along each channel's values, flattened in C order; its text form is ``mxfp4:block:absmax``."""

    format_name: str

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.format_name}:block:absmax"

    @property
    def block_format(self) -> BlockFormat:
        """The format itself."""
        found = get(self.format_name)
        assert isinstance(found, BlockFormat)
        return found

    @property
    def granularity(self) -> Granularity:
        """``block``: the format's own."""
        return Granularity(name="block")

    @property
    def width(self) -> float:
        """Bits of an element's code."""
        return self.block_format.bits

    @property
    def format(self) -> Format:
        """Refuse: an element's code has no value apart from its block's scale."""
        raise InvalidValueError(f"format must be one whose codes stand alone here, not the block format {self.format_name}")

    @property
    def formats(self) -> tuple[Format, ...]:
        """The element's and the scale's format."""
        return (self.block_format.element, self.block_format.scale_format)

    @property
    def static(self) -> bool:
        """Never: scales follow the values."""
        return False

    def per_tensor(self) -> "BlockQuantizer":
        """Return itself: blocks are part of the format."""
        return self

    def fit(self, sample: NDArray[Any]) -> tuple[Format, float]:
        """Refuse: scales follow the values."""
        raise InvalidValueError(f"quantizer of an activation must come down to one format and one scale, not be {self}")

    def encode(self, x: NDArray[np.float32]) -> "BlockTensor":
        """Quantize a tensor, block by block along each channel."""
        codes, scales = self.block_format.encode(_channels(x))
        return BlockTensor(quantizer=self, shape=x.shape, rows=codes, scales=scales)

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of codes, of the blocks' scales, and of the tensor's where the format has one."""
        count, channels = math.prod(shape), shape[0] if shape else 1
        fmt = self.block_format
        blocks = channels * -(-count // max(channels, 1) // fmt.block)
        tensor = 32 if fmt.scale == "e4m3" else 0
        return StorageBits(codes=count * fmt.bits, scales=blocks * fmt.scale_format.bits + tensor)


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockTensor:
    """A tensor in a block format: ``rows`` are codes of shape (channels, values of each), ``scales`` as the format gives them."""

    quantizer: BlockQuantizer
    shape: tuple[int, ...]
    rows: Codes
    scales: BlockScales

    @property
    def codes(self) -> Codes:
        """The codes in the tensor's own shape."""
        return self.rows.reshape(self.shape)

    @property
    def storage_bits(self) -> StorageBits:
        """Bits that the tensor takes."""
        return self.quantizer.storage_bits(self.shape)

    def decode(self) -> NDArray[np.float32]:
        """Return the float32 values in the tensor's own shape."""
        return self.quantizer.block_format.decode(self.rows, self.scales).reshape(self.shape)


def _channels(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim else x.reshape(1, 1)
