"""Floats to codes: for given scales, or with the scale of each group found in the same pass; and block formats with their scales.

Codes and scales are those of ``Format.encode``, of ``formats``' ``absmax`` rule and of ``BlockFormat.encode``, bit for bit.
Divisions are IEEE 754's. Arrays are (rows, length); a group is a stretch of a row, its last one may be shorter.
"""

import torch

import formats
from formats.block import BlockFormat
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels.launching import check_device
from hwmodels.gpu.kernels.quantize_plan import absmax_scales, block_scales, given_scales, refuse, tensor_scale

#: dtypes that widen to float32 exactly
NAMES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
INPUTS = tuple(NAMES.values())


def encode(x: torch.Tensor, fmt: str | Format, scale: torch.Tensor | float, *, rounding: str = "nearest_even") -> torch.Tensor:
    """Return the codes of ``x / scale``, uint8: ``Format.encode(x, scale, rounding)``.

    ``x`` is float32, float16 or bfloat16 of shape (rows, length); ``scale`` one number, or float32 of shape
    (1 or rows, groups), the groups being equal parts of a row. Raises ``ValueError`` as ``Format.encode`` does, for a NaN that the
    format cannot hold and for a scale that is not finite and positive.
    """
    found, source = _scalar(fmt), _input(x)
    scales = torch.as_tensor(scale, dtype=torch.float32, device=x.device)
    wrong = ~(torch.isfinite(scales) & (scales > 0))
    if bool(wrong.any()):
        raise InvalidValueError(f"scale must be finite and positive, not {float(scales[wrong].reshape(-1)[0]):g}")
    rows, length = source.shape
    scales = scales.reshape((1,) * (2 - scales.ndim) + tuple(scales.shape)).contiguous()
    if scales.ndim != 2 or scales.shape[0] not in (1, rows) or scales.shape[1] < 1 or length % scales.shape[1]:
        wanted = f"shape (1 or {rows}, groups), where groups divide {length}"
        raise InvalidValueError(f"scale must be of {wanted}, not {tuple(scales.shape)}")
    codes, _, count = given_scales(found, length, scales, rounding)(source)
    if not found.nan and (wrong_count := int(count)):
        raise InvalidValueError(
            f"values for {found.name} must be numbers, not NaN in {wrong_count} elements: the format has no NaN code"
        )
    return codes


def quantize_absmax(
    x: torch.Tensor, fmt: str | Format, group: int = 0, *, rounding: str = "nearest_even"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes, uint8 like ``x``, and the scales, float32 of shape (rows, groups), as ``absmax`` chooses them.

    A scale is the group's largest magnitude over the format's largest level; a group of zeros has the scale 1, no scale is below
    float32's normal numbers. ``group`` is the number of elements along a row that share a scale, 0 for whole rows. Raises
    ``ValueError`` for NaN and infinities.
    """
    found, source = _scalar(fmt), _input(x)
    codes, scales, count = absmax_scales(found, group if group else source.shape[1], rounding)(source)
    if int(count):
        refuse(found.name, source)
    return codes, scales


def encode_blocks(x: torch.Tensor, fmt: str | BlockFormat) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return codes, uint8 like ``x``, the blocks' scale codes, uint8 of shape (rows, blocks), and the tensor's scale.

    Equal to ``BlockFormat.encode(x)``: blocks along the last axis, the last one of a row may be shorter. Raises ``ValueError`` for
    NaN and infinities.
    """
    found, source = formats.get(fmt) if isinstance(fmt, str) else fmt, _input(x)
    if not isinstance(found, BlockFormat):
        raise InvalidValueError(f"format of encode_blocks must be a block format, not {found.name}")
    tensor = tensor_scale(found, source)
    codes, scales, count = block_scales(found, tensor)(source)
    if int(count):
        refuse(found.name, source)
    return codes, scales, float(tensor)


def _scalar(fmt: str | Format) -> Format:
    return formats.scalar(fmt) if isinstance(fmt, str) else fmt


def _input(x: torch.Tensor) -> torch.Tensor:
    if x.dtype not in INPUTS:
        raise InvalidTypeError(
            f"x of a quantize kernel must be float32, float16 or bfloat16, not {str(x.dtype).removeprefix('torch.')}"
        )
    if x.ndim != 2 or not x.is_contiguous():
        layout = "" if x.is_contiguous() else ", not contiguous"
        raise InvalidValueError(f"x of a quantize kernel must be contiguous of shape (rows, length), not {tuple(x.shape)}{layout}")
    check_device(x)
    return x
