"""How scales themselves are stored: exactly, as powers of two, or as 8-bit codes under a second scale.

Everything here works on the scales of one tensor, float32 of shape (R,), all of them positive. ``up`` asks for a scale that is not
smaller, where the storage has one: it is how absmax and percentile scales are rounded to powers of two, so that nothing more is
clipped than float32 scales would clip.

- ``float32``: as they are.
- ``power_of_two``: the exponent as a signed byte, -126 to 127: a shift. Nearest on the number line unless ``up``.
- ``e8m0``: the code of ``float8_e8m0fnu``, 2**-127 to 2**127, rounded as above. (The OCP formats themselves, such as ``mxfp4``,
  follow their own rule instead: floor(log2 amax) - emax.)
- ``float8_e4m3fn``: code times one float32 for the tensor, which puts the largest scale at 448, as NVFP4 does. A scale below the
  smallest positive code takes that code.
- ``double``: QLoRA's double quantization (Dettmers et al., arXiv 2305.14314, section 3): the mean of all scales is taken off, and
  blocks of 256 are quantized to 8 bits with a float32 each. The paper says 8-bit floats; taken here for ``float8_e4m3fn`` with the
  block's largest magnitude at 448. A scale that would come out as zero or less takes the block's smallest positive one.

Second scales and the mean are taken over the rows that hold something else than zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.block import E8M0_BIAS, LARGEST_E8M0_CODE
from formats.names import unknown_name
from formats.registry import scalar

DOUBLE_BLOCK = 256
SMALLEST_SCALE, LARGEST_SCALE = np.finfo(np.float32).tiny, np.finfo(np.float32).max
_LOWEST_EXPONENT, _HIGHEST_EXPONENT = -126, 127
_E4M3 = scalar("float8_e4m3fn")
_NEGATIVE = 0x80

Scales = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondScales:
    """What codes of scales are decoded with: one float32 for the tensor (else 1), and one for each block of scales (else none)."""

    tensor: np.float32
    blocks: Scales

    def of_rows(self, rows: int) -> Scales:
        """Return the block's scale for each of ``rows`` scales."""
        return np.repeat(self.blocks, DOUBLE_BLOCK)[:rows]


#: what a storage without second scales has
NO_SECOND = SecondScales(tensor=np.float32(1), blocks=np.empty(0, np.float32))


@dataclass(frozen=True, kw_only=True)
class ScaleStorage:
    """A way to store scales, by name."""

    name: str = "float32"

    @staticmethod
    def parse(text: str) -> "ScaleStorage":
        """Read the text form, such as ``e8m0``."""
        if text not in _KINDS:
            raise unknown_name("scale storage", text, tuple(_KINDS))
        return ScaleStorage(name=text)

    def __str__(self) -> str:
        """Return the text form."""
        return self.name

    @property
    def exact(self) -> bool:
        """Whether scales are kept as they are."""
        return self.name == "float32"

    @property
    def powers_of_two(self) -> bool:
        """Whether every storable scale is a power of two."""
        return self.name in ("power_of_two", "e8m0")

    def second_scales(self, wanted: Scales, used: NDArray[np.bool_]) -> SecondScales:
        """Return the second scales for ``wanted`` scales, those of rows ``used`` for more than zeros counting."""
        kind = _KINDS[self.name]
        return NO_SECOND if kind.second is None else kind.second(wanted, used)

    def store(self, scales: Scales, second: SecondScales = NO_SECOND, *, up: bool = False) -> "StoredScales":
        """Return the codes of the nearest storable scales, or with ``up`` of those not smaller where powers of two are stored."""
        return StoredScales(storage=self, codes=_KINDS[self.name].encode(scales, second, up), second=second)

    def bits(self, rows: int) -> int:
        """Return the bits that ``rows`` scales take with their second scales."""
        return _KINDS[self.name].bits(rows)


FLOAT32 = ScaleStorage()


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredScales:
    """Scales as hardware stores them.

    ``codes`` have the shape (R,): float32 for ``float32``, int8 exponents for ``power_of_two``, uint8 codes for the others.
    """

    storage: ScaleStorage
    codes: NDArray[Any]
    second: SecondScales

    def decode(self) -> Scales:
        """Return the scales, float32 of shape (R,), every one finite and above zero."""
        return _KINDS[self.storage.name].decode(self.codes, self.second)

    @property
    def bits(self) -> int:
        """Bits that they take."""
        return self.storage.bits(len(self.codes))


