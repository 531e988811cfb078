"""Layers as the matrix products that a GPU runs, and what these have to move and to multiply."""

from dataclasses import dataclass

from formats.format import Format
from formats.quantizer import Quantizer
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.cost import LayerPlan
from hwmodels.gpu.devices import Arithmetic, GpuDevice

#: bits of what is not stored in a format of its own: activations of weight-only kernels, and every result
WIDE_BITS = 16
#: formats that tensor cores multiply as they are
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """``products`` matrix products of (rows, depth) with (depth, columns)."""

    rows: int
    columns: int
    depth: int
    products: int = 1
    #: bits of one weight and one activation as they lie in memory
    weight_bits: float = WIDE_BITS
    activation_bits: float = WIDE_BITS
    #: bits of all scales
    scale_bits: float = 0
    arithmetic: Arithmetic = "bfloat16"
    #: name of the weights' format, block format or method: what they are decoded by; "" where nothing is known of it
    weight: str = ""

    @property
    def operations(self) -> float:
        """Multiplications and additions."""
        return 2.0 * self.rows * self.columns * self.depth * self.products

    @property
    def bytes(self) -> float:
        """Bytes that are read and written at least: each operand and the result once."""
        weight = self.depth * self.columns * self.weight_bits
        activation = self.rows * self.depth * self.activation_bits
        result = self.rows * self.columns * WIDE_BITS
        return (self.products * (weight + activation + result) + self.scale_bits) / 8


def of_layer(plan: LayerPlan, batch: int, device: GpuDevice) -> Gemm:
    """Return what a layer is on a GPU for ``batch`` samples: a convolution as an implicit matrix product, one for each group.

    Operands are multiplied as they are stored where tensor cores take both: whole numbers of 8 bits at most (narrower weights are
    widened in registers), or float8, also with weights of 4-bit whole numbers. All others, and all that the device cannot multiply,
    are weight-only: activations have 16 bits.
    """
    workload = plan.workload
    groups = workload.convolution.groups if workload.convolution is not None else workload.matrices
    stored = workload.weights > 0
    arithmetic = _arithmetic(plan.weight, plan.activation)
    if arithmetic not in device.tera_operations:
        arithmetic = "bfloat16"
    wide = arithmetic == "bfloat16"
    rows = workload.vectors if workload.convolution is not None else workload.vectors // workload.matrices
    columns = workload.output_channels // groups if workload.convolution is not None else workload.output_channels
    products = groups if stored else groups * batch
    shape = (workload.output_channels, workload.dot_length)
    quantized = stored or not wide
    return Gemm(
        rows=rows * batch if stored else rows,
        columns=columns,
        depth=workload.dot_length,
        products=products,
        weight_bits=plan.weight.width if quantized else WIDE_BITS,
        activation_bits=WIDE_BITS if wide else plan.activation.width,
        scale_bits=plan.weight.storage_bits(shape).scales if stored else 0,
        arithmetic=arithmetic,
        weight=str(plan.weight).partition(":")[0] if quantized else "bfloat16",
    )


def _arithmetic(weight: TensorQuantizer, activation: TensorQuantizer) -> Arithmetic:
    """Return what tensor cores multiply."""
    if not isinstance(weight, Quantizer) or not isinstance(activation, Quantizer):
        return "bfloat16"
    by_channel = weight.granularity.name in ("tensor", "channel")  # sums of groups with scales of their own leave the tensor cores
    if by_channel and _whole(weight.format) and _whole(activation.format):
        return "int8"
    if activation.format_name in FLOAT8 and (weight.format_name in FLOAT8 or (_whole(weight.format) and weight.format.bits <= 4)):
        return "float8"
    return "bfloat16"


def _whole(fmt: Format) -> bool:
    form = fmt.closed_form
    return form is not None and form.kind == "uniform" and fmt.bits <= 8 and fmt.minimum >= -128 and fmt.maximum <= 255


def family_of(gemm: Gemm) -> str:
    """Return the family of kernels that runs a matrix product: what its tensor cores multiply, and whether weights are narrower."""
    if gemm.arithmetic == "bfloat16":
        return "bfloat16" if gemm.weight_bits >= WIDE_BITS else "weight-only"
    return gemm.arithmetic if gemm.weight_bits >= 8 else f"narrow-{gemm.arithmetic}"  # 8 bits are what tensor cores take
