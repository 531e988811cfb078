"""What a GPU kernel is to those who time it, price it and check it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formats.errors import InvalidValueError
from hwmodels.gpu.devices import Arithmetic

#: what a result may be: float64 expected values, and how far each element may lie from them
Reference = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a kernel is asked for: x of (rows, depth) times weights of (depth, columns).

    Kernels that quantize take (rows, depth) alone, and ``columns`` is 0.
    """

    rows: int
    columns: int
    depth: int
    #: name of a format, a block format or a method of ``formats``; of kernels that quantize, what they give
    weight: str
    #: name of the activations' format, which may be ``float16``, ``bfloat16`` or ``float32``
    activation: str
    #: weights along the depth that share a scale; 0 is one scale for each column
    group: int = 0


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel and what belongs to it, as functions of the product it is asked for."""

    name: str
    #: as ``gemm.family_of`` names families of kernels with a fit of their own
    family: str
    summary: str
    #: what its tensor cores multiply
    arithmetic: Arithmetic
    #: why it cannot take a product, in one line; None where it can
    takes: Callable[[Product], str | None]
    #: random operands like those of real layers, from a seed, on a device
    operands: Callable[[Product, int, torch.device], Any]
    #: launch it on operands and return the result, without waiting for it
    run: Callable[[Any], torch.Tensor]
    #: expected results of operands, float64, and how far each may be off: 0 where they must be equal
    reference: Callable[[Any], Reference]
    #: bytes that must be moved at least, each operand and the result once
    bytes_moved: Callable[[Product], float]
    #: multiplications and additions
    operations: Callable[[Product], float]

    def require(self, product: Product) -> None:
        """Raise ``ValueError`` with the kernel's own line for a product that it cannot take."""
        refused = self.takes(product)
        if refused is not None:
            raise InvalidValueError(f"{refused}: {self.name}")
