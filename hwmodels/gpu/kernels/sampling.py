"""Random operands like those of real layers, for kernels to be checked and timed on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import formats
from formats.errors import UnknownNameError
from formats.format import Format
from formats.granularity import Granularity
from formats.quantizer import Quantizer
from formats.scaling import ScaleChoice
from hwmodels.gpu.kernels.kernel import Product

#: different columns of weights that large ones are put together from
DISTINCT = 256


def normal(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """Return normally distributed float32 numbers, of a standard deviation of 1 times one that each row has of its own."""
    generator = np.random.default_rng(seed)
    rows = np.exp2(generator.uniform(-1, 1, (shape[0], 1)).astype(np.float32))
    found: NDArray[np.float32] = generator.standard_normal(shape, np.float32) * rows
    return found


def encoded_rows(name: str, shape: tuple[int, int], seed: int, group: int = 0) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return codes of a scalar format and their scales by ``absmax``: (rows,), or of groups along the rows (rows, groups)."""
    encoded = absmax(name, group).encode(normal(shape, seed))
    codes = encoded.codes.reshape(shape).astype(np.uint8, copy=False)
    return codes, encoded.scales.reshape(shape[0], -1) if group else encoded.scales.reshape(-1)


def absmax(name: str, group: int = 0) -> Quantizer:
    """Return the quantizer of ``formats`` to a scalar format, a scale for each group of a row or, for 0, each row."""
    return Quantizer(
        format_name=name,
        granularity=Granularity.parse(f"group{group}" if group else "channel"),
        choice=ScaleChoice.parse("absmax"),
    )


def scalar_format(name: str) -> Format | None:
    """Return the scalar format called ``name``; None where there is no such one."""
    try:
        found = formats.get(name)
    except UnknownNameError:
        return None
    return found if isinstance(found, Format) else None


def refused_shape(product: Product) -> str | None:
    """Return why a shape is that of no matrix product; None where it is one."""
    for name in ("rows", "columns", "depth"):
        if getattr(product, name) < 1:
            return f"{name} of a matrix product must be at least 1, not {getattr(product, name)}"
    return None


def operations(product: Product) -> float:
    """Return the multiplications and additions of a product."""
    return 2.0 * product.rows * product.columns * product.depth
