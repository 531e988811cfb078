"""Block formats: elements that share a stored scale, along one axis (OCP Microscaling v1.0, and NVFP4).

Codes and scales are separate arrays: codes as many as elements, scales one for each block; the last block may be shorter.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.codec import Codes, as_float32
from formats.errors import InvalidValueError
from formats.format import Format

E8M0_BIAS = 127
LARGEST_E8M0_CODE = 254  # 255 is NaN


class BlockScales(NamedTuple):
    """Scales of a tensor: a code for each block, and a float32 for all of it where the format has one (else 1)."""

    codes: NDArray[np.uint8]
    tensor: np.float32


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

    def encode(self, x: ArrayLike, axis: int = -1) -> tuple[Codes, BlockScales]:
        """Return codes shaped like ``x`` and the scales, whose axis ``axis`` has one entry for each block.

        ``x`` is float32, float16 or bfloat16. Raises ``ValueError``, naming the block, for a NaN or an infinity.
        """
        blocks, count = self._blocks(as_float32(x), axis)
        largest = np.abs(blocks).max(axis=-1, initial=0)
        self._refuse_unusable(largest)
        tensor = self._tensor_scale(largest)
        scales = self._power_scales(largest) if self.scale == "e8m0" else self._ratio_scales(largest, tensor)
        codes = self.element.encode(blocks, self._factors(scales, tensor)[..., np.newaxis])
        return self._unblocked(codes, count, axis), BlockScales(np.moveaxis(scales, -1, axis), tensor)

    def decode(self, codes: ArrayLike, scales: BlockScales, axis: int = -1) -> NDArray[np.float32]:
        """Return float32 values shaped like ``codes``."""
        given = np.asarray(codes)
        blocks, count = self._blocks(given, axis)
        factors = self._factors(np.moveaxis(scales.codes, axis, -1), scales.tensor)
        if factors.shape != blocks.shape[:-1]:
            raise InvalidValueError(f"scales of {self.name} must be {blocks.shape[:-1]} for these codes, not {factors.shape}")
        decoded = self.element.decode(blocks, factors[..., np.newaxis])
        return self._unblocked(decoded, count, axis)

    def quantize(self, x: ArrayLike, axis: int = -1) -> NDArray[np.float32]:
        """Return ``decode(*encode(x, axis), axis)``."""
        codes, scales = self.encode(x, axis)
        return self.decode(codes, scales, axis)

    def _blocks(self, x: NDArray[Any], axis: int) -> tuple[NDArray[Any], int]:
        """Return (…, blocks, elements of a block), the last one filled up with zeros, and the number of elements along the axis."""
        if x.ndim == 0:
            raise InvalidValueError(f"x for {self.name} must have at least one axis, not none")
        moved = np.moveaxis(x, axis, -1)
        count = moved.shape[-1]
        padded = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, -count % self.block)])
        return padded.reshape(*moved.shape[:-1], padded.shape[-1] // self.block, self.block), count

    def _unblocked(self, blocks: NDArray[Any], count: int, axis: int) -> NDArray[Any]:
        flat = blocks.reshape(*blocks.shape[:-2], blocks.shape[-2] * self.block)
        return np.ascontiguousarray(np.moveaxis(flat[..., :count], -1, axis))

    def _refuse_unusable(self, largest: NDArray[np.float32]) -> None:
        wrong = np.argwhere(~np.isfinite(largest))
        if len(wrong):
            first = tuple(int(i) for i in wrong[0])
            raise InvalidValueError(
                f"values for {self.name} must be finite, not NaN or Inf in {len(wrong)} blocks, the first {first}"
            )

    def _tensor_scale(self, largest: NDArray[np.float32]) -> np.float32:
        if self.scale == "e8m0":
            return np.float32(1)
        of_all = np.float32(largest.max(initial=0))
        if of_all == 0:
            return np.float32(1)
        return max(of_all / (self.element.largest * self.scale_format.largest), np.finfo(np.float32).tiny)

    def _power_scales(self, largest: NDArray[np.float32]) -> NDArray[np.uint8]:
        exponent = np.frexp(largest)[1] - 1  # floor(log2) read off the number's bits
        code = np.clip(exponent - self.largest_exponent + E8M0_BIAS, 0, LARGEST_E8M0_CODE)
        return np.where(largest == 0, 0, code).astype(np.uint8)

    def _ratio_scales(self, largest: NDArray[np.float32], tensor: np.float32) -> NDArray[np.uint8]:
        """Return E4M3 codes; a block of zeros gets the scale 1, one too small for the tensor's scale the smallest there is."""
        ratio = np.where(largest == 0, np.float32(1), largest / (self.element.largest * tensor))
        return np.maximum(self.scale_format.encode(ratio.astype(np.float32)), 1).astype(np.uint8)

    def _factors(self, scales: NDArray[np.uint8], tensor: np.float32) -> NDArray[np.float32]:
        """Return what an element's value is multiplied by, in each block."""
        if self.scale == "e4m3":
            return self.scale_format.decode(scales, tensor)
        return np.ldexp(np.float32(1), scales.astype(np.int32) - E8M0_BIAS + self.unit_exponent).astype(np.float32)


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
