"""The block-format kernel as others time, price and check it: random operands, references and bytes."""

from dataclasses import dataclass, replace

import numpy as np
import torch

import formats
from formats.block import BlockFormat, BlockScales
from formats.codec import Codes
from formats.errors import UnknownNameError
from hwmodels.gpu.kernels.block import NAMES, BlockWeights, block_matmul, bound, weights
from hwmodels.gpu.kernels.kernel import Kernel, Product, Reference
from hwmodels.gpu.kernels.launching import repeated_rows
from hwmodels.gpu.kernels.sampling import DISTINCT, normal, operations, refused_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Activations, and weights with the codes and scales of their distinct columns."""

    x: torch.Tensor
    w: BlockWeights
    codes: Codes
    scales: BlockScales


def _takes(product: Product) -> str | None:
    if (refused := refused_shape(product)) is not None:
        return refused
    try:
        fmt = formats.get(product.weight)
    except UnknownNameError:
        fmt = None
    if not isinstance(fmt, BlockFormat):
        return f"weights of a block product must be in a block format, not {product.weight}"
    if product.activation not in NAMES:
        return f"activations of a block product must be {' or '.join(NAMES)}, not {product.activation}"
    return "group of a block format must be its own, not given" if product.group else None


def _operands(product: Product, seed: int, device: torch.device) -> Operands:
    fmt = formats.get(product.weight)
    assert isinstance(fmt, BlockFormat)
    distinct = min(product.columns, DISTINCT)
    codes, scales = fmt.encode(normal((distinct, product.depth), 2 * seed + 1))
    codes, scales = codes.T, BlockScales(scales.codes.T, scales.tensor)
    x = torch.from_numpy(normal((product.rows, product.depth), 2 * seed)).to(NAMES[product.activation]).to(device)
    w, repeated = weights(codes, scales, fmt, device), np.arange(product.columns) % distinct
    w = replace(
        w,
        columns=product.columns,
        packed=repeated_rows(w.packed, product.columns),
        scales=w.scales[repeated],
        tops=w.tops[repeated],
        column_scales=w.column_scales[repeated],
    )
    return Operands(x=x, w=w, codes=codes, scales=scales)


def _run(given: Operands) -> torch.Tensor:
    return block_matmul(given.x, given.w, tuned=True)


def _reference(given: Operands) -> Reference:
    x = given.x.cpu().double().numpy()
    w = given.w.fmt.decode(given.codes, given.scales, axis=0).astype(np.float64)
    w = w[:, np.arange(given.w.columns) % w.shape[1]]
    expected, sums = x @ w, bound(x, w, given.x.dtype)
    rounding = 2.0**-11 if given.x.dtype == torch.float16 else 2.0**-8
    return expected, sums + (np.abs(expected) + sums) * rounding


def _bytes_moved(product: Product) -> float:
    fmt = formats.get(product.weight)
    assert isinstance(fmt, BlockFormat)
    blocks = -(-product.depth // fmt.block)
    weight = product.columns * (product.depth * fmt.bits + blocks * fmt.scale_format.bits) / 8
    return weight + 2 * product.rows * (product.depth + product.columns) + 8 * product.columns


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        name="block",
        family="weight-only",
        summary="float16 or bfloat16 times weights in a block format, decoded and scaled in registers",
        arithmetic="bfloat16",
        takes=_takes,
        operands=_operands,
        run=_run,
        reference=_reference,
        bytes_moved=_bytes_moved,
        operations=operations,
    ),
)
