"""The integer kernels as others time, price and check them: random operands, references and bytes."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

import formats
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels.finishing import Prepared, Requantized, Scaled, prepare
from hwmodels.gpu.kernels.integer import IntegerWeights, depth_refusal, integer_matmul, largest_depth, weights
from hwmodels.gpu.kernels.integer_operand import operand
from hwmodels.gpu.kernels.kernel import Kernel, Product, Reference
from hwmodels.gpu.kernels.launching import repeated_rows
from hwmodels.gpu.kernels.sampling import DISTINCT, encoded_rows, operations, refused_shape, scalar_format


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Codes of (rows, depth), weights, and what becomes of their sums."""

    x: torch.Tensor
    fmt: Format
    w: IntegerWeights
    #: codes of the distinct columns, over and over again
    codes: NDArray[np.uint8]
    finish: Scaled | Requantized
    prepared: Prepared


def _takes(product: Product, *, narrow: bool) -> str | None:
    if (refused := refused_shape(product)) is not None:
        return refused
    weight, activation = scalar_format(product.weight), scalar_format(product.activation)
    try:
        if weight is None or activation is None:
            raise InvalidValueError(f"formats of an integer product must be integers, not {product.weight} x {product.activation}")
        limit = largest_depth(operand(activation), operand(weight))
    except InvalidValueError as error:
        return str(error)
    if (weight.bits < 8) != narrow:
        return f"weights must have {'2 to 7' if narrow else '8'} bits, not {weight.bits}"
    if product.group:
        return f"scales of an integer product must be one for each column, not one for each {product.group} weights"
    return None if product.depth <= limit else f"{depth_refusal(limit)}, not {product.depth}"


def _operands(product: Product, seed: int, device: torch.device, *, requantized: bool) -> Operands:
    x_codes, row_scales = encoded_rows(product.activation, (product.rows, product.depth), 2 * seed)
    distinct = min(product.columns, DISTINCT)
    found, column_scales = encoded_rows(product.weight, (distinct, product.depth), 2 * seed + 1)
    repeated = np.arange(product.columns) % distinct
    w = weights(found.T, product.weight, device)
    w = replace(w, columns=product.columns, packed=repeated_rows(w.packed, product.columns), sums=w.sums[repeated])
    finish: Scaled | Requantized
    if (
        requantized
    ):  # codes deviate by about 32, sums by that squared times the root of the depth: so that the results deviate by 32 too
        multiplier, shift = formats.quantize_multiplier(1 / (32 * product.depth**0.5))
        finish = Requantized(fmt=formats.scalar("int8"), multiplier=multiplier, shift=shift, zero_point=3)
    else:
        scales = (torch.from_numpy(each).to(device) for each in (row_scales, column_scales[repeated]))
        finish = Scaled(row_scale=next(scales), column_scale=next(scales), dtype=torch.bfloat16)
    prepared = prepare(finish, product.rows, product.columns, device)
    fmt = formats.scalar(product.activation)
    return Operands(x=torch.from_numpy(x_codes).to(device), fmt=fmt, w=w, codes=found.T, finish=finish, prepared=prepared)


def _run(given: Operands) -> torch.Tensor:
    return integer_matmul(given.x, given.fmt, given.w, given.prepared, tuned=True)


def _reference(given: Operands) -> Reference:
    codes = given.codes[:, np.arange(given.w.columns) % given.codes.shape[1]]
    exact = formats.matmul(given.x.cpu().numpy(), given.fmt, codes, given.w.fmt, formats.Accumulator.exact())
    sums = exact.to_float().astype(np.int64)
    if isinstance(given.finish, Requantized):
        how = given.finish
        expected = formats.requantize(sums, how.multiplier, how.shift, how.fmt, how.zero_point, variant="single").astype(np.float64)
    else:
        rows, columns = (each.cpu().numpy() for each in (given.finish.row_scale, given.finish.column_scale))  # type: ignore[union-attr]
        scaled = sums.astype(np.float32) * rows[:, np.newaxis] * columns
        expected = torch.from_numpy(scaled).to(given.prepared.dtype).double().numpy()
    return expected, np.zeros_like(expected)


def _bytes_moved(product: Product, *, requantized: bool) -> float:
    weight, activation = formats.scalar(product.weight), formats.scalar(product.activation)
    operands = product.columns * product.depth * weight.bits / 8 + product.rows * product.depth * -(-activation.bits // 8)
    if requantized:
        return operands + product.rows * product.columns + 8 * product.columns
    return operands + 2 * product.rows * product.columns + 4 * (product.rows + product.columns)


def _kernel(name: str, family: str, summary: str, *, narrow: bool = False, requantized: bool = False) -> Kernel:
    return Kernel(
        name=name,
        family=family,
        summary=summary,
        arithmetic="int8",
        takes=partial(_takes, narrow=narrow),
        operands=partial(_operands, requantized=requantized),
        run=_run,
        reference=_reference,
        bytes_moved=partial(_bytes_moved, requantized=requantized),
        operations=operations,
    )


KERNELS: tuple[Kernel, ...] = (
    _kernel("integer", "int8", "8-bit integers times 8-bit integers, exact sums, scaled to bfloat16"),
    _kernel(
        "integer_narrow", "narrow-int8", "8-bit integers times 2- to 7-bit integers, exact sums, scaled to bfloat16", narrow=True
    ),
    _kernel(
        "integer_requantized", "int8-requantized", "8-bit integers to 8-bit integers, requantized in integers", requantized=True
    ),
)
