"""Tiles that the weight-only kernels may be cut into."""

import math
from dataclasses import replace

from triton import next_power_of_2

from hwmodels.gpu.kernels import environment
from hwmodels.gpu.kernels.decode_arguments import looked_up
from hwmodels.gpu.kernels.launching import PROGRAMS_EACH, Tile
from hwmodels.gpu.kernels.packing import unit
from hwmodels.gpu.kernels.weight_operand import WeightOperand

#: most rows that ``weight_only_gemv`` takes
FEW_ROWS = 16
#: rows of the smallest tile
FEWER_ROWS = 8


def gemm_tiles(weight: WeightOperand, rows: int) -> tuple[Tile, ...]:
    """Return candidate tiles, the first being what is taken untuned."""
    if weight.type.operand == "float32":  # without tensor cores a thread holds whole rows of both operands
        return tuple(Tile(rows=height, columns=64, depth=_step(weight, 16), warps=4, stages=2) for height in (16, 32))
    several, gathered = len(weight.type.terms) > 1, _gathered(weight)  # either takes registers
    # a thread for each unit: threads that share one decode all of it
    shallow = weight.type.bytes == 4 and not gathered and unit(weight.fmt.bits) < 32
    depth = _step(weight, 32 if shallow else 64)
    low = Tile(rows=min(64, max(FEWER_ROWS, next_power_of_2(rows))), columns=64, depth=depth, warps=4, stages=4)
    broad = replace(low, columns=128, warps=8 if several or gathered else 4)
    if rows <= 64:
        return low, broad
    high = replace(broad, rows=128, warps=8, stages=3)
    half = replace(high, rows=64, warps=4)
    # sums of a group are scaled outside the tensor cores: the fewer, the deeper a tile is
    deep = replace(high, depth=_step(weight, 256 // weight.type.bytes))
    if gathered:
        found = (low, broad) if weight.weight.group else (high, low, broad)
    elif not weight.weight.group:
        found = high, replace(high, rows=256), half
    elif several:
        found = high, replace(deep, rows=64)
    else:
        found = deep, high, half
    return tuple(dict.fromkeys(found))


def gemv_tiles(weight: WeightOperand, rows: int) -> tuple[Tile, ...]:
    """Return candidate tiles that share the depth, as the device has multiprocessors; the first is what is taken untuned."""
    return tuple(replace(tile, splits=_splits(weight, tile)) for tile in few_row_tiles(weight, rows))


def few_row_tiles(weight: WeightOperand, rows: int) -> tuple[Tile, ...]:
    """Return the same before the depth is shared."""
    height = FEW_ROWS if rows > FEWER_ROWS else FEWER_ROWS
    if weight.type.operand == "float32":
        shapes: tuple[tuple[int, int], ...] = ((32, 16),)
    elif _gathered(weight):
        shapes = (64, 64), (64, 128)
    else:
        narrowed = 1 if weight.type.bytes == 2 else 2
        most = 128 if len(weight.type.terms) > 1 else 256
        wanted = ((128, 128), (64, 128), (64, 256), (128, 256))
        shapes = tuple((width, min(depth, most) // narrowed) for width, depth in wanted)
    found = (Tile(rows=height, columns=width, depth=_step(weight, depth), warps=4, stages=4) for width, depth in shapes)
    return tuple(dict.fromkeys(found))


def _splits(weight: WeightOperand, tile: Tile) -> int:
    packed = weight.weight
    wanted = math.ceil(PROGRAMS_EACH * environment.multiprocessors() / math.ceil(packed.columns / tile.columns))
    return max(1, min(wanted, packed.depth // (2 * tile.depth)))


def _gathered(weight: WeightOperand) -> bool:
    """Whether codes are looked up in memory for tensor cores: addresses and entries take registers, so tiles are small."""
    found = weight.type
    return found.operand != "float32" and found.decoding.kind == "table" and not looked_up(found.decoding, found.carrier)


def _step(weight: WeightOperand, most: int) -> int:
    """Return the depth of a tile: the largest power of two up to ``most`` that divides the group, but no less than a unit."""
    return max(shared_depth(weight, most), unit(weight.fmt.bits))


def shared_depth(weight: WeightOperand, depth: int) -> int:
    """Return the depth after which scales may change within a tile of this depth."""
    group = weight.weight.group
    return min(depth, group & -group) if group else depth
