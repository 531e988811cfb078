"""How products are cut into tiles and launched, and what their operands must be like."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import ArrayLike

from formats.codec import as_codes
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels.environment import INTERPRETED, launcher, multiprocessors
from hwmodels.gpu.kernels.float_sums import finish_float_sums
from hwmodels.gpu.kernels.packing import FILLED, packed_rows, unit

#: programs that a split depth should give each multiprocessor
PROGRAMS_EACH = 4


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The part of a product that one program computes, and how it is compiled."""

    rows: int
    columns: int
    #: of the depth at a time
    depth: int
    warps: int = 4
    stages: int = 3
    #: programs that share the depth of one tile
    splits: int = 1

    def of_depth(self, depth: int) -> "Tile":
        """Return the same tile with another depth at a time."""
        return replace(self, depth=depth)

    def arguments(self) -> dict[str, Any]:
        """Return what a product's kernel is launched with."""
        return {
            "BLOCK_M": self.rows,
            "BLOCK_N": self.columns,
            "BLOCK_K": self.depth,
            "GROUP": 8,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": False,
        }


def tiles_for(rows: int, columns: int, depth: int, operand_bytes: int, *, wide: bool = False) -> tuple[Tile, ...]:
    """Return candidate tiles for a product, the first being what is taken untuned; few rows share the depth among programs.

    ``operand_bytes`` is what the tensor cores take: 1 or 2; a tile's depth is 128 bytes of it, a swizzled line of shared memory.
    ``wide`` says that registers suffice for twice the tile: where sums stay in the tensor cores.
    """
    line = 128 // operand_bytes
    if rows > 16:
        height = 32 if rows <= 32 else 64 if rows <= 64 else 128
        first = Tile(rows=height, columns=128, depth=line, warps=8 if height == 128 else 4)
        if height < 128:
            return first, replace(first, columns=64, stages=4)
        narrow = Tile(rows=64, columns=128, depth=line, warps=4)
        return (first, replace(first, stages=4), narrow, *((replace(first, rows=256),) if wide else ()))
    height = 8 if rows <= 8 else 16
    found = []
    for width in (64, 128):
        tiles = triton.cdiv(columns, width)
        splits = min(triton.cdiv(PROGRAMS_EACH * multiprocessors(), tiles), max(1, depth // (2 * line)))
        found.append(Tile(rows=height, columns=width, depth=line, stages=4, splits=splits))
    return tuple(found)


def check_tile(tile: Tile, bits: int, operand_bytes: int) -> None:
    """Refuse a tile that cuts units of codes, that rows are not filled up to, or that tensor cores have no instruction for."""
    step = max(unit(bits), 32 // operand_bytes)
    if tile.depth < step or FILLED % tile.depth or tile.depth % step:
        raise InvalidValueError(f"depth of a tile must divide {FILLED} and be a multiple of {step}, not {tile.depth}")
    for what, number, least in (("rows", tile.rows, 8), ("columns", tile.columns, 16), ("warps", tile.warps, 1)):
        if number < least or number & (number - 1):
            raise InvalidValueError(f"{what} of a tile must be a power of two from {least} up, not {number}")
    for what, number in (("splits", tile.splits), ("stages", tile.stages)):
        if number < 1:
            raise InvalidValueError(f"{what} of a tile must be at least 1, not {number}")


def device_rows(codes: ArrayLike, fmt: Format, device: str | torch.device) -> torch.Tensor:
    """Return codes of shape (depth, columns) packed for ``operands.packed_codes``: uint8 of shape (columns, bytes of a row).

    Raises ``ValueError`` for other shapes and for what is no number of the format.
    """
    given = as_codes(fmt, codes)
    if given.ndim != 2 or given.size == 0:
        raise InvalidValueError(f"codes of a weight must have the shape (depth, columns) and not be empty, not {given.shape}")
    unusable = ~np.isfinite(fmt.values[given])
    if unusable.any():
        raise InvalidValueError(f"codes of a weight must be numbers of {fmt.name}, not {int(given[unusable][0])}, which is none")
    return torch.from_numpy(packed_rows(np.ascontiguousarray(given.T), fmt)).to(device)


def repeated_rows(packed: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``count`` packed rows, made of the given ones over and over again: large weights to time kernels on, in no time."""
    return packed[torch.arange(count, device=packed.device) % len(packed)]


def split_depth(depth: int, tile: Tile) -> tuple[int, int]:
    """Return the depth that each program takes, in whole steps, and the number of programs that share it."""
    steps = max(1, triton.cdiv(depth, tile.depth))
    chunk = triton.cdiv(steps, tile.splits)
    return chunk * tile.depth, triton.cdiv(steps, chunk)


def check_operand(
    what: str, x: torch.Tensor, dtype: torch.dtype | tuple[torch.dtype, ...], depth: int, beside: torch.Tensor
) -> None:
    """Refuse an operand that a product of this depth cannot take, or that does not lie where kernels run."""
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if x.dtype not in dtypes:
        raise InvalidTypeError(f"{what} must be {' or '.join(str(d) for d in dtypes)}, not {x.dtype}")
    if x.ndim != 2 or x.shape[1] != depth or not x.is_contiguous():
        layout = "" if x.is_contiguous() else ", not contiguous"
        raise InvalidValueError(f"{what} must be contiguous of shape (rows, {depth}), not {tuple(x.shape)}{layout}")
    check_device(x)
    if x.device != beside.device:
        raise InvalidValueError(f"{what} must lie where the weights do, on {beside.device}, not on {x.device}")


def check_device(x: torch.Tensor) -> None:
    """Refuse a tensor outside a CUDA device, unless kernels are interpreted."""
    if not INTERPRETED and x.device.type != "cuda":
        advice = "TRITON_INTERPRET=1, set beforehand, runs kernels slowly without one"
        raise InvalidValueError(f"tensors of a GPU kernel must lie on a CUDA device, not on {x.device}: {advice}")


def column_tensor(what: str, given: torch.Tensor | ArrayLike, count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return one number for each row or column, from as many or from one for all."""
    found = torch.as_tensor(given, dtype=dtype, device=device).reshape(-1)
    if found.numel() not in (1, count):
        raise InvalidValueError(f"{what} must be one number or {count}, not {found.numel()}")
    return found.expand(count).contiguous()


def finish_sums(
    partial: torch.Tensor,
    out: torch.Tensor,
    row_scales: torch.Tensor | None,
    column_scales: torch.Tensor,
    bias: torch.Tensor | None,
) -> None:
    """Add float32 sums (splits, rows, columns) up into ``out``, times the scales and plus the bias."""
    splits, rows, columns = partial.shape
    launcher(finish_float_sums, (triton.cdiv(rows, 16), triton.cdiv(columns, 128)))(
        partial, out, column_scales if row_scales is None else row_scales, column_scales, column_scales if bias is None else bias,
        rows=rows, columns=columns, splits=splits, HAS_ROW_SCALES=row_scales is not None, HAS_BIAS=bias is not None,
        BLOCK_M=16, BLOCK_N=128, enable_fp_fusion=False,
    )  # fmt: skip
