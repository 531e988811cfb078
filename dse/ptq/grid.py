"""The levels that each weight of an encoded tensor may take while its scales stay as they are."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.block_quantizer import BlockTensor
from formats.boundaries import level_codes
from formats.codec import Codes
from formats.errors import InvalidValueError
from formats.format import Format
from formats.methods.fitted import FittedTensor
from formats.quantizer import QuantizedTensor
from formats.tensor_quantizer import EncodedTensor

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """One format for all weights, and the factor that each weight's level is multiplied by, float32 in the weight's shape.

    A weight is ``factor * level``, rounded to float32, for any level of the format.
    """

    format: Format
    factors: Floats
    _encoded: Callable[[Codes], EncodedTensor]

    @cached_property
    def level_codes(self) -> NDArray[np.int64]:
        """Codes of the levels in ascending order of value, int64 of shape (L,)."""
        return level_codes(self.format)

    @cached_property
    def levels(self) -> Floats:
        """The levels in ascending order, float32 of shape (L,)."""
        found: Floats = self.format.float32_values[self.level_codes]
        return found

    def encode(self, weight: Floats) -> Codes:
        """Return the nearest code of every weight."""
        return self.format.encode(weight, self.factors)

    def values(self, codes: Codes) -> Floats:
        """Return what codes stand for, float32 in the weight's shape."""
        return self.format.decode(codes, self.factors)

    def lower_levels(self, weight: Floats) -> NDArray[np.int64]:
        """Return for every weight the index of the level below it: each has that level and the next as its two neighbours.

        A weight outside of the levels' range has the two levels at that end.
        """
        below = np.searchsorted(self.levels, weight / self.factors, side="right") - 1
        return np.clip(below, 0, len(self.levels) - 2)

    def codes_of(self, levels: NDArray[np.integer[Any]]) -> Codes:
        """Return the codes of levels by their indices."""
        codes: Codes = self.level_codes[levels].astype(self.format.code_dtype)
        return codes

    def store(self, codes: Codes) -> EncodedTensor:
        """Return codes in the weight's shape as the encoded tensor that they are, with the scales as they were."""
        return self._encoded(codes)


def grid(encoded: EncodedTensor) -> Grid:
    """Return the grid of an encoded tensor.

    Raises ``ValueError`` for a method whose codes do not each stand for one value times a scale.
    """
    if isinstance(encoded, (QuantizedTensor, FittedTensor)):
        return _of_rows(encoded)
    if isinstance(encoded, BlockTensor):
        return _of_blocks(encoded)
    raise InvalidValueError(
        "quantizer must give every weight a level of one format times a scale here, as formats (int4:channel:mse), block formats "
        f"(mxfp4), llmfp{{b}}, lloydfit{{b}} and tanq{{b}} do, not be {getattr(encoded, 'quantizer', type(encoded).__name__)}"
    )


def _of_rows(encoded: QuantizedTensor | FittedTensor) -> Grid:
    granularity = encoded.quantizer.granularity
    fmt = encoded.format if isinstance(encoded, FittedTensor) else encoded.quantizer.format
    spread = np.broadcast_to(encoded.scales[:, np.newaxis], encoded.rows.shape)

    def store(codes: Codes) -> EncodedTensor:
        # what groups are filled up with has no weight; it keeps the codes that it had
        rows = granularity.to_rows(codes)
        if granularity.pads(encoded.shape):
            present = granularity.to_rows(np.ones(encoded.shape, bool))
            rows = np.where(present, rows, encoded.rows)
        return replace(encoded, rows=rows)

    return Grid(format=fmt, factors=np.ascontiguousarray(granularity.from_rows(spread, encoded.shape)), _encoded=store)


def _of_blocks(encoded: BlockTensor) -> Grid:
    block_format = encoded.quantizer.block_format
    # what a block's elements are multiplied by is what an element of one stands for
    ones = np.full(encoded.rows.shape, block_format.element.encode(np.float32(1)))
    factors = block_format.decode(ones, encoded.scales).reshape(encoded.shape)

    def store(codes: Codes) -> EncodedTensor:
        return replace(encoded, rows=codes.reshape(encoded.rows.shape))

    return Grid(format=block_format.element, factors=factors, _encoded=store)
