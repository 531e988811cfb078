"""What to have compiled: kernels with the types and the constants that they are launched with, without a device."""

import numpy as np
import torch

from formats.registry import scalar
from hwmodels.gpu.kernels.compiling import Request, request
from hwmodels.gpu.kernels.encoding import rounding_of
from hwmodels.gpu.kernels.launching import Tile
from hwmodels.gpu.kernels.operand_type import ACTIVATIONS
from hwmodels.gpu.kernels.packing import pack_weight
from hwmodels.gpu.kernels.quantize_groups import quantize_groups
from hwmodels.gpu.kernels.quantize_plan import Plan
from hwmodels.gpu.kernels.weight_only import compiled_arguments
from hwmodels.gpu.kernels.weight_only_tiles import FEW_ROWS, few_row_tiles, gemm_tiles
from hwmodels.gpu.kernels.weight_operand import WeightOperand, prepare
from hwmodels.gpu.kernels.weight_product import weight_only_tile

#: types of pointers, as the compiler names them
POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
#: of the weights that stand for all: nothing is compiled for their number, apart from their groups
_COLUMNS, _DEPTH = 64, 512


def weight_operand(name: str, activation: str, group: int = 0) -> WeightOperand:
    """Return a small weight in a scalar format, ready for activations of a type, in memory.

    ``group`` is 0 or divides 512. Raises as ``prepare`` does.
    """
    fmt = scalar(name)
    scales = np.ones((_COLUMNS, _DEPTH // group if group else 1), np.float32)
    codes = np.full((_COLUMNS, _DEPTH), np.flatnonzero(np.isfinite(fmt.values))[0])
    return prepare(pack_weight(codes, fmt, scales, group), activation, device=torch.device("cpu"))


def untuned_tile(weight: WeightOperand, rows: int) -> Tile:
    """Return the tile that a product of so many rows takes untuned, before its depth is shared."""
    return (few_row_tiles if rows <= FEW_ROWS else gemm_tiles)(weight, rows)[0]


def weight_only_request(weight: WeightOperand, rows: int, tile: Tile) -> Request:
    """Return the request for a weight-only product as it is launched on a device: up to 16 rows share the depth among programs."""
    split = rows <= FEW_ROWS
    own, table = POINTERS[ACTIVATIONS[weight.activation]], POINTERS[weight.table.dtype]
    # as on a device, where this may be run in the interpreter
    constants = compiled_arguments(weight, tile, split=split) | {"WIDEN": weight.type.carrier == "float32", "NATIVE": True}
    signature = {"x": own, "words": "*i32", "scales": "*fp32", "table": table, "out": "*fp32" if split else own}
    whole = {each: "i32" for each in weight_only_tile.arg_names if each not in signature and each not in constants}
    return request(weight_only_tile, signature | whole, constants, ("depth", "columns", "row_words", "part"))


def quantize_request(plan: Plan, values: torch.dtype) -> Request:
    """Return the request for a quantize kernel of values of a type."""
    constants = {
        **plan.constants(),
        **rounding_of(plan.fmt, plan.rounding, "cpu").constants,
        "num_warps": plan.warps,
        "enable_fp_fusion": False,
    }
    signature = {
        "x_pointer": POINTERS[values],
        "codes_pointer": "*u8",
        "scales_pointer": POINTERS[plan.dtype],
        "flags": "*i32",
        "thresholds": "*fp32",
        "level_codes": "*i32",
        "tensor": "fp32",
        "reach": "fp32",
    }
    whole = {each: "i32" for each in quantize_groups.arg_names if each not in signature and each not in constants}
    return request(quantize_groups, signature | whole, constants, ("length", "group"))
