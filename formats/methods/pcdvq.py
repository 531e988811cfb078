"""``pcdvq_d{a}_m{b}``: vectors of eight values as a direction and a magnitude, quantized apart by code books of their own.

PCDVQ (arXiv 2506.05432) spends most bits on directions, which matter more, and aligns both code books with a normal
distribution: directions are picked greedily from those of the lattice E8, magnitudes are Lloyd-Max levels for the length of such a
vector (chi with eight degrees of freedom). 14 bits and 2 bits are 2 bits for a value. **Only the paper's abstract could be read**;
conventions here:

- Directions come from ``formats.methods.e8``: the shells up to squared length 10, in turn the one farthest from those chosen.
- A vector takes the direction d of largest inner product <x, d>, and the magnitude level nearest to <x, d>: once the direction is
  given, that errs least (|x| itself would be too long).
- Each row has one float32 scale, of least squared error for the magnitudes (``lsq``), where the paper regularizes weights to unit
  variance. Its random Hadamard transform, which makes weights look normal, is left to whoever prepares the network.
- Values are taken in the row's order; a last short vector is filled up with zeros.

No magnitude is zero: a row of zeros gets the smallest scale there is, and so decodes to numbers below 1e-36.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.codebook import build
from formats.codec import as_float32
from formats.errors import InvalidValueError
from formats.format import Format
from formats.lloyd_max import chi8_levels
from formats.method import Method, MethodQuantizer, register_method
from formats.methods.e8 import nearest_directions, spherical_code
from formats.scale_storage import SMALLEST_SCALE
from formats.scaling import ScaleChoice
from formats.tensor_quantizer import StorageBits

LENGTH = 8
_SEARCH = ScaleChoice.parse("lsq")


@dataclass(frozen=True, kw_only=True)
class PolarVectors(MethodQuantizer):
    """Direction codes of ``direction_bits`` and magnitude codes of ``magnitude_bits`` for every eight values."""

    direction_bits: int
    magnitude_bits: int

    @property
    def name(self) -> str:
        """First part of the text form."""
        return f"pcdvq_d{self.direction_bits}_m{self.magnitude_bits}"

    @property
    def width(self) -> float:
        """Bits of code for one value."""
        return (self.direction_bits + self.magnitude_bits) / LENGTH

    @property
    def directions(self) -> NDArray[np.float32]:
        """Unit vectors by code, float32 of shape (2**direction_bits, 8)."""
        return spherical_code(self.direction_bits)

    @property
    def magnitudes(self) -> Format:
        """The magnitudes' code book."""
        levels = chi8_levels(self.magnitude_bits)
        return build(f"chi8_{self.magnitude_bits}", levels, "Lloyd-Max code book of the length of eight N(0, 1)")

    def encode(self, x: NDArray[np.float32]) -> "PolarTensor":
        """Quantize a tensor."""
        vectors = _vectors(self._rows(x))
        flat = np.ascontiguousarray(vectors.reshape(-1, LENGTH))
        largest = np.float32(np.abs(flat).max(initial=0) or 1)
        near_one = (flat / largest).astype(np.float32)  # where no product is lost
        chosen, dots = nearest_directions(near_one, self.directions)
        lengths = dots.reshape(vectors.shape[:2]) * largest
        scales = _SEARCH.scales(self.magnitudes, lengths, self._filled(x.shape).astype(np.float32))
        scales = np.where(lengths.any(axis=1), scales, SMALLEST_SCALE).astype(np.float32)
        magnitudes = self.magnitudes.encode(lengths, scales[:, np.newaxis]).astype(np.uint8)
        return PolarTensor(
            quantizer=self, shape=x.shape, directions=chosen.reshape(lengths.shape), magnitudes=magnitudes, scales=scales
        )

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of both codes of every vector, and of a float32 for each row. The code books are fixed."""
        vectors = int(self._filled(shape).sum())
        scales = 32 * self.granularity.row_count(shape)
        return StorageBits(codes=vectors * (self.direction_bits + self.magnitude_bits), scales=scales)

    def _filled(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which vectors of each row hold values: others lie in a group's filling alone, and are not stored."""
        return np.asarray(_vectors(self.granularity.to_rows(np.ones(shape, np.bool_))).any(axis=-1))

    def _rows(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = self.granularity.to_rows(as_float32(x))
        unusable = rows.size - int(np.isfinite(rows).sum())
        if unusable:
            raise InvalidValueError(f"values for {self} must be finite, not NaN or Inf in {unusable} elements")
        return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class PolarTensor:
    """Codes of (R, vectors of a row), uint16 for ``directions`` and uint8 for ``magnitudes``; ``scales`` float32 of shape (R,)."""

    quantizer: PolarVectors
    shape: tuple[int, ...]
    directions: NDArray[np.uint16]
    magnitudes: NDArray[np.uint8]
    scales: NDArray[np.float32]

    @property
    def storage_bits(self) -> StorageBits:
        """Bits that the tensor takes."""
        return self.quantizer.storage_bits(self.shape)

    def decode(self) -> NDArray[np.float32]:
        """Return fl32(fl32(magnitude * scale) * direction) in the tensor's own shape."""
        granularity = self.quantizer.granularity
        lengths = self.quantizer.magnitudes.decode(self.magnitudes, self.scales[:, np.newaxis])
        vectors = self.quantizer.directions[self.directions] * lengths[..., np.newaxis]
        rows = vectors.reshape(len(self.scales), lengths.shape[1] * LENGTH)[:, : granularity.row_length(self.shape)]
        return granularity.from_rows(np.ascontiguousarray(rows), self.shape)


def _vectors(rows: NDArray[Any]) -> NDArray[Any]:
    """Return (R, n) rows as (R, vectors, 8), the last vector of a row filled up with zeros."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % LENGTH)))
    return padded.reshape(len(rows), padded.shape[1] // LENGTH, LENGTH)


register_method(
    Method(
        pattern="pcdvq_d{d}_m{m}",
        build=lambda direction_bits, magnitude_bits, granularity: PolarVectors(
            direction_bits=direction_bits, magnitude_bits=magnitude_bits, granularity=granularity
        ),
        ranges=(("d", 1, 15), ("m", 1, 8)),
    )
)
