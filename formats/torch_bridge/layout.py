"""Formats applied to the memory of torch tensors, whatever the order of their axes."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from formats.block import BlockFormat
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format

_WIDENED = (torch.float16, torch.bfloat16)


def memory_order(x: Tensor) -> tuple[int, ...]:
    """Return the axes in the order in which they lie in memory, the slowest first."""
    if x.is_contiguous():
        return tuple(range(x.ndim))
    return tuple(sorted(range(x.ndim), key=lambda axis: (x.stride(axis), x.shape[axis]), reverse=True))


def in_memory_order(x: Tensor) -> Tensor:
    """View the tensor with its axes in the order in which they lie in memory."""
    return x if x.is_contiguous() else x.permute(memory_order(x))


def check_float(x: Tensor, what: str = "x") -> None:
    """Refuse what is not a float32, float16 or bfloat16 tensor on the CPU."""
    if x.device.type not in ("cpu", "meta"):
        raise InvalidTypeError(f"{what} must be a tensor on the CPU, not on {x.device}")
    if x.dtype != torch.float32 and x.dtype not in _WIDENED:
        detail = ": narrowing it first would round twice" if x.dtype == torch.float64 else ""
        raise InvalidTypeError(f"{what} must be float32, float16 or bfloat16, not {x.dtype}{detail}")


def write_quantized(fmt: Format, x: Tensor, scale: Tensor, out: Tensor, rounding: str, overflow: str, seed: int) -> None:
    """Quantize float32 ``x`` with float32 scales that broadcast against it, into ``out``.

    Nothing is copied where the axes of both lie in the same order without gaps.
    """
    order = memory_order(out)
    source, target, factors = x.detach(), out.detach(), scale.detach()
    # what is drawn depends on an element's place in C order, and what does not fit is for the codec to refuse
    dense = source.permute(order).is_contiguous() and target.permute(order).is_contiguous()
    if dense and rounding != "stochastic" and _fits(scale.shape, x.shape):
        padded = factors.reshape((1,) * (x.ndim - scale.ndim) + scale.shape)
        source, target, factors = source.permute(order), target.permute(order), padded.permute(order)
    fmt.quantize(source.numpy(), factors.numpy(), target.numpy(), rounding, overflow, seed=seed)


def _fits(scale: torch.Size, x: torch.Size) -> bool:
    return len(scale) <= len(x) and all(one in (1, whole) for one, whole in zip(reversed(scale), reversed(x), strict=False))


def write_blocks(fmt: BlockFormat, x: Tensor, out: Tensor, axis: int, rounding: str, seed: int) -> None:
    """Quantize float32 ``x`` in blocks along ``axis``, into ``out``; copied as little as above."""
    axis = checked_axis(fmt, x, axis)
    order = memory_order(out)
    source, target = x.detach(), out.detach()
    if rounding == "stochastic" or not (source.permute(order).is_contiguous() and target.permute(order).is_contiguous()):
        fmt.quantize(source.numpy(), axis, target.numpy(), rounding=rounding, seed=seed)
        return
    try:
        placed = source.permute(order).numpy(), order.index(axis), target.permute(order).numpy()
        fmt.quantize(*placed, rounding=rounding, seed=seed)
    except InvalidValueError:
        fmt.quantize(source.numpy(), axis, rounding=rounding, seed=seed)  # names the block as the caller counts
        raise


def block_factors(fmt: BlockFormat, x: Tensor, axis: int) -> Tensor:
    """Return what the elements' values are multiplied by in each block along ``axis``: float32, contiguous."""
    axis = checked_axis(fmt, x, axis)
    scales = fmt.encode(x.detach().numpy(), axis)[1]
    factors = np.ldexp(fmt.scale_format.decode(scales.codes, scales.tensor), fmt.unit_exponent).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(factors))


@lru_cache(maxsize=256)
def float32_range(fmt: Format) -> tuple[float, float]:
    """Return the smallest and the largest finite value that float32 can carry."""
    finite = fmt.float32_values[np.isfinite(fmt.float32_values)]
    return float(finite.min()), float(finite.max())


@lru_cache(maxsize=256)
def passing_range(fmt: Format) -> tuple[float, float]:
    """Return between which x / scale a gradient passes: the range, and one float32 beyond an end that is not zero.

    That much x / scale is off by rounding where the scale was made to take x to the end: amax / (amax / largest).
    """
    low, high = (np.float32(end) for end in float32_range(fmt))
    below, above = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
    return float(below if low else low), float(above if high else high)


def checked_axis(fmt: BlockFormat, x: Tensor, axis: int) -> int:
    """Return the axis counted from the front."""
    if x.ndim == 0:
        raise InvalidValueError(f"x for {fmt.name} must have at least one axis, not none")
    if not -x.ndim <= axis < x.ndim:
        raise InvalidValueError(f"axis for {fmt.name} must be {-x.ndim} to {x.ndim - 1}, not {axis}")
    return axis % x.ndim
