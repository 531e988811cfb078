"""float8 times float8 on the tensor cores, and narrower weights that become float8 in registers.

Hopper's tensor cores keep about 14 bits of a sum of float8 products (DeepSeek-V3, arXiv 2412.19437, section 3.3.2); so sums are
promoted to float32 after every 128 products, as there, unless that is switched off. Two identities decode weights without a table:

- the float8_e4m3fn codes 0 … 16 are 0 … 16 times 2**-9, since subnormal numbers and the binade above them are evenly spaced;
- a minifloat's magnitude code, moved up to three mantissa bits, is the same number times 2**(its bias - 7).

Both leave a power of two to the column's scale. FireQ (arXiv 2505.20839) does the first for int4 by a table.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import ArrayLike, NDArray

import formats
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels.environment import INTERPRETED, check_float8, launcher
from hwmodels.gpu.kernels.float8_product import float8_product
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
from hwmodels.gpu.kernels.tuning import fastest

#: formats that the tensor cores multiply
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
#: products after which sums are promoted to float32, unless told otherwise
PROMOTE_EVERY = 128
#: types of results
RESULTS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How codes become float8: ``value = float8 * 2**exponent``."""

    kind: str
    #: the type that tensor cores multiply
    target: str
    exponent: int = 0
    #: places that a minifloat's magnitude is moved up
    places: int = 0


