"""Every format as a torch operator with a straight-through gradient, for ``torch.compile`` and ``torch.export`` alike.

Importing this module registers ``torch.ops.bitatlas``. Operators name a format by its registered name, since that is what a
graph can hold; ``torch_bridge.fake_quantize`` is what to call.

A gradient passes unchanged where x / scale lies within the format's finite range, the ends included and what rounding adds to
them (``layout.passing_range``), and is zero where it lies outside: there quantizing saturates. Nothing is masked for being
small. In a block format x / scale is the element over its block's scale, which counts as a constant. The gradient of a scale is
that of learned step sizes (arXiv 1902.08153, eq. 3; without the factor g of its section 2.2), with the format's levels and range
in place of the integers': level - x / scale within the range, the end of the range outside, summed over what shares the scale.
"""

from typing import Any

import torch
from torch import Tensor

from formats.block import BlockFormat
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from formats.registry import get, scalar
from formats.torch_bridge.layout import (
    block_factors,
    check_float,
    checked_axis,
    float32_range,
    passing_range,
    write_blocks,
    write_quantized,
)


@torch.library.custom_op("bitatlas::quantize", mutates_args=())
def quantize(
    x: Tensor, scale: Tensor, format_name: str, rounding: str = "nearest_even", overflow: str = "saturate", seed: int = 0
) -> Tensor:
    """Return ``Format.quantize(x, scale)``: float32, strides as ``torch.empty_like(x)`` has them.

    ``x`` is float32, read where it lies, or float16 or bfloat16, widened exactly; ``scale`` is float32 and broadcasts against
    it. Raises what ``Format.quantize`` raises.
    """
    _check(x, scale)
    result = torch.empty_like(x, dtype=torch.float32)
    source = x if x.dtype == torch.float32 else result.copy_(x)
    write_quantized(scalar(format_name), source, scale, result, rounding, overflow, seed)
    return result


@torch.library.custom_op("bitatlas::quantize_out", mutates_args={"out"})
def quantize_out(
    x: Tensor,
    scale: Tensor,
    out: Tensor,
    format_name: str,
    rounding: str = "nearest_even",
    overflow: str = "saturate",
    seed: int = 0,
) -> None:
    """Write ``Format.quantize(x, scale)`` to ``out``, a float32 tensor of the shape of ``x``; no gradient passes."""
    _check(x, scale)
    check_out(x, out)
    source = x if x.dtype == torch.float32 else x.float()
    write_quantized(scalar(format_name), source, scale, out, rounding, overflow, seed)


@torch.library.custom_op("bitatlas::quantize_blocks", mutates_args=())
def quantize_blocks(x: Tensor, format_name: str, axis: int = -1, rounding: str = "nearest_even", seed: int = 0) -> Tensor:
    """Return ``BlockFormat.quantize(x, axis)``: float32, strides as ``torch.empty_like(x)`` has them."""
    check_float(x)
    result = torch.empty_like(x, dtype=torch.float32)
    source = x if x.dtype == torch.float32 else result.copy_(x)
    write_blocks(block_format(format_name), source, result, axis, rounding, seed)
    return result


@torch.library.custom_op("bitatlas::block_scales", mutates_args=())
def block_scales(x: Tensor, format_name: str, axis: int = -1) -> Tensor:
    """Return what each block's elements are multiplied by: float32, shaped like ``x`` but for ``axis``, one for each block.

    No gradient passes: a block's scale counts as a constant.
    """
    check_float(x)
    return block_factors(block_format(format_name), x.float(), axis)


@torch.library.custom_op("bitatlas::scale_gradient", mutates_args=())
def scale_gradient(gradient: Tensor, x: Tensor, scale: Tensor, format_name: str, rounding: str, overflow: str, seed: int) -> Tensor:
    """Return the gradient of ``quantize``'s scale, given that of its result: float32, shaped like ``scale``.

    An operator of its own, so that a compiler cannot sum in another order.
    """
    fmt = scalar(format_name)
    lower, upper = passing_range(fmt)
    ratio = x.float() / scale
    inside = (ratio >= lower) & (ratio <= upper)
    nothing = torch.zeros((), dtype=torch.float32)
    level = quantize(torch.where(inside, ratio, nothing), torch.ones(()), format_name, rounding, overflow, seed)
    slope = torch.where(inside, level - ratio, ratio.clamp(*float32_range(fmt)))
    slope = torch.where(ratio.isnan(), nothing, slope)
    return (gradient * slope).sum_to_size(scale.shape).clone(memory_format=torch.contiguous_format)


