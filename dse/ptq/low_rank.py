"""Low-rank compensation: two thin stored factors whose product stands for most of what rounding took off.

LoRC (Yao et al., "ZeroQuant-V2", arXiv 2303.08302, section 4): the singular value decomposition ``W - W^ = U S V`` is cut to the
``rank`` largest values, and ``U sqrt(S)`` and ``sqrt(S) V`` are stored. The matrix of a convolution has its output channels as rows
and input channels times kernel as columns, groups of channels among the rows. The factors are quantized like any other tensor, so
the product corrects what it can of the rest; they cost ``rank * (rows + columns)`` values beside the weight's codes.

With ``weighted`` it is the error of the layer's output on the calibration operand that the product of that rank lessens most, by
the decomposition of ``(W - W^) H**(1/2)`` (see ``dse.ptq.moments``; H is the mean over the groups of channels). That is a
convention of this project, not the paper's.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dse.ptq.alone import alone
from dse.ptq.capture import stored
from dse.ptq.moments import Floats, moments
from dse.ptq.step import LayerData, LowRank, PreparedWeight
from formats.errors import InvalidValueError
from formats.quantizer import Quantizer
from formats.tensor_quantizer import TensorQuantizer

#: share of the mean of H's diagonal that is added to it, so that it has a root and an inverse
DAMPING = 1e-4


@dataclass(frozen=True, kw_only=True)
class LowRankCompensation:
    """A product of two stored factors beside the codes."""

    name: ClassVar[str] = "lorc"
    summary: ClassVar[str] = "add a product of two thin factors for most of what rounding took off"

    #: columns of the left factor and rows of the right; fewer where the weight has fewer of either
    rank: int = 4
    #: quantizer of both factors, as text; a row of each is a channel
    factors: str = "int8:channel:mse"
    #: whether the output's error counts instead of the weight's
    weighted: bool = True

    def __post_init__(self) -> None:
        """Refuse options out of their range."""
        if self.rank < 1:
            raise InvalidValueError(f"rank of lorc must be at least 1, not {self.rank}")
        Quantizer.parse(self.factors, granularity="channel")

    def apply(self, data: LayerData, quantizer: TensorQuantizer, prepared: PreparedWeight) -> PreparedWeight:
        """Return the weight with factors for what its codes leave; factors that it came with are replaced."""
        rows = stored(data.layer).workload.output_channels
        error = (data.weight.astype(np.float64) - prepared.encoded.decode()).reshape(rows, -1)
        root = _root(moments(data).second.mean(axis=0)) if self.weighted else None
        with alone():
            left, right = _cut(error, min(self.rank, len(error), error.shape[1]), root)
        kept = Quantizer.parse(self.factors, granularity="channel")
        return replace(prepared, low_rank=LowRank(left=kept.encode(left), right=kept.encode(right)))


def _root(second: Floats) -> tuple[Floats, Floats]:
    """Return H**(1/2) and its inverse."""
    with alone():
        values, vectors = torch.linalg.eigh(torch.from_numpy(second))
    sizes, axes = np.asarray(values.numpy()), np.asarray(vectors.numpy())
    sizes = np.sqrt(np.maximum(sizes, 0) + DAMPING * max(float(np.trace(second)) / len(second), float(np.finfo(np.float32).tiny)))
    return (axes * sizes) @ axes.T, (axes / sizes) @ axes.T


def _cut(error: Floats, rank: int, root: tuple[Floats, Floats] | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return factors (rows, rank) and (rank, columns) of least squared error, each with the root of the singular values.

    The largest entry of each column of the left factor is positive, so that one decomposition of the two is always the same.
    """
    matrix = torch.from_numpy(error if root is None else error @ root[0])
    left, sizes, right = (np.asarray(part.numpy()) for part in torch.linalg.svd(matrix, full_matrices=False))
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    left, right = left * signs * np.sqrt(sizes), (signs * np.sqrt(sizes))[:, np.newaxis] * right
    if root is not None:
        right = right @ root[1]
    return left[:, :rank].astype(np.float32), right[:rank].astype(np.float32)
