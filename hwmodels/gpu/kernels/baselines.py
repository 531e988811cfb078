"""What kernels are measured against: the vendor's own matrix products, as torch calls them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwmodels.gpu.kernels.kernel import Kernel, Product, Reference
from hwmodels.gpu.kernels.sampling import normal, operations

#: bits of what cuBLAS writes
_RESULT_BITS = 16
_TYPES = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "int8": torch.int8}
#: numbers are brought into the types by these, so that 8-bit ones use their range
_SPREAD = {"bfloat16": 1.0, "float8_e4m3fn": 32.0, "int8": 24.0}
#: Hopper's tensor cores keep about 14 bits of a sum of float8 products, of which cuBLASLt adds up to the whole depth
_FLOAT8_BITS = 13


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Two matrices as the library takes them: (rows, depth), and (depth, columns) laid out by columns."""

    x: torch.Tensor
    weight: torch.Tensor
    #: scale of both, of float8
    one: torch.Tensor


def _operands(product: Product, seed: int, device: torch.device) -> Operands:
    kind, spread = _TYPES[product.weight], _SPREAD[product.weight]

    def made(shape: tuple[int, int], number: int) -> torch.Tensor:
        values = torch.from_numpy(normal(shape, number)).to(device) * spread
        return values.round().clamp(-127, 127).to(kind) if kind == torch.int8 else values.clamp(-448, 448).to(kind)

    x, weight = made((product.rows, product.depth), 2 * seed), made((product.columns, product.depth), 2 * seed + 1)
    return Operands(x=x, weight=weight.t(), one=torch.ones((), dtype=torch.float32, device=device))


def _reference(relative: Callable[[int], float], half_place: float) -> Callable[[Operands], Reference]:
    def found(given: Operands) -> Reference:
        x, weight = _double(given.x), _double(given.weight)
        expected = x @ weight
        bound = (np.abs(x) @ np.abs(weight)) * relative(x.shape[1]) + np.abs(expected) * half_place
        return expected, bound

    return found


def _double(x: torch.Tensor) -> NDArray[np.float64]:
    return x.to(torch.float32).cpu().numpy().astype(np.float64)


def _scaled(given: Operands) -> torch.Tensor:
    return torch._scaled_mm(given.x, given.weight, scale_a=given.one, scale_b=given.one, out_dtype=torch.bfloat16)


def _integers(given: Operands) -> torch.Tensor:
    return torch._int_mm(given.x, given.weight)


def _bytes(bits: int, result_bits: int) -> Callable[[Product], float]:
    return lambda p: (bits * p.depth * (p.rows + p.columns) + result_bits * p.rows * p.columns) / 8


def _takes(name: str, multiple: int, fewest_rows: int) -> Callable[[Product], str | None]:
    def refusal(p: Product) -> str | None:
        if (p.weight, p.activation) != (name, name) or p.group or not p.columns:
            return f"operands must both be {name} without groups, not {p.weight} and {p.activation}"
        if p.columns % multiple or p.depth % multiple or p.rows < fewest_rows:
            what = f"multiples of {multiple} with at least {fewest_rows} rows"
            return f"columns and depth must be {what}, not {p.rows} x {p.columns} x {p.depth}"
        return None

    return refusal


def _kernel(
    name: str, operand: str, run: Callable[[Operands], torch.Tensor], reference: Callable[[Operands], Reference], **given: Any
) -> Kernel:
    return Kernel(
        name=name,
        takes=_takes(operand, given.pop("multiple"), given.pop("fewest_rows")),
        operands=_operands,
        run=run,
        reference=reference,
        operations=operations,
        **given,
    )


KERNELS = (
    _kernel(
        "torch.matmul",
        "bfloat16",
        lambda given: given.x @ given.weight,
        _reference(lambda depth: 2.5 * depth * 2.0**-24, 2.0**-8),
        family="bfloat16",
        summary="bfloat16 by cuBLAS",
        arithmetic="bfloat16",
        bytes_moved=_bytes(16, _RESULT_BITS),
        multiple=8,
        fewest_rows=1,
    ),
    _kernel(
        "torch._scaled_mm",
        "float8_e4m3fn",
        _scaled,
        _reference(lambda depth: 2.0**-_FLOAT8_BITS * max(depth / 32, 1), 2.0**-8),
        family="float8",
        summary="float8 by cuBLASLt",
        arithmetic="float8",
        bytes_moved=_bytes(8, _RESULT_BITS),
        multiple=16,
        fewest_rows=1,
    ),
    _kernel(
        "torch._int_mm",
        "int8",
        _integers,
        _reference(lambda depth: 0.0, 0.0),
        family="int8",
        summary="int8 to int32 by cuBLASLt",
        arithmetic="int8",
        bytes_moved=_bytes(8, 32),
        multiple=8,
        fewest_rows=17,  # what torch asks for
    ),
)

#: each with a product so large that it reaches what the device can
SQUARES = tuple(
    (kernel, Product(rows=8192, columns=8192, depth=8192, weight=operand, activation=operand))
    for kernel, operand in zip(KERNELS, ("bfloat16", "float8_e4m3fn", "int8"), strict=True)
)
