"""Quantizers whose code book is made for the tensor: one table of levels for all of it, one scale for each row.

The fitted code book is a ``Format`` like any other, so that encoding and decoding are those of every other format. A row's values
are divided by its scale before the code book is fitted; the errors that the fit lessens are those of the tensor itself, so that
rows with larger scales count for more.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.codebook import fitted
from formats.codec import as_float32
from formats.errors import InvalidValueError
from formats.format import Format
from formats.method import MethodQuantizer
from formats.scale_storage import LARGEST_SCALE, SMALLEST_SCALE
from formats.tensor_quantizer import RowTensor, StorageBits

LEVEL_BITS = 32


@dataclass(frozen=True, kw_only=True)
class FittedQuantizer(MethodQuantizer):
    """A quantizer of ``bits`` wide codes into a code book of float32 levels made for the tensor."""

    bits: int

    @abstractmethod
    def row_scales(self, rows: NDArray[np.float32], present: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return each row's scale, 1 for a row of zeros; ``present`` is 0 where a row is filled up, else 1."""

    @abstractmethod
    def levels(self, x: NDArray[np.float32], importance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return at most 2**bits levels for scaled values and how much the squared error of each counts."""

    @property
    def table_bits(self) -> int:
        """Bits that the code book takes beside codes and scales."""
        return LEVEL_BITS * int(2**self.bits)

    @property
    def width(self) -> float:
        """Bits of a code."""
        return self.bits

    @property
    def static(self) -> bool:
        """With one scale it is one format and one scale."""
        return self.granularity.name == "tensor"

    def encode(self, x: NDArray[np.float32]) -> "FittedTensor":
        """Fit a code book and quantize ``x`` by it."""
        rows = self._rows(x)
        present = self.granularity.to_rows(np.ones(x.shape, np.float32))
        scales = self.row_scales(rows, present)
        fmt = self._format(rows, scales, present)
        return FittedTensor(quantizer=self, format=fmt, shape=x.shape, rows=fmt.encode(rows, scales[:, np.newaxis]), scales=scales)

    def fit(self, sample: NDArray[Any]) -> tuple[Format, float]:
        """Return the code book for ``sample`` as a format, and its scale."""
        if not self.static:
            return super().fit(sample)
        rows = self._rows(sample)
        present = np.ones(rows.shape, np.float32)
        scales = self.row_scales(rows, present)
        return self._format(rows, scales, present), float(scales[0])

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of codes, and of scales and code book."""
        return StorageBits(codes=math.prod(shape) * self.bits, scales=32 * self.granularity.row_count(shape) + self.table_bits)

    def _rows(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = self.granularity.to_rows(as_float32(x))
        unusable = rows.size - int(np.isfinite(rows).sum())
        if unusable:
            raise InvalidValueError(f"values for {self} must be finite, not NaN or Inf in {unusable} elements")
        return rows

    def _format(self, rows: NDArray[np.float32], scales: NDArray[np.float32], present: NDArray[np.float32]) -> Format:
        importance = present * np.square(scales / scales.max(initial=SMALLEST_SCALE))[:, np.newaxis]
        levels = self.levels(rows / scales[:, np.newaxis], importance)
        return fitted(self.name, levels, self.bits, f"code book of {self} for one tensor")


def usable_scales(wanted: NDArray[Any]) -> NDArray[np.float32]:
    """Return the scales as float32 above zero: 1 for 0."""
    return np.where(wanted == 0, 1.0, np.clip(wanted, SMALLEST_SCALE, LARGEST_SCALE)).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedTensor(RowTensor[FittedQuantizer]):
    """A tensor with its own code book: ``rows`` are codes of ``format`` of shape (R, n), ``scales`` float32 of shape (R,)."""

    format: Format
    scales: NDArray[np.float32]

    def decode(self) -> NDArray[np.float32]:
        """Return the float32 values in the tensor's own shape."""
        return self.quantizer.granularity.from_rows(self.format.decode(self.rows, self.scales[:, np.newaxis]), self.shape)