def _exponents(scales: Scales, up: bool) -> NDArray[np.int32]:
    """Exponent of the next power of two up, or of the nearest one; the larger at a tie."""
    fraction, exponent = np.frexp(scales)  # fraction in [0.5, 1)
    lower = fraction == 0.5 if up else fraction < 0.75
    return (exponent - lower).astype(np.int32)


def _encode_power(scales: Scales, second: SecondScales, up: bool) -> NDArray[Any]:
    return np.clip(_exponents(scales, up), _LOWEST_EXPONENT, _HIGHEST_EXPONENT).astype(np.int8)


def _encode_e8m0(scales: Scales, second: SecondScales, up: bool) -> NDArray[Any]:
    return np.clip(_exponents(scales, up) + E8M0_BIAS, 0, LARGEST_E8M0_CODE).astype(np.uint8)


def _power(exponents: NDArray[Any]) -> Scales:
    return np.ldexp(np.float32(1), exponents.astype(np.int32)).astype(np.float32)


def _ratio_second(wanted: Scales, used: NDArray[np.bool_]) -> SecondScales:
    largest = np.max(wanted, where=used, initial=0) or np.float32(1)
    tensor = np.maximum(largest / _E4M3.largest, SMALLEST_SCALE)
    return SecondScales(tensor=np.float32(tensor), blocks=NO_SECOND.blocks)


def _encode_ratio(scales: Scales, second: SecondScales, up: bool) -> NDArray[Any]:
    return np.maximum(_E4M3.encode(scales, second.tensor), 1).astype(np.uint8)


def _decode_ratio(codes: NDArray[Any], second: SecondScales) -> Scales:
    return _E4M3.decode(codes, second.tensor)


def _double_second(wanted: Scales, used: NDArray[np.bool_]) -> SecondScales:
    mean = np.float32(np.mean(wanted, dtype=np.float64, where=used)) if used.any() else np.float32(1)
    distance = np.where(used, np.abs(wanted - mean), np.float32(0))
    padded = np.pad(distance, (0, -len(distance) % DOUBLE_BLOCK)).reshape(-1, DOUBLE_BLOCK)
    blocks = np.maximum(padded.max(axis=1, initial=0) / _E4M3.largest, SMALLEST_SCALE)
    return SecondScales(tensor=mean, blocks=blocks.astype(np.float32))


def _encode_double(scales: Scales, second: SecondScales, up: bool) -> NDArray[Any]:
    codes = _E4M3.encode(scales - second.tensor, second.of_rows(len(scales)))
    # the most negative code of each block that still leaves a scale above zero; minus zero, the mean itself, always does
    magnitudes = _E4M3.float32_values[: _E4M3.nan[0]]
    left = second.tensor - second.blocks[:, np.newaxis] * magnitudes
    lowest = _NEGATIVE + np.repeat((left >= SMALLEST_SCALE).sum(axis=1) - 1, DOUBLE_BLOCK)[: len(scales)]
    return np.where(codes >= _NEGATIVE, np.minimum(codes, lowest), codes).astype(np.uint8)


def _decode_double(codes: NDArray[Any], second: SecondScales) -> Scales:
    with np.errstate(over="ignore"):
        sums = second.tensor + _E4M3.decode(codes, second.of_rows(len(codes)))
    usable: Scales = np.minimum(sums, LARGEST_SCALE)
    return usable


@dataclass(frozen=True, kw_only=True)
class _Kind:
    encode: Callable[[Scales, SecondScales, bool], NDArray[Any]]
    decode: Callable[[NDArray[Any], SecondScales], Scales]
    bits: Callable[[int], int]
    second: Callable[[Scales, NDArray[np.bool_]], SecondScales] | None = None


_KINDS = {
    "float32": _Kind(encode=lambda scales, second, up: scales, decode=lambda codes, second: codes, bits=lambda rows: 32 * rows),
    "power_of_two": _Kind(encode=_encode_power, decode=lambda codes, second: _power(codes), bits=lambda rows: 8 * rows),
    "e8m0": _Kind(
        encode=_encode_e8m0,
        decode=lambda codes, second: _power(codes.astype(np.int32) - E8M0_BIAS),
        bits=lambda rows: 8 * rows,
    ),
    "float8_e4m3fn": _Kind(encode=_encode_ratio, decode=_decode_ratio, bits=lambda rows: 8 * rows + 32, second=_ratio_second),
    "double": _Kind(
        encode=_encode_double,
        decode=_decode_double,
        bits=lambda rows: 8 * rows + 32 * -(-rows // DOUBLE_BLOCK) + 32,
        second=_double_second,
    ),
}
