"""GPTQ: weights are rounded one column after the other, and those still to come make up for the error.

Frantar et al., arXiv 2210.17323, on any grid: "round" is the nearest level of any format, be it uniform, a minifloat or
logarithmic. A convolution's columns are its input channels times the kernel, for each group of channels on its own.

- **Damping**: ``damping`` times the mean of H's diagonal is added to it (section 3.3, step 3). A column whose input is always zero
  on the calibration data is rounded to the nearest, for data on which it is not.
- **Act-order**: columns of large H[i, i] come first (the authors' code; not in the paper).
- **Scales** of a tensor or a channel are those of the weight as it came. Scales of groups, tiles and blocks are chosen when their
  first column is reached, for the weights as they are by then, by the quantizer's own rule, which replaces scales of an earlier
  step; with act-order, whose columns come from all groups in turn, they are those of the weight as it came ("static groups"), and
  so they are where scales are stored under a second scale (``double``, ``float8_e4m3fn``) or follow a fitted code book.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dse.ptq.aim import aim
from dse.ptq.alone import alone
from dse.ptq.grid import Grid, grid
from dse.ptq.moments import Floats
from dse.ptq.step import LayerData, PreparedWeight
from formats.block_quantizer import BlockTensor
from formats.codec import Codes
from formats.errors import BitatlasError, InvalidValueError
from formats.quantizer import QuantizedTensor
from formats.scale_storage import NO_SECOND, StoredScales
from formats.tensor_quantizer import EncodedTensor, TensorQuantizer


@dataclass(frozen=True, kw_only=True)
class Gptq:
    """Column-by-column rounding with propagation of the error."""

    name: ClassVar[str] = "gptq"
    summary: ClassVar[str] = "round column by column; the columns still to come make up for the error"

    #: share of the mean of the diagonal of H that is added to it
    damping: float = 0.01
    #: whether columns with the largest inputs come first
    act_order: bool = True
    #: columns after which all that follow are updated at once: for speed, the result is the same but for float64's rounding
    block: int = 128

    def __post_init__(self) -> None:
        """Refuse options out of their range."""
        if not self.damping > 0:
            raise InvalidValueError(f"damping of gptq must be above 0, not {self.damping}")
        if self.block < 1:
            raise InvalidValueError(f"block of gptq must be at least 1, not {self.block}")

    def apply(self, data: LayerData, quantizer: TensorQuantizer, prepared: PreparedWeight) -> PreparedWeight:
        """Return the weight with new codes; output channels that they do not serve better keep what they had.

        Where channels share tiles of scales, they do so together.
        """
        wanted = aim(data, prepared)
        scales = None if self.act_order else _reached(prepared.encoded, wanted.weight)
        with alone():
            codes, levels = self._codes(wanted.moments.second, wanted.weight, grid(prepared.encoded), scales, data.layer.name)
        if scales is None:
            return prepared.with_codes(levels.store(wanted.better(levels, codes, prepared.encoded)))
        found = scales.store(codes)
        gained = wanted.errors(prepared.encoded.decode()) - wanted.errors(found.decode())
        return prepared.with_codes(scales.kept(found, gained))

    def _codes(
        self, second: Floats, weight: NDArray[np.float32], levels: Grid, scales: "_Reached | None", name: str
    ) -> tuple[Codes, Grid]:
        """Return the codes in the weight's shape, and the grid with the scales that they go with."""
        groups, columns = second.shape[:2]
        hessian, left, factors = second.copy(), weight.reshape(groups, -1, columns).astype(np.float64), levels.factors
        diagonal = np.einsum("gii->gi", hessian)  # a view
        diagonal[diagonal == 0] = 1
        order = np.argsort(-diagonal, axis=1, kind="stable") if self.act_order else np.tile(np.arange(columns), (groups, 1))
        diagonal += self.damping * diagonal.mean(axis=1, keepdims=True)
        hessian = np.take_along_axis(np.take_along_axis(hessian, order[:, :, np.newaxis], 1), order[:, np.newaxis], 2)
        by_row = order[:, np.newaxis]
        left = np.take_along_axis(left, by_row, 2)
        factors = np.take_along_axis(factors.reshape(left.shape), by_row, 2)
        step = self.block if scales is None else -(-self.block // scales.size) * scales.size
        codes, factors = _round_columns(left, factors, levels, _inverse_factor(hessian, name), step, scales)
        back = np.argsort(by_row, axis=2)
        restored: NDArray[Any] = np.take_along_axis(codes, back, 2).reshape(weight.shape)
        return restored, replace(levels, factors=np.take_along_axis(factors, back, 2).reshape(weight.shape))


def _inverse_factor(hessian: Floats, name: str) -> Floats:
    """Return the upper triangular U with U'U = H**-1 for every group (step 2 of the paper's algorithm)."""
    try:
        lower = torch.linalg.cholesky(torch.from_numpy(hessian))
        factor: Floats = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).numpy()
    except RuntimeError:  # what torch raises for a matrix that is not positive definite
        raise BitatlasError(
            f"damping of gptq must be large enough to make the second moments invertible: raise it (layer {name!r})"
        ) from None
    return factor


