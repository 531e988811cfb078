"""What a layer's codes are to come near to, and how far from it they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.ptq.grid import Grid
from dse.ptq.moments import Moments, moments
from dse.ptq.step import LayerData, PreparedWeight
from formats.codec import Codes
from formats.tensor_quantizer import EncodedTensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Aim:
    """The weight that codes shall stand for, and what the layer's output error follows from."""

    #: the float weight less what a low-rank product adds, float32 in the weight's shape
    weight: NDArray[np.float32]
    moments: Moments
    #: what is added to the bias, float32 of shape (output channels,)
    shift: NDArray[np.float32] | None

    def errors(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean squared error on the calibration operand of every output channel, for decoded codes."""
        return self.moments.squared_errors(values.astype(np.float64) - self.weight, self.shift)

    def better(self, grid: Grid, codes: Codes, before: EncodedTensor) -> Codes:
        """Return for every output channel those codes, of these and of ``before``'s with the same scales, that err less.

        The ones before win a tie. Output channels do not bear on each other's errors.
        """
        old = grid.encode(before.decode())  # a level of the grid is its own nearest
        worse = self.errors(grid.values(codes)) >= self.errors(before.decode())
        kept: Codes = np.where(worse.reshape(-1, *(1,) * (codes.ndim - 1)), old, codes)
        return kept


def aim(data: LayerData, prepared: PreparedWeight) -> Aim:
    """Return the aim of a layer. Raises ``ValueError`` for one without a stored weight."""
    known, weight = moments(data), data.weight
    if prepared.low_rank is not None:
        weight = (weight - prepared.low_rank.values().reshape(weight.shape)).astype(np.float32)
    return Aim(weight=weight, moments=known, shift=prepared.bias_shift)