@scale_gradient.register_fake
def _(gradient: Tensor, x: Tensor, scale: Tensor, format_name: str, rounding: str, overflow: str, seed: int) -> Tensor:
    return torch.empty(scale.shape, dtype=torch.float32, device=scale.device)


@torch.library.custom_op("bitatlas::block_gradient", mutates_args=())
def block_gradient(gradient: Tensor, x: Tensor, format_name: str, axis: int) -> Tensor:
    """Return the gradient of ``quantize_blocks``'s x, given that of its result: dtype and strides of ``x``."""
    fmt = block_format(format_name)
    element = torch.arange(x.shape[axis]) // fmt.block
    factors = block_scales(x, format_name, axis).index_select(axis, element)
    return torch.empty_like(x).copy_(_passed(gradient, x, factors, fmt.element))


@block_gradient.register_fake
def _(gradient: Tensor, x: Tensor, format_name: str, axis: int) -> Tensor:
    return torch.empty_like(x)


def block_format(name: str) -> BlockFormat:
    """Return the block format called ``name``; ``ValueError`` for one whose codes stand alone."""
    found = get(name)
    if not isinstance(found, BlockFormat):
        raise InvalidValueError(f"format must be a block format here, not {name}, whose codes stand alone")
    return found


def check_out(x: Tensor, out: Tensor) -> None:
    """Refuse a tensor that a result of the shape of ``x`` cannot be written to."""
    if out.dtype != torch.float32 or out.shape != x.shape or out.device.type not in ("cpu", "meta"):
        raise InvalidTypeError(
            f"out must be a float32 tensor of shape {tuple(x.shape)} on the CPU, "
            f"not {out.dtype} of shape {tuple(out.shape)} on {out.device}"
        )


def _check(x: Tensor, scale: Tensor) -> None:
    check_float(x)
    if scale.dtype != torch.float32 or scale.device.type not in ("cpu", "meta"):
        raise InvalidTypeError(f"scale must be a float32 tensor on the CPU, not {scale.dtype} on {scale.device}")


@quantize.register_fake
def _(
    x: Tensor, scale: Tensor, format_name: str, rounding: str = "nearest_even", overflow: str = "saturate", seed: int = 0
) -> Tensor:
    _check(x, scale)
    return torch.empty_like(x, dtype=torch.float32)


@quantize_out.register_fake
def _(
    x: Tensor,
    scale: Tensor,
    out: Tensor,
    format_name: str,
    rounding: str = "nearest_even",
    overflow: str = "saturate",
    seed: int = 0,
) -> None:
    _check(x, scale)
    check_out(x, out)


@quantize_blocks.register_fake
def _(x: Tensor, format_name: str, axis: int = -1, rounding: str = "nearest_even", seed: int = 0) -> Tensor:
    check_float(x)
    checked_axis(block_format(format_name), x, axis)
    return torch.empty_like(x, dtype=torch.float32)


@block_scales.register_fake
def _(x: Tensor, format_name: str, axis: int = -1) -> Tensor:
    check_float(x)
    fmt = block_format(format_name)
    shape = list(x.shape)
    along = checked_axis(fmt, x, axis)
    shape[along] = (shape[along] + fmt.block - 1) // fmt.block
    return x.new_empty(shape, dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, *ctx.settings = inputs
    ctx.save_for_backward(x, scale)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, scale = ctx.saved_tensors
    to_x = _passed(gradient, x, scale, scalar(ctx.settings[0])) if ctx.needs_input_grad[0] else None
    to_scale = scale_gradient(gradient, x, scale, *ctx.settings) if ctx.needs_input_grad[1] else None
    return to_x, to_scale, None, None, None, None


def _passed(gradient: Tensor, x: Tensor, scale: Tensor, fmt: Format) -> Tensor:
    lower, upper = passing_range(fmt)
    ratio = x.float() / scale
    inside = (ratio >= lower) & (ratio <= upper)
    return torch.where(inside, gradient, torch.zeros((), dtype=torch.float32)).to(x.dtype)


def _keep_blocks(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.name, ctx.axis, *_ = inputs
    ctx.save_for_backward(x)


def _block_gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
    (x,) = ctx.saved_tensors
    return block_gradient(gradient, x, ctx.name, ctx.axis), None, None, None, None


def _no_gradient(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
    return None, None, None


quantize.register_autograd(_gradients, setup_context=_keep)
quantize_blocks.register_autograd(_block_gradients, setup_context=_keep_blocks)
block_scales.register_autograd(_no_gradient)
