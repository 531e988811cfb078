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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels import environment
from hwmodels.gpu.kernels.decode_arguments import factor, looked_up, packed_tables, paired_arguments
from hwmodels.gpu.kernels.decoding import Carrier
from hwmodels.gpu.kernels.launching import PROGRAMS_EACH, Tile, check_operand, check_tile, split_depth
from hwmodels.gpu.kernels.operand_type import ACTIVATIONS, OperandType, operand_type
from hwmodels.gpu.kernels.packing import PackedWeight, unit
from hwmodels.gpu.kernels.tuning import fastest
from hwmodels.gpu.kernels.weight_product import add_parts, weight_only_tile

#: most rows that ``weight_only_gemv`` takes
FEW_ROWS = 16
#: rows of the smallest tile
FEWER_ROWS = 8
_ADDED_AT_ONCE = 1024
#: by how much more than by rounding tensor cores err, when they cut off sums of four products and what was there
_CUT_OFF = 2.5
_HELD: dict[Carrier, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightOperand:
    """A packed weight on a device, and how its codes become what tensor cores multiply with activations of one type."""

    weight: PackedWeight
    #: name of the activations' type
    activation: str
    type: OperandType
    #: what codes of the kind ``table`` stand for, in the operand's type, one table for each term; one element for other kinds
    table: torch.Tensor

    @property
    def fmt(self) -> Format:
        """The weights' format."""
        return self.weight.format


def prepare(weight: PackedWeight, activation: str, *, exact: bool = True, device: torch.device | None = None) -> WeightOperand:
    """Return a weight for ``float16`` or ``bfloat16`` activations on a device, by default where kernels run.

    With ``exact=False`` values that the activations' type lacks are rounded to it, and multiplied faster. Raises ``ValueError`` for
    other activations, for formats that cannot be decoded in registers, and without a device.
    """
    found = operand_type(weight.format, activation, exact=exact)
    _check_scales(weight, factor(paired_arguments(found.decoding, found.carrier)) * found.factor)
    where = environment.device() if device is None else device
    values = found.terms.reshape(-1) if found.decoding.kind == "table" else np.zeros(1, np.float32)
    table = torch.from_numpy(values.copy()).to(_HELD[found.carrier]).to(where)
    return WeightOperand(weight=weight.to(where), activation=activation, type=found, table=table)


def _check_scales(weight: PackedWeight, power: float) -> None:
    """Refuse scales that a power of two, which decoding leaves to them, takes out of float32."""
    largest = float(weight.scales.max())
    if largest * power > float(np.finfo(np.float32).max):
        most = float(np.finfo(np.float32).max) / power
        raise InvalidValueError(f"scales of {weight.format.name} must be at most {most:g} in this kernel, not {largest:g}")


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


def gemm_tiles(weight: WeightOperand, rows: int) -> tuple[Tile, ...]:
    """Return candidate tiles, the first being what is taken untuned."""
    if weight.type.operand == "float32":  # without tensor cores a thread holds whole rows of both operands
        return tuple(Tile(rows=height, columns=64, depth=_step(weight, 16), warps=4, stages=2) for height in (16, 32))
    depth = _step(weight, 128 // weight.type.bytes)
    if rows <= 64:
        height = 8 if rows <= 8 else 16 if rows <= 16 else 32 if rows <= 32 else 64
        return tuple(Tile(rows=height, columns=width, depth=depth, warps=4, stages=4) for width in (64, 128))
    wide = Tile(rows=128, columns=128, depth=depth, warps=8, stages=3)
    narrow = replace(wide, rows=64, warps=4)
    if weight.weight.group:  # sums of a group are scaled outside the tensor cores: the fewer, the deeper a tile is
        return tuple(dict.fromkeys((replace(wide, depth=_step(weight, 256 // weight.type.bytes)), wide, narrow)))
    return wide, replace(wide, rows=256), narrow


def gemv_tiles(weight: WeightOperand, rows: int) -> tuple[Tile, ...]:
    """Return candidate tiles that share the depth, the first being what is taken untuned."""
    packed = weight.weight
    height = FEW_ROWS if rows > FEWER_ROWS else FEWER_ROWS
    found = []
    shapes = ((32, 16),) if weight.type.operand == "float32" else ((128, 128), (64, 128), (64, 256), (128, 256))
    for width, deepest in shapes:
        depth = _step(weight, deepest if weight.type.bytes == 2 else max(deepest // 2, 16))
        wanted = math.ceil(PROGRAMS_EACH * environment.multiprocessors() / math.ceil(packed.columns / width))
        splits = max(1, min(wanted, packed.depth // (2 * depth)))
        found.append(Tile(rows=height, columns=width, depth=depth, warps=4, stages=4, splits=splits))
    return tuple(dict.fromkeys(found))


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


def _step(weight: WeightOperand, most: int) -> int:
    """Return the depth of a tile: the largest power of two up to ``most`` that divides the group, but no less than a unit."""
    return max(_shared(weight, most), unit(weight.fmt.bits))


def _shared(weight: WeightOperand, depth: int) -> int:
    """Return the depth after which scales may change within a tile of this depth."""
    group = weight.weight.group
    return min(depth, group & -group) if group else depth


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
    shared = _shared(weight, tile.depth)
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
        "SHARED": _shared(weight, tile.depth),
        "SPLIT": split,
        "PRECISION": "tf32" if found.operand == "tf32" else "ieee",
        "WIDEN": widened,
        "TERMS": len(found.terms) if found.decoding.kind == "table" else 1,
        "TABLE": packed_tables(found.terms, found.carrier) if looked_up(found.decoding, found.carrier) else 0,
        "FACTOR": found.factor * factor(how),
        "NATIVE": not environment.INTERPRETED,
    }
