"""The float8 kernels as others time, price and check them: random operands, references and bytes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

import formats
from formats.errors import InvalidValueError
from hwmodels.gpu.kernels.float8 import FLOAT8, Float8Weights, bound, check_group, decoding, float8_matmul, weights
from hwmodels.gpu.kernels.kernel import Kernel, Product, Reference
from hwmodels.gpu.kernels.launching import repeated_rows
from hwmodels.gpu.kernels.sampling import DISTINCT, encoded_rows, operations, refused_shape, scalar_format


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Codes of (rows, depth) with a scale for each row, and weights."""

    x: torch.Tensor
    fmt: str
    row_scales: torch.Tensor
    w: Float8Weights
    #: weights as float64 (depth, columns)
    decoded: Callable[[], NDArray[np.float64]]


def _takes(product: Product, *, narrow: bool) -> str | None:
    if (refused := refused_shape(product)) is not None:
        return refused
    weight = scalar_format(product.weight)
    if product.activation not in FLOAT8:
        return f"activations of a float8 product must be {' or '.join(FLOAT8)}, not {product.activation}"
    if weight is None:
        return f"weights of a float8 product must be in a scalar format, not {product.weight}"
    try:
        decoding(weight)
        check_group(product.group)
    except InvalidValueError as error:
        return str(error)
    return None if (weight.bits < 8) == narrow else f"weights must have {'fewer than 8' if narrow else '8'} bits, not {weight.bits}"


def _operands(product: Product, seed: int, device: torch.device) -> Operands:
    x_codes, row_scales = encoded_rows(product.activation, (product.rows, product.depth), 2 * seed)
    distinct = min(product.columns, DISTINCT)
    codes, scales = encoded_rows(product.weight, (distinct, product.depth), 2 * seed + 1, product.group)
    repeated = np.arange(product.columns) % distinct
    fmt = formats.scalar(product.weight)

    def decoded() -> NDArray[np.float64]:
        spread = np.repeat(scales, product.group, axis=1)[:, : product.depth] if product.group else scales[:, np.newaxis]
        found: NDArray[np.float64] = (fmt.values[codes] * spread).T[:, repeated]
        return found

    w = weights(codes.T, fmt, scales.T, device, group=product.group)
    w = replace(
        w,
        columns=product.columns,
        packed=repeated_rows(w.packed, product.columns),
        column_scales=w.column_scales[repeated],
        group_scales=None if w.group_scales is None else w.group_scales[repeated],
    )
    return Operands(
        x=torch.from_numpy(x_codes).to(device),
        fmt=product.activation,
        row_scales=torch.from_numpy(row_scales).to(device),
        w=w,
        decoded=decoded,
    )


def _run(given: Operands) -> torch.Tensor:
    return float8_matmul(given.x, given.fmt, given.w, given.row_scales, tuned=True)


def _reference(given: Operands) -> Reference:
    x = formats.scalar(given.fmt).values[given.x.cpu().numpy()] * given.row_scales.cpu().numpy()[:, np.newaxis].astype(np.float64)
    w = given.decoded()
    expected = x @ w
    sums = bound(np.abs(x) @ np.abs(w), w.shape[0])
    return expected, sums + (np.abs(expected) + sums) * 2.0**-8  # and the rounding to bfloat16


def _bytes_moved(product: Product) -> float:
    bits = formats.scalar(product.weight).bits
    groups = -(-product.depth // product.group) if product.group else 1
    operands = product.columns * product.depth * bits / 8 + product.rows * product.depth
    return operands + 2 * product.rows * product.columns + 4 * (product.rows + product.columns * groups)


def _kernel(name: str, family: str, summary: str, *, narrow: bool) -> Kernel:
    return Kernel(
        name=name,
        family=family,
        summary=summary,
        arithmetic="float8",
        takes=partial(_takes, narrow=narrow),
        operands=_operands,
        run=_run,
        reference=_reference,
        bytes_moved=_bytes_moved,
        operations=operations,
    )


KERNELS: tuple[Kernel, ...] = (
    _kernel("float8", "float8", "float8 times float8, promoted to float32 every 128 products, to bfloat16", narrow=False),
    _kernel("float8_narrow", "narrow-float8", "float8 times narrower weights that become float8 in registers", narrow=True),
)