def _round_columns(
    left: Floats, factors: NDArray[np.float32], levels: Grid, inverse: Floats, step: int, scales: "_Reached | None"
) -> tuple[Codes, NDArray[np.float32]]:
    """Round the columns of ``left``, (groups, rows, columns), which is changed; return codes and the factors that they go with."""
    columns, factors = left.shape[2], factors.copy()
    codes: NDArray[Any] = np.zeros(left.shape, levels.format.code_dtype)
    for start in range(0, columns, step):
        stop = min(start + step, columns)
        errors = np.zeros((*left.shape[:2], stop - start))
        for i in range(start, stop):
            if scales is not None and i % scales.size == 0:
                reached = left[:, :, i : i + scales.size]
                flat = reached.reshape(-1, reached.shape[2]).astype(np.float32)
                factors[:, :, i : i + scales.size] = scales.reach(flat).reshape(reached.shape)
            column = levels.format.encode(left[:, :, i].astype(np.float32), factors[:, :, i])
            codes[:, :, i], rounded = column, levels.format.decode(column, factors[:, :, i])
            error = (left[:, :, i] - rounded) / inverse[:, i, i, np.newaxis]
            left[:, :, i:stop] -= error[:, :, np.newaxis] * inverse[:, i, np.newaxis, i:stop]
            errors[:, :, i - start] = error
        if stop < columns:
            left[:, :, stop:] -= torch.bmm(torch.from_numpy(errors), torch.from_numpy(inverse[:, start:stop, stop:])).numpy()
    return codes, factors


class _Reached(Protocol):
    """Scales that are chosen when the columns that share them are reached."""

    #: columns that share scales
    size: int

    def reach(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Choose scales for the next columns, (output channels, at most ``size``), and return the factor of every weight."""

    def store(self, codes: Codes) -> Any:
        """Return all codes, in the weight's shape, with the scales chosen."""

    def kept(self, found: Any, gained: Floats) -> EncodedTensor:
        """Return what was stored where an output channel's error falls by it, else what came."""


def _reached(encoded: EncodedTensor, weight: NDArray[np.float32]) -> _Reached | None:
    """Return how scales are chosen on the way, or None where they stay as they are."""
    if isinstance(encoded, BlockTensor):
        return _Blocks(encoded, np.abs(weight).max(initial=0))
    if not isinstance(encoded, QuantizedTensor) or not encoded.quantizer.granularity.size:
        return None
    return None if len(encoded.stored.second.blocks) or encoded.stored.second.tensor != 1 else _Groups(encoded)


class _Groups:
    """Scales of groups or tiles, by the quantizer's rule."""

    def __init__(self, encoded: QuantizedTensor) -> None:
        self.encoded, self.size = encoded, encoded.quantizer.granularity.size
        self.chosen: list[NDArray[Any]] = []

    def reach(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        found = self.encoded.quantizer.encode(weight)
        self.chosen.append(found.stored.codes)
        return grid(found).factors

    def store(self, codes: Codes) -> QuantizedTensor:
        rows = self.encoded.quantizer.granularity.to_rows(codes)
        return self._with(rows, np.stack(self.chosen, axis=1).reshape(-1))

    def kept(self, found: QuantizedTensor, gained: Floats) -> QuantizedTensor:
        sharing = self.encoded.quantizer.granularity.channels
        better = np.pad(gained, (0, -len(gained) % sharing)).reshape(-1, sharing).sum(axis=1) > 0
        rows = np.repeat(better, len(found.rows) // len(better))
        codes = np.where(rows, found.stored.codes, self.encoded.stored.codes)
        return self._with(np.where(rows[:, np.newaxis], found.rows, self.encoded.rows), codes)

    def _with(self, rows: Codes, codes: NDArray[Any]) -> QuantizedTensor:
        stored = StoredScales(storage=self.encoded.stored.storage, codes=codes, second=NO_SECOND)
        return replace(self.encoded, rows=rows, stored=stored)


class _Blocks:
    """Scales of a block format's blocks; the tensor's own scale, where there is one, stays that of the weight as it came."""

    def __init__(self, encoded: BlockTensor, largest: np.float32) -> None:
        self.encoded, self.largest = encoded, largest
        self.size = encoded.quantizer.block_format.block
        self.chosen: list[NDArray[np.uint8]] = []
        self.tensor = encoded.scales.tensor

    def reach(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        # one more row, with the largest magnitude of all, sets the tensor's scale
        last = np.zeros((1, weight.shape[1]), np.float32)
        last[0, 0] = self.largest
        found = self.encoded.quantizer.encode(np.concatenate([np.clip(weight, -self.largest, self.largest), last]))
        self.chosen.append(found.scales.codes[:-1])
        self.tensor = found.scales.tensor
        return grid(found).factors[:-1]

    def store(self, codes: Codes) -> BlockTensor:
        scales = self.encoded.scales._replace(codes=np.concatenate(self.chosen, axis=1), tensor=self.tensor)
        return replace(self.encoded, rows=codes.reshape(self.encoded.rows.shape), scales=scales)

    def kept(self, found: BlockTensor, gained: Floats) -> BlockTensor:
        if found.scales.tensor != self.encoded.scales.tensor:  # all blocks hang on it
            return found if gained.sum() > 0 else self.encoded
        better, before = (gained > 0)[:, np.newaxis], self.encoded
        scales = found.scales._replace(codes=np.where(better, found.scales.codes, before.scales.codes))
        return replace(found, rows=np.where(better, found.rows, before.rows), scales=scales)
