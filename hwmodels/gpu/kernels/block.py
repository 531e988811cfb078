"""Weights in block formats, decoded in registers, times float16 or bfloat16: the codes and scales of ``BlockFormat.encode``.

An element times its block's scale has at most 8 significant bits, so bfloat16 and float16 have it. float16 lacks the range of E8M0
scales: they are taken relative to the largest one of each output, which multiplies the output's sum; what is more than 2**-38 below
the largest weight of an output then loses bits, and no more than 2**-39 of that weight each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import ArrayLike, NDArray

import formats
from formats.block import BlockFormat, BlockScales
from formats.errors import InvalidTypeError, InvalidValueError
from formats.kernels.blocks import E8M0_BIAS
from hwmodels.gpu.kernels.block_product import block_product
from hwmodels.gpu.kernels.decode_arguments import paired_arguments
from hwmodels.gpu.kernels.decoding import Carrier, decoding
from hwmodels.gpu.kernels.environment import INTERPRETED, launcher
from hwmodels.gpu.kernels.launching import (
    Tile,
    check_operand,
    check_tile,
    column_tensor,
    device_rows,
    finish_sums,
    split_depth,
    tiles_for,
)
from hwmodels.gpu.kernels.packing import FILLED
from hwmodels.gpu.kernels.tuning import fastest

NAMES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
ACTIVATIONS = tuple(NAMES.values())
#: exponent of the largest decoded weight
TOP_EXPONENT = 14


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockWeights:
    """Weights as the kernel reads them."""

    fmt: BlockFormat
    depth: int
    columns: int
    #: uint8 of shape (columns, bytes of a row): the elements' codes of each output, ``packing.packed_rows``
    packed: torch.Tensor
    #: uint8 of shape (columns, blocks, filled up like the codes): the blocks' scale codes
    scales: torch.Tensor
    #: int32 of shape (columns,): the exponent that the scale code 0 has in registers, of E8M0
    tops: torch.Tensor
    #: float32 of shape (columns,): what sums are multiplied by
    column_scales: torch.Tensor


def weights(codes: ArrayLike, scales: BlockScales, fmt: str | BlockFormat, device: str | torch.device = "cpu") -> BlockWeights:
    """Pack what ``BlockFormat.encode(w, axis=0)`` gives for weights w of shape (depth, columns).

    Raises ``ValueError`` for other formats, for scales that do not belong to the codes, and for codes of NaN or infinity.
    """
    found = formats.get(fmt) if isinstance(fmt, str) else fmt
    if not isinstance(found, BlockFormat):
        raise InvalidValueError(f"weights of a block product must be in a block format, not {found.name}")
    packed = device_rows(codes, found.element, device)
    depth, columns = np.shape(codes)
    rows, wanted = np.asarray(scales.codes).T, (-(-depth // found.block), columns)
    if rows.T.shape != wanted or rows.dtype != np.uint8:
        raise InvalidValueError(
            f"scales of {found.name} must be uint8 of shape {wanted} for these codes, not {rows.dtype} of {rows.T.shape}"
        )
    if np.isnan(found.scale_format.values[rows]).any():
        raise InvalidValueError(f"scales of {found.name} must be numbers, not the code of NaN in {found.scale_format.name}")
    if np.signbit(found.scale_format.values[rows]).any():
        raise InvalidValueError(f"scales of {found.name} must not be negative, as a code of {found.scale_format.name} is")
    if not 0 < scales.tensor < np.inf:
        raise InvalidValueError(f"scale of a tensor in {found.name} must be finite and positive, not {scales.tensor:g}")
    tops, column_scales = _column_scales(found, rows, np.float32(scales.tensor))
    if not np.isfinite(column_scales).all():
        raise InvalidValueError(f"weights in {found.name} must be within float32, not beyond it by their scales")
    filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % (FILLED // found.block))))
    return BlockWeights(
        fmt=found,
        depth=depth,
        columns=columns,
        packed=packed,
        scales=torch.from_numpy(np.ascontiguousarray(filled)).to(device),
        tops=torch.from_numpy(tops).to(device),
        column_scales=torch.from_numpy(column_scales).to(device),
    )


def _column_scales(
    fmt: BlockFormat, scales: NDArray[np.uint8], tensor: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the exponents of scale code 0 such that no decoded weight reaches 2**(TOP_EXPONENT + 1), and the rest for the sums."""
    if fmt.scale == "e4m3":  # elements of up to 6 times scales of up to 448 are far from float16's limits
        return np.zeros(len(scales), np.int32), np.full(len(scales), tensor, np.float32)
    magnitudes = np.abs(fmt.element.values[np.isfinite(fmt.element.values)])
    largest = int(np.frexp(magnitudes.max())[1]) - 1
    tops = TOP_EXPONENT - largest - scales.max(axis=1).astype(np.int32)
    with np.errstate(over="ignore"):  # which the caller refuses
        return tops, np.ldexp(np.float32(1), fmt.unit_exponent - E8M0_BIAS - tops).astype(np.float32)


