"""What compiled kernels have to issue, as a table: predicted from their machine code, never run. Needs Triton."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
import triton

import formats
from formats.block import BlockFormat
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.kernels.compiling import Compiled, Request, compile_all
from hwmodels.gpu.kernels.issue import Prediction, predict_product, predict_quantizer
from hwmodels.gpu.kernels.quantize_plan import absmax_scales, block_scales
from hwmodels.gpu.kernels.requests import quantize_request, untuned_tile, weight_only_request, weight_operand

#: (format, weights that share a scale or 0 for a column of them), times bfloat16
WEIGHTS = (
    ("int2", 128), ("ternary", 0), ("int3", 128), ("int4", 128), ("e2m1", 128), ("pot4", 128), ("apot4", 128), ("nf4", 128),
    ("post4", 128), ("int6", 128), ("e3m2", 128), ("pot6", 128), ("int8", 128), ("e4m3", 128), ("post7", 128),
)  # fmt: skip
#: rows for which the memory sets the time, and for which the tensor cores do
FEW, MANY = 1, 256
#: (format that bfloat16 is quantized to, numbers that share a scale, found in the same pass)
QUANTIZED = (
    ("int4", 128), ("e2m1", 128), ("pot4", 128), ("apot4", 128), ("nf4", 128), ("post4", 128), ("int8", 128), ("e4m3", 128),
    ("float8_e4m3fn", 128), ("mxfp4", 32), ("nvfp4", 16),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A kernel to be compiled, and what becomes of it."""

    kernel: str
    group: int
    request: Request
    predict: Callable[[Compiled, GpuDevice], Prediction]


def asked(weights: Sequence[tuple[str, int]] = WEIGHTS, quantized: Sequence[tuple[str, int]] = QUANTIZED) -> list[Asked]:
    """Return all kernels that are told of."""
    return [*_products("weight_only_gemv", weights, FEW), *_products("weight_only_gemm", weights, MANY), *_quantizers(quantized)]


def predictions(kernels: Sequence[Asked], device: GpuDevice) -> pd.DataFrame:
    """Compile kernels and return a row for each."""
    made = compile_all([each.request for each in kernels])
    rows = [_row(each, each.predict(compiled, device)) for each, compiled in zip(kernels, made, strict=True)]
    return pd.DataFrame(rows).assign(device=device.name, triton=triton.__version__)


def _products(kernel: str, cases: Sequence[tuple[str, int]], rows: int) -> Iterator[Asked]:
    for name, group in cases:
        weight = weight_operand(name, "bfloat16", group)
        tile = untuned_tile(weight, rows)
        request = weight_only_request(weight, rows, tile)
        yield Asked(kernel=kernel, group=group, request=request, predict=partial(predict_product, weight, rows, tile))


def _quantizers(cases: Sequence[tuple[str, int]]) -> Iterator[Asked]:
    for name, group in cases:
        fmt = formats.get(name)
        plan = block_scales(fmt, np.float32(1)) if isinstance(fmt, BlockFormat) else absmax_scales(fmt, group)
        request = quantize_request(plan, torch.bfloat16)
        yield Asked(kernel="quantize", group=group, request=request, predict=partial(predict_quantizer, name, plan, torch.bfloat16))


def _row(each: Asked, found: Prediction) -> dict[str, object]:
    tile = f"{found.tile.rows} x {found.tile.columns} x {found.tile.depth}" if found.tile else ""
    shape = {"kernel": each.kernel, "format": found.format, "group": each.group, "rows": found.rows, "tile": tile}
    share = None if found.tensor_share is None else round(found.tensor_share, 3)
    return shape | {
        "instructions": found.instructions,
        "instructions a number": round(found.per_number, 3),
        "issue / memory cycles": round(found.issue_share, 3),
        "issue / tensor-core cycles": share,
        "registers": found.registers,
        "shared bytes": found.shared,
        "spilled bytes": found.spills,
    }