def decoding(fmt: Format) -> Decoding:
    """Return how the codes of a format become float8 exactly; ``ValueError`` for formats that this way does not reach."""
    closed, values = fmt.closed_form, fmt.values[np.isfinite(fmt.values)]
    if fmt.name in FLOAT8:
        return Decoding(kind="as it is", target=fmt.name)
    twos_complement = np.where(np.arange(2**fmt.bits) < 2 ** (fmt.bits - 1), 0, -(2**fmt.bits)) + np.arange(2**fmt.bits)
    if fmt.bits >= 2 and np.abs(values).max() <= 16 and np.all((fmt.values == twos_complement) | np.isnan(fmt.values)):
        return Decoding(kind="whole", target="float8_e4m3fn", exponent=9)
    if closed is not None and closed.kind == "floating" and closed.signed and fmt.negative_zero is not None and fmt.bits <= 7:
        exponent_bits = fmt.bits - 1 - closed.mantissa_bits
        if exponent_bits <= 4 and closed.mantissa_bits <= 3 and not fmt.nan and not fmt.infinities:
            exponent = closed.minimum_exponent + 6
            return Decoding(kind="minifloat", target="float8_e4m3fn", exponent=exponent, places=3 - closed.mantissa_bits)
    wanted = f"{', '.join(FLOAT8)}, int2 to int5 or a signed minifloat of up to 7 bits within e4m3"
    raise InvalidValueError(f"weights of a float8 product must be {wanted}, not {fmt.name}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Float8Weights:
    """Weights as the kernel reads them."""

    fmt: Format
    decoding: Decoding
    depth: int
    columns: int
    #: elements along the depth that share a scale; 0 is the whole depth
    group: int
    #: uint8 of shape (columns, bytes of a row): the codes of each output, ``packing.packed_rows``
    packed: torch.Tensor
    #: float32 of shape (columns,), with the power of two that decoding leaves; those of groups (columns, groups)
    column_scales: torch.Tensor
    group_scales: torch.Tensor | None


def weights(
    codes: ArrayLike, fmt: str | Format, scale: ArrayLike = 1.0, device: str | torch.device = "cpu", *, group: int = 0
) -> Float8Weights:
    """Pack codes of shape (depth, columns) with their scales: one number, (columns,), or (groups, columns) for a ``group``.

    A group must be 32, 64 or a multiple of 128 elements, since tensor cores add them all up before a scale is applied.
    """
    found = formats.scalar(fmt) if isinstance(fmt, str) else fmt
    how, packed = decoding(found), device_rows(codes, found, device)
    depth, columns = np.shape(codes)
    factor = np.float32(2.0**how.exponent)
    scales = np.asarray(scale, np.float32)
    group_scales = None
    if group:
        check_group(group)
        wanted = (-(-depth // group), columns)
        if scales.shape != wanted:
            raise InvalidValueError(f"scale must be of shape {wanted} for groups of {group}, not {scales.shape}")
        group_scales = torch.from_numpy(np.ascontiguousarray(scales.T)).to(device)
        scales = np.ones((), np.float32)
    with np.errstate(over="ignore"):
        scaled = scales * factor
    if not np.isfinite(scaled).all() or (group_scales is not None and not bool(torch.isfinite(group_scales).all())):
        raise InvalidValueError(f"scale must be finite, also times {factor:g}, for {found.name}")
    column_scales = column_tensor("scale", scaled, columns, torch.float32, torch.device(device))
    return Float8Weights(
        fmt=found,
        decoding=how,
        depth=depth,
        columns=columns,
        group=group,
        packed=packed,
        column_scales=column_scales,
        group_scales=group_scales,
    )


def check_group(group: int) -> None:
    """Refuse groups that tensor cores cannot add up by themselves."""
    if group < 0 or (group not in (32, 64) and group % PROMOTE_EVERY):
        raise InvalidValueError(f"group of a float8 product must be 32, 64 or a multiple of 128, not {group}")


def float8_matmul(
    x: torch.Tensor,
    fmt: str,
    w: Float8Weights,
    row_scale: torch.Tensor | float = 1.0,
    *,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
    promote: bool = True,
    tile: Tile | None = None,
    tuned: bool = False,
) -> torch.Tensor:
    """Return codes (rows, depth) of a float8 format times weights (depth, columns), scaled, in ``dtype``.

    ``x`` is uint8; ``row_scale`` one number or float32 of shape (rows,), ``bias`` float32 of shape (columns,).
    ``promote=False`` leaves all sums in the tensor cores, which is faster and less accurate; ``tuned`` tries the candidate tiles on
    the device the first time that a product of this kind is asked for. Raises ``ValueError`` for shapes and
    formats that do not fit.
    """
    if fmt not in FLOAT8:
        raise InvalidValueError(f"activations of a float8 product must be {' or '.join(FLOAT8)}, not {fmt}")
    if dtype not in RESULTS:
        raise InvalidTypeError(
            f"result of a float8 product must be float32, float16 or bfloat16, not {str(dtype).removeprefix('torch.')}"
        )
    check_operand("codes of a float8 product", x, torch.uint8, w.depth, w.packed)
    check_float8(x)
    rows, columns = x.shape[0], w.columns
    out = torch.empty((rows, columns), dtype=dtype, device=x.device)
    if out.numel() == 0:
        return out
    row_scales = column_tensor("row scale", row_scale, rows, torch.float32, x.device)
    biases = None if bias is None else column_tensor("bias", bias, columns, torch.float32, x.device)
    candidates = tiles_for(rows, columns, w.depth, 1, wide=not promote) if tile is None else (tile,)
    candidates = tuple(each.of_depth(min(each.depth, w.group)) for each in candidates) if w.group else candidates
    for each in candidates:
        _check(each, w)

    def launch(each: Tile) -> None:
        _launch(x, fmt, w, row_scales, biases, promote, each, out)

    key = (fmt, w.fmt.name, w.group, promote, dtype, rows, columns, w.depth, candidates)
    launch(fastest(key, candidates, launch) if tuned else candidates[0])
    return out


def _check(tile: Tile, w: Float8Weights) -> None:
    check_tile(tile, w.fmt.bits, 1)
    if w.group and w.group % tile.depth:
        raise InvalidValueError(f"depth of a tile must divide the group of {w.group}, not be {tile.depth}")


def _launch(
    x: torch.Tensor,
    fmt: str,
    w: Float8Weights,
    row_scales: torch.Tensor,
    biases: torch.Tensor | None,
    promote: bool,
    tile: Tile,
    out: torch.Tensor,
) -> None:
    rows, columns = out.shape
    chunk, splits = split_depth(w.depth, tile)
    target = out if splits == 1 else torch.empty((splits, rows, columns), dtype=torch.float32, device=x.device)
    launcher(float8_product, (triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns), splits))(
        x, w.packed, target, row_scales, w.column_scales, w.column_scales if w.group_scales is None else w.group_scales,
        row_scales if biases is None else biases,
        rows=rows, columns=columns, depth=w.depth, row_bytes=w.packed.shape[1], chunk=chunk,
        groups=0 if w.group_scales is None else w.group_scales.shape[1], steps_per_group=max(1, w.group // tile.depth),
        # the interpreter would flush subnormal numbers of float8_e5m2 to zero
        X_FORMAT=fmt, WIDENED=INTERPRETED, **compiled_arguments(w.fmt), GROUPED=w.group > 0, PROMOTE=promote,
        HAS_BIAS=biases is not None, SPLIT=splits > 1, WHOLE=w.depth % tile.depth == 0, **tile.arguments(),
    )  # fmt: skip
    if splits > 1:
        finish_sums(target, out, row_scales, w.column_scales, biases)


def compiled_arguments(fmt: Format) -> dict[str, Any]:
    """Return what ``float8_product`` is compiled with for weights of a format."""
    how = decoding(fmt)
    return {"KIND": how.kind, "TARGET": how.target, "BITS": fmt.bits, "PLACES": how.places}


def bound(magnitudes: NDArray[np.float64], depth: int, *, promote: bool = True) -> NDArray[np.float64]:
    """Return how far float32 sums may be off; ``magnitudes`` are the sums of the products' magnitudes, any shape.

    Tensor cores add 32 products and the sum so far at a time, each cut off at 2**-13 of the largest of them, which none of the sums
    of magnitudes is below: 33 * 2**-13 for each of the four steps of 128 products, or of all, and 2**-24 for each promotion.
    """
    steps = PROMOTE_EVERY // 32 if promote else -(-depth // 32)
    return magnitudes * (steps * 33 * 2.0**-13 + -(-depth // PROMOTE_EVERY) * 2.0**-23 + 2.0**-21)
