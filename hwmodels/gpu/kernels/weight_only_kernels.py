"""The weight-only kernels as others time, price and check them: random operands, references and bytes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from formats import packing
from formats.errors import BitatlasError
from formats.methods.trit_planes import TritPlanes, TritPlanesTensor
from formats.quantizer import QuantizedTensor, Quantizer
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.gpu.gemm import WIDE_BITS, Gemm
from hwmodels.gpu.kernels.kernel import Kernel, Product, Reference
from hwmodels.gpu.kernels.operand_type import ACTIVATIONS, exact_in, operand_type, own_operand
from hwmodels.gpu.kernels.packing import PackedWeight, of_tensor, refused_group
from hwmodels.gpu.kernels.weight_only import bound, weight_only_gemm, weight_only_gemv
from hwmodels.gpu.kernels.weight_only_tiles import FEW_ROWS
from hwmodels.gpu.kernels.weight_operand import WeightOperand, prepare

#: different rows of weights that large matrices are put together from
_ROWS, _ROWS_OF_PLANES = 256, 16
#: standard deviations of random weights and activations
_WEIGHT_DEVIATION, _ACTIVATION_DEVIATION = 0.02, 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Activations, (rows, depth) in their type, and a weight."""

    x: torch.Tensor
    weight: WeightOperand


def quantizer_of(product: Product) -> TensorQuantizer:
    """Return the quantizer whose tensors a product's weights are; ``BitatlasError`` for an unknown one."""
    return Quantizer.parse(product.weight, granularity=f"group{product.group}" if product.group else "channel")


def random_operands(product: Product, seed: int, device: torch.device, *, exact: bool = True) -> Operands:
    """Return normal activations, and normal weights quantized by absmax; of large matrices rows recur in random order."""
    numbers = np.random.default_rng(seed)
    quantizer = quantizer_of(product)
    rows = min(product.columns, _ROWS_OF_PLANES if isinstance(quantizer, TritPlanes) else _ROWS)
    values = numbers.normal(0, _WEIGHT_DEVIATION, (rows, product.depth)).astype(np.float32)
    encoded = quantizer.encode(values)
    assert isinstance(encoded, QuantizedTensor | TritPlanesTensor)
    chosen = np.concatenate([np.arange(rows), numbers.integers(0, rows, product.columns - rows)])
    weight = prepare(
        _chosen(of_tensor(encoded), torch.from_numpy(chosen).to(device)), product.activation, exact=exact, device=device
    )
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(product.rows, product.depth, generator=generator, device=device) * _ACTIVATION_DEVIATION
    return Operands(x=x.to(ACTIVATIONS[product.activation]), weight=weight)


def _chosen(weight: PackedWeight, columns: torch.Tensor) -> PackedWeight:
    """Return a weight whose columns are some of another's, on the device that they are listed on."""
    held = weight.to(columns.device)
    rows = held.words.view(weight.planes, weight.columns, weight.row_words)[:, columns].reshape(-1)
    return replace(held, columns=len(columns), words=rows, scales=held.scales[:, columns].contiguous())


def decoded(weight: WeightOperand) -> NDArray[np.float64]:
    """Return each plane's scaled values, float64 of shape (planes, columns, depth), from the packed codes."""
    packed = weight.weight
    words = packed.words.cpu().numpy().reshape(packed.planes, packed.columns, packed.row_words)
    bits = packed.format.bits
    codes = packing.unpack(words.view(np.uint8), bits, packed.row_words * 32 // bits)[..., : packed.depth]
    scales = packed.scales.cpu().numpy().astype(np.float64)
    by_code = np.repeat(scales, packed.group or packed.depth, axis=-1)[..., : packed.depth]
    found: NDArray[np.float64] = weight.type.decoding.values.astype(np.float64)[codes] * by_code
    return found


def reference(operands: Operands) -> Reference:
    """Return the exact results, to the precision of float64, and how far each may be off."""
    planes = decoded(operands.weight)
    x = operands.x.cpu().double().numpy()
    expected: NDArray[np.float64] = x @ planes.sum(0).T
    return expected, bound(operands.weight, x, np.abs(planes).sum(0).T, expected)


def refusal(product: Product, *, few: bool, exact: bool) -> str | None:
    """Return why the kernels cannot take a product, in one line; None where they can."""
    if min(product.rows, product.columns, product.depth) < 1:
        return f"rows, columns and depth of a product must be at least 1, not {product.rows}, {product.columns}, {product.depth}"
    if few and product.rows > FEW_ROWS:
        return f"rows must be at most {FEW_ROWS}, not {product.rows}"
    if product.activation not in ACTIVATIONS:
        return f"activations beside weights in codes must be {' or '.join(ACTIVATIONS)}, not {product.activation}"
    refused = refused_group(product.group)
    if refused is not None:
        return refused
    try:
        quantizer = quantizer_of(product)
        if not isinstance(quantizer, Quantizer | TritPlanes):
            return f"weights of this kernel must be in a scalar format, or tritplanes, not {product.weight}"
        fmt = quantizer.formats[0]
        operand_type(fmt, product.activation, exact=exact)
    except BitatlasError as error:
        return str(error)
    if not exact and exact_in(fmt, own_operand(product.activation)):
        return f"values to be rounded to {product.activation} must be ones that it lacks, not those of {fmt.name}"
    return None


def gemm_of(product: Product) -> Gemm:
    """Return what must be moved and multiplied at least: codes of whole bits, float32 scales."""
    quantizer = quantizer_of(product)
    planes = 2 if isinstance(quantizer, TritPlanes) else 1
    groups = -(-product.depth // product.group) if product.group else 1
    return Gemm(
        rows=product.rows,
        columns=product.columns,
        depth=product.depth,
        weight_bits=planes * quantizer.formats[0].bits,
        activation_bits=WIDE_BITS,
        scale_bits=32 * planes * product.columns * groups,
    )


def _kernel(run: Callable[[torch.Tensor, WeightOperand], torch.Tensor], *, few: bool, exact: bool) -> Kernel:
    how = f"1 to {FEW_ROWS} rows, the depth shared among programs" if few else "a tile of the result for each program"
    values = "values exact" if exact else "values rounded to the activations' type"
    return Kernel(
        name=f"weight_only_{'gemv' if few else 'gemm'}{'' if exact else '_rounded'}",
        family="weight-only",
        summary=f"16-bit activations times weights of 2 to 8 bits decoded in registers: {how}; {values}",
        arithmetic="bfloat16",
        takes=lambda product: refusal(product, few=few, exact=exact),
        operands=lambda product, seed, device: random_operands(product, seed, device, exact=exact),
        run=lambda operands: run(operands.x, operands.weight, tuned=True),  # type: ignore[call-arg]
        reference=reference,
        bytes_moved=lambda product: gemm_of(product).bytes,
        operations=lambda product: gemm_of(product).operations,
    )


KERNELS = (
    _kernel(weight_only_gemv, few=True, exact=True),
    _kernel(weight_only_gemm, few=False, exact=True),
    _kernel(weight_only_gemv, few=True, exact=False),
    _kernel(weight_only_gemm, few=False, exact=False),
)
