"""Formats applied to torch tensors in place of arrays: same memory, same kernels, same bits."""

import numpy as np
import torch
from torch import Tensor

from formats.errors import InvalidTypeError
from formats.format import Format


def quantize(fmt: Format, x: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Quantize a float32 CPU tensor of any shape with one scale, into ``out`` where given.

    Dense tensors in any order of axes are read and written where they lie, where ``out`` has the same strides; else they are
    copied.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise InvalidTypeError(f"x must be a float32 tensor on the CPU, not {x.dtype} on {x.device}")
    source = x.detach()
    if not _in_memory_order(source).is_contiguous():
        source = source.contiguous()
    target = out if out is not None and out.stride() == source.stride() else torch.empty_like(source)
    fmt.quantize(_in_memory_order(source).numpy(), np.float32(scale), out=_in_memory_order(target).numpy())
    return target if out is None or out is target else out.copy_(target)


def _in_memory_order(x: Tensor) -> Tensor:
    """View the tensor with its axes in the order in which they lie in memory."""
    if x.is_contiguous():
        return x
    order = sorted(range(x.ndim), key=lambda axis: (x.stride(axis), x.shape[axis]), reverse=True)
    return x.permute(order)
