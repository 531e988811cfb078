"""``twinlog{b}``: powers of two with a scale of their own for either sign.

LRQ-DiT's twin-log quantizer (arXiv 2508.03485) treats positive and negative weights apart on a log scale. **The paper's formula
could not be read; this is a reconstruction from its abstract**:

    q = round(-log2(|w| / s)),  w^ = sign(w) * s * 2**-q      s = s+ for w > 0, s- for w < 0

Conventions: codes are those of ``pot{b}``, so q runs from 0 to 2**(b - 1) - 2, larger q become zero, and zero itself is held;
values that would need q < 0 saturate. Each scale is the one of least squared error for the values of its sign, found as
``ScaleChoice`` ``mse`` finds scales. They are float32.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.codec import as_float32
from formats.format import Format
from formats.method import Method, MethodQuantizer, register_method
from formats.registry import scalar
from formats.scaling import ScaleChoice
from formats.tensor_quantizer import RowTensor, StorageBits

_SEARCH = ScaleChoice.parse("mse")


@dataclass(frozen=True, kw_only=True)
class TwinLog(MethodQuantizer):
    """Codes of ``pot{bits}`` under two scales for each row."""

    bits: int

    @property
    def name(self) -> str:
        """First part of the text form."""
        return f"twinlog{self.bits}"

    @property
    def width(self) -> float:
        """Bits of a code."""
        return self.bits

    @property
    def code_format(self) -> Format:
        """``pot{bits}``, whose codes these are."""
        return scalar(f"pot{self.bits}")

    @property
    def formats(self) -> tuple[Format, ...]:
        """``pot{bits}``."""
        return (self.code_format,)

    def encode(self, x: NDArray[np.float32]) -> "TwinLogTensor":
        """Choose the two scales of each row and quantize ``x``."""
        rows, fmt = self.granularity.to_rows(as_float32(x)), self.code_format
        halves = (np.maximum(rows, np.float32(0)), np.maximum(-rows, np.float32(0)))
        scales = np.stack([_SEARCH.scales(fmt, half) for half in halves])
        codes = fmt.encode(rows, _by_sign(scales, rows < 0))
        return TwinLogTensor(quantizer=self, shape=x.shape, rows=codes, scales=scales)

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of codes and of two float32 for each row."""
        return StorageBits(codes=math.prod(shape) * self.bits, scales=64 * self.granularity.row_count(shape))


@dataclass(frozen=True, kw_only=True, eq=False)
class TwinLogTensor(RowTensor[TwinLog]):
    """``rows`` are codes of shape (R, n), ``scales`` float32 of shape (2, R): for positive values, for negative ones."""

    scales: NDArray[np.float32]

    def decode(self) -> NDArray[np.float32]:
        """Return the float32 values in the tensor's own shape."""
        fmt = self.quantizer.code_format
        negative = (self.rows >> (fmt.bits - 1)) == 1
        rows = fmt.decode(self.rows, _by_sign(self.scales, negative))
        return self.quantizer.granularity.from_rows(rows, self.shape)


def _by_sign(scales: NDArray[np.float32], negative: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(negative, scales[1, :, np.newaxis], scales[0, :, np.newaxis])


register_method(
    Method(
        pattern="twinlog{b}",
        build=lambda bits, granularity: TwinLog(bits=bits, granularity=granularity),
        ranges=(("b", 2, 8),),
    )
)
