"""float16 or bfloat16 activations times weights in any scalar format of 2 to 8 bits, by channel or by group, decoded in registers.

``weight_only_gemm`` gives every tile of the result to one program; ``weight_only_gemv``, for 1 to 16 rows, shares the depth among
programs and adds up their sums in a second kernel, always in the same order.

Every product is exact in float32, within its range; the sums are not. For an output with K products p_k and partial sums of them
in any order, |error| <= K 2**-24 / (1 - K 2**-24) * sum |p_k| where each addition is rounded (Higham, "Accuracy and Stability of
Numerical Algorithms", 2nd ed., eq. 4.4). Tensor cores add some products to a sum at once and cut each off 24 bits below the
largest (Fasi et al., "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7, 2021): with four products or more at
a time that is at most 2.5 times as much. ``bound`` states this, with a rounding for each scale and for the result. An infinite
activation gives NaN, as infinity minus infinity or times zero does, where values are sums of terms or of planes.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formats.errors import InvalidValueError
from hwmodels.gpu.kernels import environment
from hwmodels.gpu.kernels.decode_arguments import factor, looked_up, packed_tables, paired_arguments
from hwmodels.gpu.kernels.launching import Tile, check_operand, check_tile, split_depth
from hwmodels.gpu.kernels.operand_type import ACTIVATIONS
from hwmodels.gpu.kernels.tuning import fastest
from hwmodels.gpu.kernels.weight_only_tiles import FEW_ROWS, gemm_tiles, gemv_tiles, shared_depth
from hwmodels.gpu.kernels.weight_operand import WeightOperand
from hwmodels.gpu.kernels.weight_product import add_parts, weight_only_tile

_ADDED_AT_ONCE = 1024
#: by how much more than by rounding tensor cores err, when they cut off sums of four products and what was there
_CUT_OFF = 2.5


def weight_only_gemm(x: torch.Tensor, weight: WeightOperand, tile: Tile | None = None, *, tuned: bool = False) -> torch.Tensor:
    """Return x (rows, depth) times the weight, (rows, columns) in x's type, each result summed by one program.

    ``tuned`` tries the candidate tiles on the device the first time that a product of this kind is asked for.
    """
    _check(x, weight)
    return _run(x, weight, tile, tuned, gemm_tiles(weight, x.shape[0]))


def weight_only_gemv(x: torch.Tensor, weight: WeightOperand, tile: Tile | None = None, *, tuned: bool = False) -> torch.Tensor:
    """Return the same for 1 to 16 rows, the depth shared among programs; ``ValueError`` for more rows."""
    _check(x, weight)
    if x.shape[0] > FEW_ROWS:
        raise InvalidValueError(f"rows of weight_only_gemv must be 1 to {FEW_ROWS}, not {x.shape[0]}; nearest: weight_only_gemm")
    return _run(x, weight, tile, tuned, gemv_tiles(weight, x.shape[0]))


def bound(
    weight: WeightOperand, x: NDArray[np.float64], magnitudes: NDArray[np.float64], results: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far each result may lie from the exact one, float64 of shape (rows, columns).

    ``x`` (rows, depth) are activations, ``magnitudes`` (depth, columns) the weights' scaled magnitudes, added up over planes, and
    ``results`` the exact results.
    """
    unit, half_place = 2.0**-24, 2.0 ** (-11 if weight.activation == "float16" else -8)
    terms, planes = len(weight.type.terms), weight.weight.planes
    products = terms * planes * weight.weight.depth
    relative = (_CUT_OFF * products + 4 * planes) * unit
    # terms of a value may have either sign: together they are little more than the value
    sums = (np.abs(x) @ magnitudes) * (1 + (terms - 1) * 2 * half_place) * relative / (1 - relative)
    smallest = float(torch.finfo(ACTIVATIONS[weight.activation]).smallest_normal) * half_place
    found: NDArray[np.float64] = sums * (1 + half_place) + np.abs(results) * half_place + smallest
    return found


def _run(x: torch.Tensor, weight: WeightOperand, tile: Tile | None, tuned: bool, candidates: tuple[Tile, ...]) -> torch.Tensor:
    packed = weight.weight
    out = torch.empty(x.shape[0], packed.columns, dtype=x.dtype, device=x.device)
    if x.shape[0] == 0:
        return out
    if tile is None:
        how = tuple(compiled_arguments(weight, candidates[0], split=candidates[0].splits > 1).items())
        key = (how, weight.activation, packed.scales.dtype, x.shape[0], packed.columns, packed.depth, candidates)
        tile = fastest(key, candidates, lambda each: _launch(x, weight, each, out)) if tuned else candidates[0]
    else:
        _check_tile(weight, tile)
    _launch(x, weight, tile, out)
    return out


def _check(x: torch.Tensor, weight: WeightOperand) -> None:
    packed = weight.weight
    check_operand("activations of a weight-only product", x, ACTIVATIONS[weight.activation], packed.depth, packed.words)


def _check_tile(weight: WeightOperand, tile: Tile) -> None:
    check_tile(tile, weight.fmt.bits, weight.type.bytes)
    shared = shared_depth(weight, tile.depth)
    if shared < tile.depth and weight.fmt.infinities is not None:
        name = weight.fmt.name
        raise InvalidValueError(f"depth of a tile must divide the group where {name} has infinities, not be {tile.depth}")


def _launch(x: torch.Tensor, weight: WeightOperand, tile: Tile, out: torch.Tensor) -> None:
    rows, columns = out.shape
    part, count = split_depth(weight.weight.depth, tile)
    sums = out if count == 1 else torch.empty(count, rows, columns, dtype=torch.float32, device=x.device)
    grid = (math.ceil(rows / tile.rows) * math.ceil(columns / tile.columns), count)
    environment.launcher(weight_only_tile, grid)(
        x,
        weight.weight.words,
        weight.weight.scales,
        weight.table,
        sums,
        rows,
        columns,
        weight.weight.depth,
        weight.weight.row_words,
        weight.weight.scales.shape[2],
        part,
        **compiled_arguments(weight, tile, split=count > 1),
    )
    if count > 1:
        blocks = (math.ceil(out.numel() / _ADDED_AT_ONCE),)
        added = {"BLOCK": _ADDED_AT_ONCE, "num_warps": 4, "enable_fp_fusion": False}
        environment.launcher(add_parts, blocks)(sums, out, count, out.numel(), **added)


def compiled_arguments(weight: WeightOperand, tile: Tile, *, split: bool) -> dict[str, Any]:
    """Return what ``weight_only_tile`` is compiled with."""
    found = weight.type
    # the interpreter would multiply the bits of bfloat16 as whole numbers
    widened = found.carrier == "float32" or (environment.INTERPRETED and found.operand == "bfloat16")
    how = paired_arguments(found.decoding, found.carrier)
    return {
        **how,
        **tile.arguments(),
        "PLANES": weight.weight.planes,
        "SCALE_GROUP": weight.weight.group,
        "SHARED": shared_depth(weight, tile.depth),
        "SPLIT": split,
        "PRECISION": "tf32" if found.operand == "tf32" else "ieee",
        "WIDEN": widened,
        "TERMS": len(found.terms),
        "TABLE": packed_tables(found.terms, found.carrier) if looked_up(found.decoding, found.carrier) else 0,
        "FACTOR": found.factor * factor(how),
        "NATIVE": not environment.INTERPRETED,
    }
