"""Which type of ONNX holds a format's values, or rounds as the format does: exactly, up to a power of two on the scale.

QuantizeLinear and DequantizeLinear know no minifloat but four of 8 bits. Others are kept where scaling by a power of two, which
moves to the scale without rounding anything, turns their values into those of a type: ``e2m1`` in half units as INT8; ``e4m3``, all
of whose codes are finite, as twice FLOAT8E4M3FNUZ. The sign of a zero is lost where the type has none.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from formats import Format
from formats.boundaries import boundaries, level_codes
from formats.definition import Spacing
from formats.packing import pack
from formats.registry import scalar


@dataclass(frozen=True, kw_only=True)
class ElementType:
    """A type of ONNX."""

    onnx_type: int
    #: lowest version of the operator set in which QuantizeLinear and DequantizeLinear take it
    opset: int
    #: the format of the same codes, values and rounding
    format_name: str
    #: where comparisons must keep onnxruntime 1.31 from fusing QuantizeLinear and DequantizeLinear with operators that do not take
    #: the type: with Relu or Clip ``before`` them, which fails or computes something else, or with a MatMul behind them, too
    guard: Literal["none", "before", "around"] = "none"

    @property
    def format(self) -> Format:
        """The format itself."""
        return scalar(self.format_name)

    @property
    def bits(self) -> int:
        """Width of a code."""
        return self.format.bits

    def tensor(self, name: str, values: NDArray[np.floating] | NDArray[np.integer]) -> onnx.TensorProto:
        """Make an initializer of values that the type has."""
        codes = self.format.encode(np.asarray(values, np.float32))
        return helper.make_tensor(name, self.onnx_type, codes.shape, pack(codes.reshape(-1), self.bits).tobytes(), raw=True)


SIGNED = (
    ElementType(onnx_type=TensorProto.INT2, opset=25, format_name="int2", guard="around"),
    ElementType(onnx_type=TensorProto.INT4, opset=21, format_name="int4", guard="before"),
    ElementType(onnx_type=TensorProto.INT8, opset=19, format_name="int8"),
    ElementType(onnx_type=TensorProto.INT16, opset=21, format_name="int16"),
)
UNSIGNED = (
    ElementType(onnx_type=TensorProto.UINT2, opset=25, format_name="uint2", guard="around"),
    ElementType(onnx_type=TensorProto.UINT4, opset=21, format_name="uint4", guard="before"),
    ElementType(onnx_type=TensorProto.UINT8, opset=19, format_name="uint8"),
    ElementType(onnx_type=TensorProto.UINT16, opset=21, format_name="uint16"),
)
FLOAT8 = (
    ElementType(onnx_type=TensorProto.FLOAT8E4M3FN, opset=19, format_name="float8_e4m3fn", guard="around"),
    ElementType(onnx_type=TensorProto.FLOAT8E5M2, opset=19, format_name="float8_e5m2", guard="around"),
    ElementType(onnx_type=TensorProto.FLOAT8E4M3FNUZ, opset=19, format_name="float8_e4m3fnuz", guard="around"),
    ElementType(onnx_type=TensorProto.FLOAT8E5M2FNUZ, opset=19, format_name="float8_e5m2fnuz", guard="around"),
)
#: a type that onnxruntime's processor kernels do not take
FLOAT4 = (ElementType(onnx_type=TensorProto.FLOAT4E2M1, opset=23, format_name="float4_e2m1fn"),)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How a format is kept in a type: its values are those of the type, less ``zero``, times ``2**exponent``."""

    element: ElementType
    exponent: int = 0
    #: the type's value that stands for zero
    zero: int = 0
    #: smallest and largest value of the type that occur
    low: float
    high: float

    @property
    def clipped(self) -> bool:
        """Whether values are clipped before QuantizeLinear, which is the same before rounding as after."""
        whole = self.element.format
        return self.element.guard != "none" or (self.low, self.high) != (whole.minimum, whole.maximum)

    @property
    def ends(self) -> NDArray[np.float32]:
        """What to clip to, float32 of shape (2,), in multiples of the scale that DequantizeLinear gets."""
        return np.array([self.low - self.zero, self.high - self.zero], np.float32)

    def values(self, fmt: Format, name: str, codes: NDArray[np.integer]) -> onnx.TensorProto:
        """Make an initializer of the format's codes, as values of the type."""
        return self.element.tensor(name, np.ldexp(fmt.float32_values[codes], -self.exponent) + np.float32(self.zero))

    def scales(self, scales: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the scales that go with the type, float32; None where the power of two does not go into one without rounding."""
        with np.errstate(over="ignore", under="ignore"):
            moved = np.ldexp(scales, self.exponent).astype(np.float32)
        exact = np.isfinite(moved) & (np.ldexp(moved, -self.exponent) == scales)
        return moved if exact.all() else None


def holding(fmt: Format, native_float4: bool = False) -> Kept | None:
    """Return the narrowest type that holds every value of the format, integers first; None where none does.

    Formats that are no more than a table, or logarithmic, are not looked at: what is special about them would be lost.
    With ``native_float4`` it is FLOAT4E2M1 or none.
    """
    return _holding(fmt, native_float4) if _on_a_grid(fmt) else None


def rounding(fmt: Format, native_float4: bool = False) -> Kept | None:
    """Return the narrowest type whose QuantizeLinear gives what the format's nearest-even rounding gives; None where none does."""
    return _rounding(fmt, native_float4) if _on_a_grid(fmt) and fmt.closed_form is not None else None


def _on_a_grid(fmt: Format) -> bool:
    closed = fmt.closed_form
    return fmt.bits == 1 if closed is None else fmt.spacing is Spacing.LINEAR


@cache
def _holding(fmt: Format, native_float4: bool) -> Kept | None:
    if _uniform(fmt) and not native_float4:
        return _as_integers(fmt)
    if fmt.bits > 8:
        return None
    values = fmt.float32_values[np.isfinite(fmt.float32_values)].astype(np.float64)
    for element in _candidates(fmt, native_float4):
        known = element.format.float32_values.astype(np.float64)
        for exponent in _exponents(values, known):
            moved = np.ldexp(values, -exponent)
            if np.isin(moved, known).all():
                return Kept(element=element, exponent=exponent, low=float(moved.min()), high=float(moved.max()))
    return None


@cache
def _rounding(fmt: Format, native_float4: bool) -> Kept | None:
    if _uniform(fmt) and not native_float4:
        return _as_integers(fmt)
    if fmt.bits > 8:
        return None
    levels, edges = fmt.values[level_codes(fmt)], boundaries(fmt, "nearest_even").astype(np.float64)
    for element in _candidates(fmt, native_float4):
        known = element.format.values[level_codes(element.format)]
        between = boundaries(element.format, "nearest_even").astype(np.float64)
        for exponent in _exponents(levels, known):
            moved = np.ldexp(levels, -exponent)
            first = int(np.searchsorted(known, moved[0]))
            same_levels = np.array_equal(known[first : first + len(moved)], moved)
            if same_levels and np.array_equal(between[first : first + len(edges)], np.ldexp(edges, -exponent)):
                return Kept(element=element, exponent=exponent, low=float(moved[0]), high=float(moved[-1]))
    return None


def _uniform(fmt: Format) -> bool:
    return fmt.closed_form is not None and fmt.closed_form.kind == "uniform"


def _as_integers(fmt: Format) -> Kept:
    """Return the narrowest integers that hold a format of neighbouring whole numbers, with a zero point where it needs one."""
    low, high = int(fmt.minimum), int(fmt.maximum)
    for element in UNSIGNED if fmt.name.startswith("uint") or low >= 0 else SIGNED:
        lowest, highest = int(element.format.minimum), int(element.format.maximum)
        if lowest <= low and high <= highest:
            return Kept(element=element, low=low, high=high)
        if high - low <= highest - lowest and element.bits >= fmt.bits:
            return Kept(element=element, zero=lowest - low, low=lowest, high=high + lowest - low)
    raise AssertionError(fmt.name)


def _candidates(fmt: Format, native_float4: bool) -> tuple[ElementType, ...]:
    """Return the types up to 8 bits in the order in which they are preferred: the one of the format's own name first."""
    if native_float4:
        return FLOAT4
    integers = (SIGNED if fmt.signed else UNSIGNED)[:3]
    return tuple(sorted((*integers, *FLOAT8), key=lambda element: element.format_name != fmt.name))


def _exponents(values: NDArray[np.float64], known: NDArray[np.float64]) -> list[int]:
    """Return the powers of two worth trying: none, the one that makes the smallest step 1, the one by which the largest match."""
    largest = np.frexp(np.abs(values).max())[1] - np.frexp(known[np.isfinite(known)].max())[1]
    unit = 0
    while not np.array_equal(np.ldexp(values, -unit), np.round(np.ldexp(values, -unit))):
        unit -= 1
    return list(dict.fromkeys([0, unit, int(largest)]))
