"""Whole numbers of up to 8 bits times weights of 2 to 8 bits, exactly, on integer tensor cores.

Sums are those of ``formats.matmul``; what becomes of them is int32, float by scales, or codes as ``formats.requantize``
(``variant="single"``) and ``formats.requantize_by_shift`` give them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import ArrayLike, NDArray

import formats
from formats.arithmetic.requantize import INT32_MAX, ROUNDINGS, SHIFTS
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from formats.names import unknown_name
from hwmodels.gpu.kernels.integer_sums import finish_integer_sums, integer_product
from hwmodels.gpu.kernels.launching import Tile, check_operand, column_tensor, split_depth, tile_for

#: what 8-bit operands may add up to in the tensor cores' int32
LARGEST_DEPTH = INT32_MAX // 2**14


@dataclass(frozen=True, kw_only=True)
class Operand:
    """How a code becomes an int8 in the top bits of a byte: ``value = int8((code ^ flip) << (8 - bits)) / 2**(8 - bits) + offset``."""

    bits: int
    flip: int
    offset: int
    #: largest magnitude of a value
    reach: int


def operand(fmt: Format) -> Operand:
    """Return how the codes of an integer format enter the tensor cores; ``ValueError`` for other formats."""
    codes = np.flatnonzero(np.isfinite(fmt.values))
    values = fmt.values[codes]
    for flip in (0, 2 ** (fmt.bits - 1)):
        flipped = codes ^ flip
        numbers = np.where(flipped >= 2 ** (fmt.bits - 1), flipped - 2**fmt.bits, flipped)
        offset = values[0] - numbers[0]
        if 2 <= fmt.bits <= 8 and offset == int(offset) and np.array_equal(values, numbers + offset):
            return Operand(bits=fmt.bits, flip=flip, offset=int(offset), reach=int(np.abs(values).max()))
    raise InvalidValueError(f"format of an integer product must be an integer of 2 to 8 bits, not {fmt.name}")


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerWeights:
    """Weights as the kernel reads them."""

    fmt: Format
    operand: Operand
    depth: int
    columns: int
    #: uint8 of shape (columns, bytes of a row): ``formats.pack`` of the codes of each output
    packed: torch.Tensor
    #: int32 of shape (columns,): the sum of each output's weights
    sums: torch.Tensor


def weights(codes: ArrayLike, fmt: str | Format, device: str | torch.device = "cpu") -> IntegerWeights:
    """Pack codes of shape (depth, columns), as ``formats.matmul`` takes them; ``ValueError`` where sums could leave int32."""
    found = formats.scalar(fmt) if isinstance(fmt, str) else fmt
    how, rows = operand(found), np.ascontiguousarray(np.asarray(codes).T)
    if rows.ndim != 2 or rows.dtype.kind not in "ui":
        raise InvalidTypeError(f"weights of an integer product must be integer codes of 2 axes, not {rows.dtype} of {rows.ndim}")
    packed = formats.pack(rows, found.bits)
    values = np.nan_to_num(found.values).astype(np.int64)
    return IntegerWeights(
        fmt=found,
        operand=how,
        depth=rows.shape[1],
        columns=rows.shape[0],
        packed=torch.from_numpy(packed).to(device),
        sums=torch.from_numpy(values[rows].sum(axis=1).astype(np.int32)).to(device),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaled:
    """Sums to floats: ``((float32(sum) * row_scale) * column_scale) + bias``, each step rounded to float32, then to ``dtype``."""

    #: one number, or float32 of shape (rows,)
    row_scale: torch.Tensor | float = 1.0
    #: one number, or float32 of shape (columns,)
    column_scale: torch.Tensor | float = 1.0
    #: float32 of shape (columns,)
    bias: torch.Tensor | None = None
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Requantized:
    """Sums to codes by a multiplier and a shift: ``formats.requantize(..., variant="single")``."""

    fmt: Format
    #: one number or one for each column
    multiplier: ArrayLike
    shift: ArrayLike
    zero_point: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class RequantizedByShift:
    """Sums to codes by a shift alone: ``formats.requantize_by_shift``."""

    fmt: Format
    #: one number or one for each column
    shift: ArrayLike
    zero_point: int = 0
    rounding: str = "nearest_even"


Finish = Scaled | Requantized | RequantizedByShift | None


def integer_matmul(
    x: torch.Tensor, fmt: str | Format, w: IntegerWeights, finish: Finish = None, *, tile: Tile | None = None
) -> torch.Tensor:
    """Return the sums of codes (rows, depth) times weights (depth, columns), or what ``finish`` makes of them.

    ``x`` is uint8, a code of ``fmt`` in each byte; the result is int32 (rows, columns), a float type, or codes as uint8. Raises
    ``ValueError`` for shapes that do not fit and for a depth whose sums could leave int32.
    """
    found = formats.scalar(fmt) if isinstance(fmt, str) else fmt
    how = operand(found)
    check_operand("codes of an integer product", x, torch.uint8, w.depth, w.packed)
    _check_depth(how, w)
    rows = x.shape[0]
    arguments = _arguments(finish, rows, w.columns, x.device)
    out = torch.empty((rows, w.columns), dtype=arguments.pop("dtype"), device=x.device)
    if out.numel() == 0:
        return out
    tile = tile_for(rows, w.columns, w.depth, 1) if tile is None else tile
    chunk, splits = split_depth(w.depth, tile)
    sums = out if splits == 1 else torch.empty((splits, rows, w.columns), dtype=torch.int32, device=x.device)
    grid = (triton.cdiv(rows, tile.rows) * triton.cdiv(w.columns, tile.columns), splits)
    offset = how.offset
    integer_product[grid](
        x, w.packed, sums, w.sums, rows=rows, columns=w.columns, depth=w.depth, row_bytes=w.packed.shape[1], chunk=chunk,
        x_offset=offset, w_offset=w.operand.offset, X_BITS=how.bits, X_FLIP=how.flip, W_BITS=w.operand.bits, W_FLIP=w.operand.flip,
        W_HAS_OFFSET=w.operand.offset != 0, SPLIT=splits > 1, **tile.arguments(), **arguments,
    )  # fmt: skip
    if splits > 1:
        grid = (triton.cdiv(rows, 16), triton.cdiv(w.columns, 128))
        finish_integer_sums[grid](
            sums, out, w.sums, rows=rows, columns=w.columns, splits=splits, x_offset=offset, BLOCK_M=16, BLOCK_N=128,
            enable_fp_fusion=False, **arguments,
        )  # fmt: skip
    return out


def _check_depth(how: Operand, w: IntegerWeights) -> None:
    limit = min(LARGEST_DEPTH, INT32_MAX // max(1, how.reach * w.operand.reach))
    if w.depth > limit:
        raise InvalidValueError(f"depth of an integer product must be at most {limit}, so that int32 holds its sums, not {w.depth}")


def _arguments(finish: Finish, rows: int, columns: int, device: torch.device) -> dict[str, Any]:
    """Return what the kernel is told of the finish, and the ``dtype`` of the result."""
    nothing = torch.zeros(1, dtype=torch.int32, device=device)
    found: dict[str, Any] = {
        "dtype": torch.int32, "row_scales": nothing, "factors": nothing, "shifts": nothing, "biases": nothing, "zero_point": 0,
        "low": 0, "high": 0, "FINISH": "sums", "ROUNDING": "floor", "MASK": 0, "HAS_BIAS": False,
    }  # fmt: skip
    if finish is None:
        return found
    if isinstance(finish, Scaled):
        return found | {
            "dtype": finish.dtype,
            "row_scales": column_tensor("row scale", finish.row_scale, rows, torch.float32, device),
            "factors": column_tensor("column scale", finish.column_scale, columns, torch.float32, device),
            "biases": nothing if finish.bias is None else column_tensor("bias", finish.bias, columns, torch.float32, device),
            "HAS_BIAS": finish.bias is not None,
            "FINISH": "float",
        }
    low, high = output_range(finish.fmt)
    if not low <= finish.zero_point <= high:
        raise InvalidValueError(f"zero point must be {low} to {high}, not {finish.zero_point}")
    found |= {"dtype": torch.uint8, "zero_point": finish.zero_point, "low": low, "high": high, "MASK": 2**finish.fmt.bits - 1}
    if isinstance(finish, Requantized):
        multiplier, shift = _within("multiplier", finish.multiplier, 0, INT32_MAX), _within("shift", finish.shift, *SHIFTS)
        factors = column_tensor("multiplier", multiplier, columns, torch.int32, device)
        return found | {"factors": factors, "shifts": column_tensor("shift", shift, columns, torch.int32, device), "FINISH": "multiplied"}
    if finish.rounding not in ROUNDINGS:
        raise unknown_name("rounding", finish.rounding, ROUNDINGS)
    shifts = column_tensor("shift", _within("shift", finish.shift, -62, 62), columns, torch.int32, device)
    return found | {"shifts": shifts, "FINISH": "shifted", "ROUNDING": finish.rounding}


def output_range(fmt: Format) -> tuple[int, int]:
    """Return the smallest and the largest number of a format that sums are requantized to: two's complement or unsigned, 8 bits."""
    how = operand(fmt)
    low, high = int(fmt.minimum), int(fmt.maximum)
    if how.offset != (2 ** (fmt.bits - 1) if how.flip else 0):
        raise InvalidValueError(f"output format must be an integer in two's complement or unsigned, not {fmt.name}")
    return low, high


def _within(what: str, given: ArrayLike, low: int, high: int) -> NDArray[np.int64]:
    array = np.asarray(given)
    if array.dtype.kind not in "ui":
        raise InvalidTypeError(f"{what} must be integers, not {array.dtype}")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        wrong = int(array.min()) if int(array.min()) < low else int(array.max())
        raise InvalidValueError(f"{what} must be {low} to {high}, not {wrong}")
    return array.astype(np.int64)


