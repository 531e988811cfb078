"""What becomes of the exact sums of whole numbers: nothing, floats by scales, or the codes of an integer format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from formats.arithmetic.requantize import INT32_MAX, ROUNDINGS, SHIFTS
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from formats.names import unknown_name
from hwmodels.gpu.kernels.integer_operand import operand
from hwmodels.gpu.kernels.launching import column_tensor


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A finish on a device, checked: launches with it move nothing and wait for nothing."""

    #: rows and columns of the product
    shape: tuple[int, int]
    #: of the result
    dtype: torch.dtype
    #: what the kernels are told
    arguments: Mapping[str, Any]


def prepare(finish: Finish, rows: int, columns: int, device: torch.device) -> Prepared:
    """Return what a product of this shape needs; ``ValueError`` and ``TypeError`` as ``formats.requantize`` has them."""
    nothing = torch.empty(1, dtype=torch.int32, device=device)
    found: dict[str, Any] = {
        "row_scales": nothing, "factors": nothing, "shifts": nothing, "biases": nothing, "zero_point": 0, "low": 0, "high": 0,
        "FINISH": "sums", "ROUNDING": "floor", "MASK": 0, "HAS_BIAS": False,
    }  # fmt: skip
    if finish is None:
        return Prepared(shape=(rows, columns), dtype=torch.int32, arguments=found)
    if isinstance(finish, Scaled):
        found |= {
            "row_scales": column_tensor("row scale", finish.row_scale, rows, torch.float32, device),
            "factors": column_tensor("column scale", finish.column_scale, columns, torch.float32, device),
            "biases": nothing if finish.bias is None else column_tensor("bias", finish.bias, columns, torch.float32, device),
            "HAS_BIAS": finish.bias is not None,
            "FINISH": "float",
        }
        return Prepared(shape=(rows, columns), dtype=finish.dtype, arguments=found)
    low, high = output_range(finish.fmt)
    if not low <= finish.zero_point <= high:
        raise InvalidValueError(f"zero point must be {low} to {high}, not {finish.zero_point}")
    found |= {"zero_point": finish.zero_point, "low": low, "high": high, "MASK": 2**finish.fmt.bits - 1}
    if isinstance(finish, Requantized):
        multipliers = _within("multiplier", finish.multiplier, 0, INT32_MAX)
        found |= {"factors": column_tensor("multiplier", multipliers, columns, torch.int32, device), "FINISH": "multiplied"}
    elif finish.rounding in ROUNDINGS:
        found |= {"ROUNDING": finish.rounding, "FINISH": "shifted"}
    else:
        raise unknown_name("rounding", finish.rounding, ROUNDINGS)
    shifts = _within("shift", finish.shift, *(SHIFTS if isinstance(finish, Requantized) else (-62, 62)))
    found |= {"shifts": column_tensor("shift", shifts, columns, torch.int32, device)}
    return Prepared(shape=(rows, columns), dtype=torch.uint8, arguments=found)


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
