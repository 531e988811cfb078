"""Formats applied to torch tensors in place of arrays: same memory, same kernels, same bits.

``quantize`` is the fast path for one scale and no gradient; ``fake_quantize`` is differentiable and works within
``torch.compile`` and ``torch.export``.

>>> import torch
>>> x = torch.tensor([0.3, 2.5, -9.0], requires_grad=True)
>>> y = fake_quantize(x, "e2m1")
>>> y.sum().backward()
>>> y.tolist(), x.grad.tolist()
([0.5, 2.0, -6.0], [1.0, 1.0, 0.0])
"""

import numpy as np
import torch
from torch import Tensor

from formats import registry
from formats.block import BlockFormat
from formats.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from formats.format import Format
from formats.torch_bridge import operator
from formats.torch_bridge.layout import in_memory_order


def quantize(fmt: Format, x: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Quantize a float32 CPU tensor of any shape with one scale, into ``out`` where given.

    Dense tensors in any order of axes are read and written where they lie, where ``out`` has the same strides; else they are
    copied.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise InvalidTypeError(f"x must be a float32 tensor on the CPU, not {x.dtype} on {x.device}")
    source = x.detach()
    if not in_memory_order(source).is_contiguous():
        source = source.contiguous()
    target = out if out is not None and out.stride() == source.stride() else torch.empty_like(source)
    fmt.quantize(in_memory_order(source).numpy(), np.float32(scale), out=in_memory_order(target).numpy())
    return target if out is None or out is target else out.copy_(target)


def fake_quantize(
    x: Tensor,
    format: str | Format | BlockFormat,  # noqa: A002 - the word for it
    scale: float | Tensor = 1.0,
    *,
    rounding: str = "nearest_even",
    overflow: str = "saturate",
    seed: int = 0,
    axis: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return what ``format`` makes of ``x``, in float32, with a straight-through gradient for ``x`` and ``scale``.

    ``x`` is a CPU tensor of any shape and layout: float32, read where it lies if dense in any order of axes, or float16 or
    bfloat16, widened exactly. The result is float32 whatever ``x`` is, since a level times a scale has more bits than those;
    ``.to(x.dtype)`` rounds it where that is wanted. It has the strides that ``torch.empty_like(x)`` has, and is written to
    ``out`` where given, which no gradient may need to pass.

    ``scale`` is a number, or a tensor that broadcasts against ``x``; a tensor of another float dtype than float32 is converted.
    Block formats bring their own scales: they take ``axis`` (the last one) in place of ``scale``, ``overflow`` and ``out``. A
    format given as an object must be the registered one of its name.

    ``operator`` states the gradients. Raises what ``Format.quantize`` and ``BlockFormat.quantize`` raise, and
    ``TypeError`` for tensors of other dtypes or devices.
    """
    name = _registered_name(format)
    if _is_block(name):
        if isinstance(scale, Tensor) or scale != 1 or overflow != "saturate" or out is not None:
            raise InvalidValueError(f"scale, overflow and out must be left out for {name}, whose blocks bring their scales")
        values: Tensor = operator.quantize_blocks(x, name, -1 if axis is None else axis, rounding, _signed(seed))
        return values
    if axis is not None:
        raise InvalidValueError(f"axis must be left out for {name}, whose codes stand alone, not {axis}")
    scales = scale.to(torch.float32) if isinstance(scale, Tensor) else torch.tensor(scale, dtype=torch.float32)
    if out is None:
        values = operator.quantize(x, scales, name, rounding, overflow, _signed(seed))
        return values
    if torch.is_grad_enabled() and (x.requires_grad or scales.requires_grad):
        raise InvalidValueError("out must be left out where x or scale requires a gradient")
    operator.quantize_out(x, scales, out, name, rounding, overflow, _signed(seed))
    return out


def _registered_name(format: str | Format | BlockFormat) -> str:  # noqa: A002
    if isinstance(format, str):
        return format
    if not _is_registered(format):
        raise InvalidValueError(f"format must be the registered one of its name, not another that is called {format.name}")
    return format.name


# these two are asked while compiling, and the answers stay what they are: registering never changes a name's meaning
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_registered(format: Format | BlockFormat) -> bool:  # noqa: A002
    try:
        return registry.get(format.name) is format
    except UnknownNameError:
        return False


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_block(name: str) -> bool:
    return isinstance(registry.get(name), BlockFormat)


def _signed(seed: int) -> int:
    """Return the same 64 bits as the signed number that an operator takes."""
    return (seed + 2**63) % 2**64 - 2**63
