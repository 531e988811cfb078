"""Weights as the kernels read them: the codes and the packing of ``formats``, each output's row filled up to whole words.

A row holds the codes of one output along the depth as ``formats.pack`` packs them, filled up to a multiple of ``FILLED`` codes, so
that every row begins at 16 bytes and the deepest tile ends within its row. Kernels read rows as little-endian words of 32 bits.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from formats.codec import Codes, as_codes
from formats.errors import InvalidValueError
from formats.format import Format
from formats.methods.trit_planes import TritPlanesTensor
from formats.packing import pack
from formats.quantizer import QuantizedTensor
from formats.registry import scalar

#: codes that a row is filled up to a multiple of: the depth of the deepest tile
FILLED = 256
#: groups are whole steps of the tensor cores
GROUP_STEP = 16


def unit(bits: int) -> int:
    """Return how many codes fill whole words, and lie in two halves: 4, 8, 16 or 32."""
    return 4 if bits == 8 else 8 if bits == 4 else 16 if bits % 2 == 0 else 32


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedWeight:
    """Weights of (depth, columns) as codes and scales: the sum of ``planes`` matrices, one but for methods of several."""

    format: Format
    columns: int
    depth: int
    #: weights along the depth that share a scale; 0 is one scale for each column
    group: int
    #: int32, planes * columns rows of ``row_words`` words
    words: torch.Tensor
    row_words: int
    #: float32 or float16 of shape (planes, columns, groups)
    scales: torch.Tensor

    @property
    def planes(self) -> int:
        """How many matrices are added up."""
        return self.scales.shape[0]

    @property
    def bytes(self) -> int:
        """Bytes of codes and scales."""
        return self.planes * self.columns * self.row_words * 4 + self.scales.numel() * self.scales.element_size()

    def to(self, device: torch.device) -> "PackedWeight":
        """Return the same on a device."""
        moved = {"words": self.words.to(device), "scales": self.scales.to(device)}
        return PackedWeight(
            format=self.format, columns=self.columns, depth=self.depth, group=self.group, row_words=self.row_words, **moved
        )


def pack_weight(codes: ArrayLike, fmt: Format, scales: ArrayLike, group: int = 0) -> PackedWeight:
    """Pack codes of shape (columns, depth), or (planes, columns, depth) of matrices to be added up.

    ``scales``, float32 or float16, has as many axes: (…, columns, groups), with ``ceil(depth / group)`` groups, or one for a
    ``group`` of 0. Raises ``ValueError`` for other shapes, for what is no code in use, and for a group that is no multiple of 16.
    """
    given = as_codes(fmt, codes)
    if given.ndim not in (2, 3) or given.size == 0:
        raise InvalidValueError(f"codes of a weight must have the shape (columns, depth) and not be empty, not {given.shape}")
    unusable = np.isin(given, [*fmt.unused, *fmt.nan])
    if unusable.any():
        raise InvalidValueError(f"codes of a weight must be numbers of {fmt.name}, not {int(given[unusable][0])}, which is none")
    refused = refused_group(group)
    if refused is not None:
        raise InvalidValueError(refused)
    planes = given.reshape(-1, *given.shape[-2:])
    count, columns, depth = planes.shape
    found = _scales(scales, (*given.shape[:-1], math.ceil(depth / group) if group else 1))
    rows = packed_rows(planes.reshape(count * columns, depth), fmt)
    words = rows.view("<i4").reshape(-1)
    return PackedWeight(
        format=fmt,
        columns=columns,
        depth=depth,
        group=group,
        words=torch.from_numpy(words),
        row_words=rows.shape[1] // 4,
        scales=torch.from_numpy(found.reshape(count, columns, -1)),
    )


def packed_rows(codes: Codes, fmt: Format) -> NDArray[np.uint8]:
    """Pack rows of codes, each filled up to a multiple of ``FILLED`` with a code that stands for a finite number."""
    filler = int(np.flatnonzero(np.isfinite(fmt.values))[0])
    return pack(np.pad(codes, ((0, 0), (0, -codes.shape[1] % FILLED)), constant_values=filler), fmt.bits)


def refused_group(group: int) -> str | None:
    """Return why kernels cannot take groups of this size; None where they can."""
    if group < 0 or group % GROUP_STEP:
        nearest = max(round(group / GROUP_STEP), 1) * GROUP_STEP
        wanted = f"a multiple of {GROUP_STEP}, or 0 for one scale"
        return f"group of weights that share a scale must be {wanted}, not {group}; nearest: {nearest}"
    return None


def of_tensor(tensor: QuantizedTensor | TritPlanesTensor) -> PackedWeight:
    """Pack a weight of shape (columns, …) that a quantizer of ``formats`` has encoded; ``ValueError`` for scales in tiles."""
    granularity, shape = tensor.quantizer.granularity, tensor.shape
    if granularity.name == "tile" or len(shape) < 2:
        raise InvalidValueError(
            f"scales of a GPU kernel's weight must be by tensor, channel or group, not {granularity} of {shape}"
        )
    columns = shape[0]
    if isinstance(tensor, TritPlanesTensor):
        fmt, scales = scalar("ternary"), tensor.scales
        codes: Codes = tensor.codes.reshape(2, columns, -1)
    else:
        fmt, scales = tensor.quantizer.format, tensor.scales
        codes = tensor.codes.reshape(columns, -1)
    by_column = np.broadcast_to(scales[..., np.newaxis], (*codes.shape[:-1], 1)) if granularity.name == "tensor" else scales
    return pack_weight(codes, fmt, by_column.reshape(*codes.shape[:-1], -1), granularity.size)


def _scales(scales: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32] | NDArray[np.float16]:
    found = np.asarray(scales)
    if found.dtype not in (np.float32, np.float16) or found.shape != shape:
        raise InvalidValueError(
            f"scales of a weight must be float32 or float16 of shape {shape}, not {found.dtype} of {found.shape}"
        )
    wrong = ~(np.isfinite(found) & (found >= 0))
    if wrong.any():
        raise InvalidValueError(f"scales of a weight must be finite and not negative, not {found[wrong][0]}")
    return np.ascontiguousarray(found)
