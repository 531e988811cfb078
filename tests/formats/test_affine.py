import io

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import formats
from formats import Accumulator, Quantizer, matmul
from formats.boundaries import DETERMINISTIC_ROUNDINGS
from formats.testing import check_format
from tests.formats.samples import assert_same_bits, by_table, exactly, normal, random_bits

NAMES = (
    *("uint1_zero0", "uint1_zero1", "uint2_zero3", "uint4_zero7", "uint8_zero0", "uint8_zero1", "uint8_zero128", "uint8_zero255"),
    *("int2_zero-2", "int4_zero7", "int8_zero-128", "int8_zero-3", "int8_zero0", "int8_zero127"),
    *("uint16_zero40000", "int16_zero-32768"),
)


def limits(name):
    kind, _, zero = name.partition("_zero")
    bits = int(kind.removeprefix("u").removeprefix("int"))
    low = 0 if kind.startswith("u") else -(2 ** (bits - 1))
    return bits, low, low + 2**bits - 1, int(zero)


@pytest.mark.parametrize("name", NAMES)
def test_a_code_stands_for_itself_less_the_zero_point(name):
    bits, low, high, zero = limits(name)
    fmt = formats.get(name)
    integers = np.arange(low, high + 1)
    assert fmt.bits == bits
    np.testing.assert_array_equal(fmt.values[integers % 2**bits], integers - zero)
    assert fmt.values[zero % 2**bits] == 0


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_every_zero_point_of_few_bits(bits):
    x = np.arange(-40, 40, 0.25, dtype=np.float32)
    for zero in range(2**bits):
        expected = np.clip(np.rint(x) + zero, 0, 2**bits - 1)
        np.testing.assert_array_equal(formats.get(f"uint{bits}_zero{zero}").encode(x), expected)
    for zero in range(-(2 ** (bits - 1)), 2 ** (bits - 1)) if bits > 1 else ():
        expected = np.clip(np.rint(x) + zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int64) % 2**bits
        np.testing.assert_array_equal(formats.get(f"int{bits}_zero{zero}").encode(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name):
    check_format(formats.get(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
def test_the_fast_path_gives_what_the_table_gives(name, rounding):
    fmt, slow = formats.get(name), by_table(name)
    x = np.concatenate([random_bits(5000), normal(5000, spread=2.0 ** (fmt.bits - 1)), np.arange(-300, 300, 0.5, dtype=np.float32)])
    assert fmt.closed_form is not None
    codes = fmt.encode(x, rounding=rounding)
    np.testing.assert_array_equal(codes, slow.encode(x, rounding=rounding))
    assert_same_bits(fmt.quantize(x, 0.3, rounding=rounding), slow.quantize(x, 0.3, rounding=rounding))
    assert_same_bits(fmt.decode(codes, 0.3), slow.decode(codes, 0.3))


def test_stochastic_rounding_is_that_of_the_integers_without_a_zero_point():
    x = normal(5000, spread=60)
    found = formats.get("uint8_zero128").encode(x, rounding="stochastic", seed=5)
    expected = formats.get("int8").encode(x, rounding="stochastic", seed=5)
    np.testing.assert_array_equal(found, expected ^ np.uint8(128))


@pytest.mark.parametrize("name", [name for name in NAMES if limits(name)[0] in (8, 16)])
def test_codes_and_values_are_those_of_onnxruntime(name):
    bits, low, _, zero = limits(name)
    kind = getattr(TensorProto, f"{'UINT' if low == 0 else 'INT'}{bits}")
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
            helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
        ],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("codes", kind, [None]), helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [0.037]), helper.make_tensor("zero", kind, [], [zero])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    content = io.BytesIO()
    onnx.save(model, content)
    session = onnxruntime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    fmt, scale = formats.get(name), np.float32(0.037)
    ties = np.arange(-600, 600, dtype=np.float32) / 2 * scale
    x = np.concatenate([normal(20_000, spread=0.037 * 2.0 ** (bits - 1)), ties, np.float32([0.0, -0.0, 1e30, -1e30])])
    codes, values = session.run(None, {"x": x})
    np.testing.assert_array_equal(fmt.encode(x, scale), codes.astype(np.int64) % 2**bits)
    np.testing.assert_array_equal(fmt.quantize(x, scale), values)


def test_products_and_sums_are_of_the_values():
    for name in ("uint4_zero7", "int4_zero-3", "uint8_zero200"):
        fmt = formats.get(name)
        generator = np.random.default_rng(0)
        a = generator.integers(0, 2**fmt.bits, (5, 9)).astype(fmt.code_dtype)
        w = generator.integers(0, 16, (9, 4)).astype(np.uint8)
        expected = fmt.values[a] @ formats.get("int4").values[w]
        np.testing.assert_array_equal(matmul(a, name, w, "int4", Accumulator.exact()).to_float(), expected)
        np.testing.assert_array_equal(matmul(a, name, w, "int4", Accumulator.fixed(bits=24)).to_float(), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uint8_zero300", "z of format uint{b}_zero{z} must be 0 to 255, not 300; nearest: uint8_zero255"),
        ("int4_zero-9", "z of format int{b}_zero{z} must be -8 to 7, not -9; nearest: int4_zero-8"),
        ("uint17_zero99999", "b of format uint{b}_zero{z} must be 1 to 16, not 17; nearest: uint16_zero65535"),
    ],
)
def test_a_zero_point_must_be_a_code(name, message):
    with pytest.raises(KeyError, match=exactly(message)):
        formats.get(name)


@pytest.mark.parametrize("name", ["uint8_zero-1", "int8_zero-0", "int8_zero+3", "uint8_zero", "uint8_zero07"])
def test_other_spellings_are_no_names(name):
    with pytest.raises(KeyError, match="format must be a known name, not "):
        formats.get(name)


def test_values_that_are_never_negative_need_no_zero_point():
    assert formats.get("uint8_zero128").unsigned_counterpart == "uint8"
    assert formats.get("int4_zero-3").unsigned_counterpart == "uint4"


def test_scales_where_the_zero_point_leaves_nothing_above_zero():
    x = -np.abs(normal(3, 50))
    encoded = Quantizer.parse("uint8_zero255:channel:absmax").encode(x)
    np.testing.assert_array_equal(encoded.scales, -x.min(axis=1) / np.float32(255))
    assert np.abs(encoded.decode() - x).max() <= encoded.scales.max() / 2 * 1.0001