def block_matmul(
    x: torch.Tensor,
    w: BlockWeights,
    *,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    tile: Tile | None = None,
    tuned: bool = False,
) -> torch.Tensor:
    """Return x (rows, depth), float16 or bfloat16, times weights (depth, columns), in ``dtype``: x's own unless given.

    ``bias`` is float32 of shape (columns,). ``tuned`` tries the candidate tiles on the device the first time that a product of this
    kind is asked for. Raises ``ValueError`` for shapes that do not fit, ``TypeError`` for other dtypes.
    """
    check_operand("activations of a block product", x, ACTIVATIONS, w.depth, w.packed)
    wanted = x.dtype if dtype is None else dtype
    if wanted not in (*ACTIVATIONS, torch.float32):
        name = str(wanted).removeprefix("torch.")
        raise InvalidTypeError(f"result of a block product must be float32, float16 or bfloat16, not {name}")
    rows, columns = x.shape[0], w.columns
    out = torch.empty((rows, columns), dtype=wanted, device=x.device)
    if out.numel() == 0:
        return out
    biases = None if bias is None else column_tensor("bias", bias, columns, torch.float32, x.device)
    candidates = tiles_for(rows, columns, w.depth, 2) if tile is None else (tile,)
    for each in candidates:
        check_tile(each, w.fmt.bits, 2)
        if each.depth % w.fmt.block:
            raise InvalidValueError(f"depth of a tile must be a multiple of {w.fmt.block} for {w.fmt.name}, not {each.depth}")

    def launch(each: Tile) -> None:
        _launch(x, w, biases, each, out)

    key = (w.fmt.name, x.dtype, wanted, rows, columns, w.depth, candidates)
    launch(fastest(key, candidates, launch) if tuned else candidates[0])
    return out


def _launch(x: torch.Tensor, w: BlockWeights, biases: torch.Tensor | None, tile: Tile, out: torch.Tensor) -> None:
    rows, columns = out.shape
    chunk, splits = split_depth(w.depth, tile)
    target = out if splits == 1 else torch.empty((splits, rows, columns), dtype=torch.float32, device=x.device)
    launcher(block_product, (triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns), splits))(
        x, w.packed, w.scales, w.tops, target, w.column_scales, w.column_scales if biases is None else biases, rows=rows,
        columns=columns, depth=w.depth, row_bytes=w.packed.shape[1], scale_bytes=w.scales.shape[1], chunk=chunk,
        **compiled_arguments(w.fmt, x.dtype, native=not INTERPRETED), HAS_BIAS=biases is not None, SPLIT=splits > 1,
        **tile.arguments(),
    )  # fmt: skip
    if splits > 1:
        finish_sums(target, out, None, w.column_scales, biases)


def compiled_arguments(fmt: BlockFormat, activation: torch.dtype, *, native: bool) -> dict[str, Any]:
    """Return what ``block_product`` is compiled with: elements times scales are in bfloat16 where that is ``native``, else float32.

    Without bfloat16's own arithmetic, which the interpreter lacks, the whole product is in float32.
    """
    carrier: Carrier = "bfloat16" if native and activation == torch.bfloat16 else "float32"
    return {
        "BLOCK": fmt.block,
        "POWERS": fmt.scale == "e8m0",
        "NATIVE": native,
        **paired_arguments(decoding(fmt.element), carrier),
    }


def bound(x: NDArray[np.float64], w: NDArray[np.float64], activation: torch.dtype) -> NDArray[np.float64]:
    """Return how far float32 results may be off for x (rows, depth) and weights (depth, columns), both as they are decoded.

    Products are exact; sums of K of them, which tensor cores may cut off instead of rounding, are off by at most 2 K 2**-24 of the
    sum of magnitudes, scaling by three roundings more, and nvfp4's scales, which the emulator rounds twice; in float16 weights lose
    at most 2**-39 of an output's largest one each, in bfloat16 2**-112.
    """
    depth, magnitudes = x.shape[1], np.abs(w)
    found: NDArray[np.float64] = (2 * depth + 6) * 2.0**-24 * (np.abs(x) @ magnitudes)
    found += (
        (2.0**-39 if activation == torch.float16 else 2.0**-112) * np.abs(x).sum(axis=1)[:, np.newaxis] * magnitudes.max(axis=0)
    )
    return found
