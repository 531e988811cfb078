"""Block formats: elements that share a stored scale, along one axis (OCP Microscaling v1.0, and NVFP4).

Codes and scales are separate arrays: codes as many as elements, scales one for each block; the last block may be shorter.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import block_codec
from formats.block_codec import BlockScales as BlockScales
from formats.codec import Codes
from formats.format import Format
from formats.kernels.blocks import E8M0_BIAS as E8M0_BIAS
from formats.kernels.blocks import LARGEST_E8M0_CODE as LARGEST_E8M0_CODE


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockFormat:
    """Elements of one format in blocks along an axis.

    ``e8m0`` scales are powers of two with the exponent floor(log2 amax) - ``largest_exponent`` (OCP Microscaling v1.0, 6.3).
    ``e4m3`` scales are amax / (largest element * tensor scale), the tensor scale being amax of all / (largest element * 448).
    """

    name: str
    element: Format
    block: int
    scale: Literal["e8m0", "e4m3"]
    scale_format: Format
    #: exponent of the largest element
    largest_exponent: int
    #: exponent of an element's unit, for integers with an implied point
    unit_exponent: int = 0
    summary: str = ""

    @property
    def bits(self) -> int:
        """Width of an element's code."""
        return self.element.bits

    @property
    def bits_per_element(self) -> float:
        """Width with the block's share of its scale."""
        return self.bits + self.scale_format.bits / self.block

    def encode(self, x: ArrayLike, axis: int = -1, *, rounding: str = "nearest_even", seed: int = 0) -> tuple[Codes, BlockScales]:
        """Return codes shaped like ``x`` and the scales, whose axis ``axis`` has one entry for each block.

        ``x`` is float32, float16 or bfloat16; ``rounding`` is that of the elements. Raises ``ValueError``, naming the block, for
        a NaN or an infinity.
        """
        return block_codec.encode(self, x, axis, rounding, seed)

    def decode(
        self, codes: ArrayLike, scales: BlockScales, axis: int = -1, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return float32 values shaped like ``codes``, in ``out`` where given."""
        return block_codec.decode(self, codes, scales, axis, out)

    def quantize(
        self,
        x: ArrayLike,
        axis: int = -1,
        out: NDArray[np.float32] | None = None,
        *,
        rounding: str = "nearest_even",
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Return ``decode(*encode(x, axis), axis)`` in one pass, into ``out`` where given (float32, shaped like ``x``)."""
        return block_codec.quantize(self, x, axis, out, rounding, seed)


@dataclass(frozen=True, kw_only=True)
class Microscaling:
    """An OCP Microscaling format: its element, and the exponent of the largest element."""

    name: str
    element: str
    largest_exponent: int
    unit_exponent: int = 0


MICROSCALING = (
    Microscaling(name="mxfp8_e4m3", element="float8_e4m3fn", largest_exponent=8),
    Microscaling(name="mxfp8_e5m2", element="float8_e5m2", largest_exponent=15),
    Microscaling(name="mxfp6_e3m2", element="float6_e3m2fn", largest_exponent=4),
    Microscaling(name="mxfp6_e2m3", element="float6_e2m3fn", largest_exponent=2),
    Microscaling(name="mxfp4", element="float4_e2m1fn", largest_exponent=2),
    Microscaling(name="mxint8", element="int8", largest_exponent=0, unit_exponent=-6),
)


def microscaling(kind: Microscaling, element: Format, scale_format: Format) -> BlockFormat:
    """Build one of the OCP Microscaling formats: 32 elements, one E8M0 scale."""
    return BlockFormat(
        name=kind.name,
        element=element,
        block=32,
        scale="e8m0",
        scale_format=scale_format,
        largest_exponent=kind.largest_exponent,
        unit_exponent=kind.unit_exponent,
        summary=f"OCP Microscaling: 32 elements of {kind.element}, one power of two",
    )


def nvfp4(element: Format, scale_format: Format) -> BlockFormat:
    """Build ``nvfp4``: 16 E2M1 elements, one E4M3 scale, one float32 for the tensor."""
    return BlockFormat(
        name="nvfp4",
        element=element,
        block=16,
        scale="e4m3",
        scale_format=scale_format,
        largest_exponent=2,
        summary="16 elements of float4_e2m1fn, one float8_e4m3fn scale, one float32 for the tensor",
    )
