"""The quantize kernels as others time, price and check them: random operands, references and bytes."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import formats
from formats.block import BlockFormat
from formats.errors import UnknownNameError
from formats.format import Format
from hwmodels.gpu.kernels.kernel import Kernel, Product, Reference
from hwmodels.gpu.kernels.quantize import NAMES
from hwmodels.gpu.kernels.quantize_plan import Plan, absmax_scales, block_scales, given_scales, tensor_scale
from hwmodels.gpu.kernels.sampling import absmax, normal, scalar_format


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Floats, and how they are quantized."""

    x: torch.Tensor
    plan: Plan
    fmt: Format | BlockFormat


def _takes(product: Product, *, given: bool) -> str | None:
    if product.columns:
        return f"columns of a quantize kernel must be 0, not {product.columns}"
    if product.activation not in NAMES:
        return f"values of a quantize kernel must be {', '.join(NAMES)}, not {product.activation}"
    fmt = scalar_format(product.weight)
    if fmt is None:
        return _refused_block(product, given)
    if fmt.bits > 8:
        return f"format of a quantize kernel must have at most 8 bits, not {fmt.bits}"
    group = product.group or product.depth
    return f"group must divide {product.depth}, not be {group}" if given and product.depth % group else None


def _refused_block(product: Product, given: bool) -> str | None:
    try:
        fmt = formats.get(product.weight)
    except UnknownNameError:
        return f"format of a quantize kernel must be one of a name alone, not {product.weight}"
    if given:
        return f"format for given scales must be a scalar format, not {fmt.name}"
    return "group of a block format must be its own, not given" if product.group else None


def _operands(product: Product, seed: int, device: torch.device, *, given: bool) -> Operands:
    x = torch.from_numpy(normal((product.rows, product.depth), seed)).to(NAMES[product.activation]).to(device)
    fmt = formats.get(product.weight)
    group = product.group or product.depth
    if isinstance(fmt, BlockFormat):
        plan = block_scales(fmt, tensor_scale(fmt, x))
    elif given:
        plan = given_scales(fmt, product.depth, absmax_scales(fmt, group)(x)[1])
    else:
        plan = absmax_scales(fmt, group)
    return Operands(x=x, plan=plan, fmt=fmt)


def _run(given: Operands) -> torch.Tensor:
    return given.plan(given.x)[0]


def _reference(given: Operands) -> Reference:
    x = given.x.cpu().float().numpy()
    if isinstance(given.fmt, BlockFormat):
        codes = given.fmt.encode(x)[0]
    else:
        group = given.plan.group
        if given.plan.given is None:
            scales = absmax(given.fmt.name, group).scales(x).reshape(len(x), -1)
        else:
            scales = given.plan.given.cpu().numpy()
        codes = given.fmt.encode(x, np.repeat(scales, group, axis=1)[:, : x.shape[1]])
    return codes.astype(np.float64), np.zeros(x.shape)


def _bytes_moved(product: Product) -> float:
    size = {"float32": 4, "float16": 2, "bfloat16": 2}[product.activation]
    fmt = formats.get(product.weight)
    group, scale = (fmt.block, 1) if isinstance(fmt, BlockFormat) else (product.group or product.depth, 4)
    return product.rows * (product.depth * (size + 1) + -(-product.depth // group) * scale)


def _operations(product: Product) -> float:
    return float(product.rows * product.depth)


def _kernel(name: str, summary: str, *, given: bool) -> Kernel:
    return Kernel(
        name=name,
        family="quantize",
        summary=summary,
        arithmetic="bfloat16",
        takes=partial(_takes, given=given),
        operands=partial(_operands, given=given),
        run=_run,
        reference=_reference,
        bytes_moved=_bytes_moved,
        operations=_operations,
    )


KERNELS: tuple[Kernel, ...] = (
    _kernel("quantize", "floats to codes, with the scale of each group or block found in the same pass", given=False),
    _kernel("encode", "floats to codes under scales that are given", given=True),
)
