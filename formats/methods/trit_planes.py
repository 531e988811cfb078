"""``tritplanes``: a weight as the sum of two ternary planes, each with a scale for every row or group: W ~ a1 T1 + a2 T2.

PTQTP (arXiv 2509.16989) describes two planes of trits fitted by alternating a ridge regression of the two scales with a choice
among the nine pairs of trits for every element, without calibration data. **Its equations could not be read**; conventions here:

- For fixed planes the scales are the minimum of |w - a1 t1 - a2 t2|**2 + lambda (a1**2 + a2**2) in closed form, a system of two
  equations. lambda is ``RIDGE`` times the number of values: just enough that it can be solved where the planes are alike or empty.
- For fixed scales every element takes the nearest of the nine sums. With a1 >= a2 >= 0, which flipping and swapping planes always
  allows, they are 0, +-(a1 - a2), +-a2, +-a1, +-(a1 + a2).
- A step is taken only if it lessens the squared error itself, so that the error never rises. It ends in a local optimum, so many
  starts are tried and the best end is kept: a1 + a2 = r * (largest magnitude), a2 = q * a1 for the r and q of ``STARTS``, and all
  pairs of ``QUANTILES`` magnitudes spread over the different ones of the row. The latter find the planes of a row that was made
  of two, where each scale stands alone somewhere.

Sorted magnitudes with running sums give every regression from four cuts, so that a step costs the logarithm of the row's length.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from formats.codec import as_float32
from formats.errors import InvalidValueError
from formats.format import Format
from formats.method import Method, MethodQuantizer, register_method
from formats.methods.trit_fit import fit_scales, nearest_planes
from formats.registry import scalar
from formats.tensor_quantizer import StorageBits
from formats.trits import TRITS_IN_A_BYTE, packed_trits_size


@dataclass(frozen=True, kw_only=True)
class TritPlanes(MethodQuantizer):
    """Two ternary planes, two float32 scales for each row."""

    @property
    def name(self) -> str:
        """First part of the text form."""
        return "tritplanes"

    @property
    def width(self) -> float:
        """Bits of code for one value: two trits, five to a byte."""
        return 2 * 8 / TRITS_IN_A_BYTE

    @property
    def formats(self) -> tuple[Format, ...]:
        """``ternary``."""
        return (scalar("ternary"),)

    def encode(self, x: NDArray[np.float32]) -> "TritPlanesTensor":
        """Fit the scales of each row and choose the planes."""
        rows = self.granularity.to_rows(as_float32(x))
        unusable = rows.size - int(np.isfinite(rows).sum())
        if unusable:
            raise InvalidValueError(f"values for {self} must be finite, not NaN or Inf in {unusable} elements")
        scales = fit_scales(rows)
        planes = nearest_planes(rows, scales)
        return TritPlanesTensor(quantizer=self, shape=x.shape, planes=(planes & 3).astype(np.uint8), scales=scales)

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of both planes packed five trits to a byte, and of two float32 for each row."""
        return StorageBits(codes=2 * 8 * packed_trits_size(math.prod(shape)), scales=64 * self.granularity.row_count(shape))


@dataclass(frozen=True, kw_only=True, eq=False)
class TritPlanesTensor:
    """``planes`` are codes of ``ternary``, uint8 of shape (2, R, n), ``scales`` float32 of shape (2, R)."""

    quantizer: TritPlanes
    shape: tuple[int, ...]
    planes: NDArray[np.uint8]
    scales: NDArray[np.float32]

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """The two planes in the tensor's own shape: (2, …)."""
        return np.stack([self.quantizer.granularity.from_rows(plane, self.shape) for plane in self.planes])

    @property
    def storage_bits(self) -> StorageBits:
        """Bits that the tensor takes."""
        return self.quantizer.storage_bits(self.shape)

    def decode(self) -> NDArray[np.float32]:
        """Return fl32(a1 t1 + a2 t2) in the tensor's own shape."""
        first, second = scalar("ternary").decode(self.planes, self.scales[..., np.newaxis])
        return self.quantizer.granularity.from_rows(first + second, self.shape)


register_method(Method(pattern="tritplanes", build=lambda granularity: TritPlanes(granularity=granularity)))
