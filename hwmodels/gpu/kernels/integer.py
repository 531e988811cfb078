"""Whole numbers of up to 8 bits times weights of 2 to 8 bits, exactly, on integer tensor cores.

Sums are those of ``formats.matmul``; what becomes of them is int32, float by scales, or codes as ``formats.requantize``
(``variant="single"``) and ``formats.requantize_by_shift`` give them.
"""

from dataclasses import dataclass

import numpy as np
import torch
import triton
from numpy.typing import ArrayLike

import formats
from formats.arithmetic.requantize import INT32_MAX
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels.environment import launcher
from hwmodels.gpu.kernels.finishing import Finish, Prepared, prepare
from hwmodels.gpu.kernels.integer_operand import Operand, operand
from hwmodels.gpu.kernels.integer_sums import finish_integer_sums, integer_product
from hwmodels.gpu.kernels.launching import Tile, check_operand, check_tile, device_rows, split_depth, tiles_for
from hwmodels.gpu.kernels.tuning import fastest

#: columns of weights that are added up together, so that temporaries stay small
SUMMED_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerWeights:
    """Weights as the kernel reads them."""

    fmt: Format
    operand: Operand
    depth: int
    columns: int
    #: uint8 of shape (columns, bytes of a row): the codes of each output, ``packing.packed_rows``
    packed: torch.Tensor
    #: int32 of shape (columns,): the sum of each output's weights
    sums: torch.Tensor


def weights(codes: ArrayLike, fmt: str | Format, device: str | torch.device = "cpu") -> IntegerWeights:
    """Pack codes of shape (depth, columns), as ``formats.matmul`` takes them; ``ValueError`` for other shapes and formats."""
    found = formats.scalar(fmt) if isinstance(fmt, str) else fmt
    how, packed = operand(found), device_rows(codes, found, device)
    values = np.nan_to_num(found.values).astype(np.int32)
    given = np.asarray(codes)
    sums = [
        values[given[:, place : place + SUMMED_AT_ONCE]].sum(axis=0, dtype=np.int64)
        for place in range(0, given.shape[1], SUMMED_AT_ONCE)
    ]
    return IntegerWeights(
        fmt=found,
        operand=how,
        depth=given.shape[0],
        columns=given.shape[1],
        packed=packed,
        sums=torch.from_numpy(np.concatenate(sums).astype(np.int32)).to(device),
    )


def integer_matmul(
    x: torch.Tensor,
    fmt: str | Format,
    w: IntegerWeights,
    finish: Finish | Prepared = None,
    *,
    tile: Tile | None = None,
    tuned: bool = False,
) -> torch.Tensor:
    """Return the sums of codes (rows, depth) times weights (depth, columns), or what ``finish`` makes of them.

    ``x`` is uint8, a code of ``fmt`` in each byte; the result is int32 (rows, columns), a float type, or codes as uint8. ``tuned``
    tries the candidate tiles on the device the first time that a product of this kind is asked for. Raises
    ``ValueError`` for shapes that do not fit and for a depth whose sums could leave int32.
    """
    how = operand(formats.scalar(fmt) if isinstance(fmt, str) else fmt)
    check_operand("codes of an integer product", x, torch.uint8, w.depth, w.packed)
    limit = largest_depth(how, w.operand)
    if w.depth > limit:
        raise InvalidValueError(f"{depth_refusal(limit)}, not {w.depth}")
    rows = x.shape[0]
    prepared = finish if isinstance(finish, Prepared) else prepare(finish, rows, w.columns, x.device)
    if prepared.shape != (rows, w.columns):
        raise InvalidValueError(f"finish of an integer product must be prepared for {(rows, w.columns)}, not {prepared.shape}")
    out = torch.empty((rows, w.columns), dtype=prepared.dtype, device=x.device)
    if out.numel():
        candidates = tiles_for(rows, w.columns, w.depth, 1, wide=True) if tile is None else (tile,)
        for each in candidates:
            check_tile(each, w.fmt.bits, 1)
        key = (how, w.operand, prepared.arguments["FINISH"], rows, w.columns, w.depth, candidates)
        chosen = fastest(key, candidates, lambda each: _launch(x, how, w, prepared, each, out)) if tuned else candidates[0]
        _launch(x, how, w, prepared, chosen, out)
    return out


def _launch(x: torch.Tensor, how: Operand, w: IntegerWeights, finish: Prepared, tile: Tile, out: torch.Tensor) -> None:
    rows, columns = out.shape
    chunk, splits = split_depth(w.depth, tile)
    sums = out if splits == 1 else torch.empty((splits, rows, columns), dtype=torch.int32, device=x.device)
    grid: tuple[int, ...] = (triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns), splits)
    launcher(integer_product, grid)(
        x, w.packed, sums, w.sums, rows=rows, columns=columns, depth=w.depth, row_bytes=w.packed.shape[1], chunk=chunk,
        x_offset=how.offset, w_offset=w.operand.offset, **compiled_arguments(how, w.operand), SPLIT=splits > 1,
        WHOLE=w.depth % tile.depth == 0, **tile.arguments(), **finish.arguments,
    )  # fmt: skip
    if splits > 1:
        grid = (triton.cdiv(rows, 16), triton.cdiv(columns, 128))
        launcher(finish_integer_sums, grid)(
            sums, out, w.sums, rows=rows, columns=columns, splits=splits, x_offset=how.offset, BLOCK_M=16, BLOCK_N=128,
            enable_fp_fusion=False, **finish.arguments,
        )  # fmt: skip


def compiled_arguments(x: Operand, w: Operand) -> dict[str, int | bool]:
    """Return what ``integer_product`` is compiled with for two operands."""
    return {"X_BITS": x.bits, "X_FLIP": x.flip, "W_BITS": w.bits, "W_FLIP": w.flip, "W_HAS_OFFSET": w.offset != 0}


def largest_depth(x: Operand, w: Operand) -> int:
    """Return the depth up to which int32 holds the sums, those of what the tensor cores multiply included."""
    return min(INT32_MAX // 2**14, INT32_MAX // max(1, x.reach * w.reach))


def depth_refusal(limit: int) -> str:
    """Return what a depth must be, as messages begin."""
    return f"depth of an integer product must be at most {limit}, so that int32 holds its sums"
