"""Which type of ONNX a format is kept in."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import formats
from dse.export import types
from formats.registry import FAMILIES

#: type, power of two and zero point of weights, and whether QuantizeLinear rounds alike
KEPT = {
    "int2": ("INT2", 0, 0, True),
    "ternary": ("INT2", 0, 0, True),
    "binary": ("INT2", 0, 0, False),
    "uint1": ("UINT2", 0, 0, True),
    "int3": ("INT4", 0, 0, True),
    "int4_narrow": ("INT4", 0, 0, True),
    "int8": ("INT8", 0, 0, True),
    "uint5": ("UINT8", 0, 0, True),
    "int9": ("INT16", 0, 0, True),
    "uint8_zero128": ("UINT8", 0, 128, True),
    "int8_zero-1": ("INT8", 0, -1, True),
    "float8_e4m3fn": ("FLOAT8E4M3FN", 0, 0, True),
    "float8_e5m2": ("FLOAT8E5M2", 0, 0, True),
    "float8_e4m3fnuz": ("FLOAT8E4M3FNUZ", 0, 0, True),
    "float8_e5m2fnuz": ("FLOAT8E5M2FNUZ", 0, 0, True),
    # 480 is no value of FLOAT8E4M3FN, but twice one of FLOAT8E4M3FNUZ
    "e4m3": ("FLOAT8E4M3FNUZ", 1, 0, True),
    "e5m2": ("FLOAT8E5M2FNUZ", 1, 0, True),
    "e2m1": ("INT8", -1, 0, False),
    "float4_e2m1fn": ("INT8", -1, 0, False),
    "e1m2": ("INT4", -1, 0, True),
    "e3m2": ("FLOAT8E4M3FN", 0, 0, False),
}
REFUSED = ("pot4", "post4", "nf4", "apot4", "lloydmax4", "ulog2_4", "float16", "bfloat16", "float8_e8m0fnu", "e3m4")


@pytest.mark.parametrize("name", KEPT)
def test_the_narrowest_type_is_chosen(name: str) -> None:
    fmt, (onnx_type, exponent, zero, rounds) = formats.scalar(name), KEPT[name]
    kept = types.holding(fmt)
    assert kept is not None
    assert (TensorProto.DataType.Name(kept.element.onnx_type), kept.exponent, kept.zero) == (onnx_type, exponent, zero)
    assert (types.rounding(fmt) is not None) is rounds


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_type_holds_is_not_kept(name: str) -> None:
    assert types.holding(formats.scalar(name)) is None
    assert types.rounding(formats.scalar(name)) is None


def test_no_minifloat_is_refused_that_some_type_holds() -> None:
    """Against all powers of two, for the names of every family."""
    known = [element.format.values for element in (*types.SIGNED[:3], *types.UNSIGNED[:3], *types.FLOAT8)]
    for name in (name for family in FAMILIES for name in family.examples if name.lstrip("u")[0] == "e"):
        fmt = formats.scalar(name)
        values = fmt.values[np.isfinite(fmt.values)]
        held = any(np.isin(np.ldexp(values, power), table).all() for table in known for power in range(-20, 21))
        assert (types.holding(fmt) is not None) is held, name


def test_e2m1_has_a_type_of_its_own() -> None:
    for name in ("e2m1", "float4_e2m1fn"):
        fmt = formats.scalar(name)
        for found in (types.holding(fmt, native_float4=True), types.rounding(fmt, native_float4=True)):
            assert found is not None
            assert found.element.onnx_type == TensorProto.FLOAT4E2M1
            assert found.element.opset == 23
    assert types.holding(formats.scalar("int4"), native_float4=True) is None


@pytest.mark.parametrize("element", [*types.SIGNED, *types.UNSIGNED, *types.FLOAT8, *types.FLOAT4], ids=lambda e: e.format_name)
def test_stored_values_are_read_back_by_onnx(element: types.ElementType) -> None:
    values = element.format.values[np.isfinite(element.format.values)]
    tensor = element.tensor("t", values)
    onnx.checker.check_tensor(tensor)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float64), values)


def test_a_scale_that_a_power_of_two_does_not_go_into_is_not_rounded() -> None:
    kept = types.holding(formats.scalar("e2m1"))
    assert kept is not None
    np.testing.assert_array_equal(kept.scales(np.float32([0.3, 1])), np.float32([0.15, 0.5]))
    assert kept.scales(np.array([np.finfo(np.float32).tiny * np.float32(1.5), 1e-45], np.float32)) is None
