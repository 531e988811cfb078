"""Quantize kernels: codes and scales of every format of up to 8 bits, equal to the emulator's bit for bit."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import formats
from formats.block import MICROSCALING
from formats.boundaries import DETERMINISTIC_ROUNDINGS, boundaries
from formats.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from formats.registry import FAMILIES
from hwmodels.gpu.kernels.compiling import Compiled, compile_all
from hwmodels.gpu.kernels.kernel import Product
from hwmodels.gpu.kernels.quantize import encode, encode_blocks, quantize_absmax
from hwmodels.gpu.kernels.quantize_kernels import KERNELS
from hwmodels.gpu.kernels.quantize_plan import LONGEST_WHOLE, Plan, absmax_scales, block_scales, given_scales
from hwmodels.gpu.kernels.requests import quantize_request
from hwmodels.gpu.kernels.sampling import absmax

BLOCK_FORMATS = (*(each.name for each in MICROSCALING), "nvfp4")
#: one of each way of rounding
NAMES = (
    "int8",
    "uint4",
    "uint8_zero128",
    "e2m1",
    "ue3m2",
    "float8_e4m3fn",
    "float8_e5m2fnuz",
    "pot4",
    "post4",
    "ulog2_4",
    "nf4",
    "apot6",
)


def every_format() -> list[formats.Format]:
    names = [name for family in FAMILIES for name in family.examples]
    names += ["uint1", "binary", "int8_narrow", "int8_zero-1", "e4m0", "e7m0", "ue4m4", "post8", "ulogsqrt2_8", "apot8"]
    found = [formats.get(name) for name in dict.fromkeys(names)]
    return [fmt for fmt in found if isinstance(fmt, formats.Format) and fmt.bits <= 8]


def awkward(fmt: formats.Format, rounding: str) -> NDArray[np.float32]:
    """Every level and boundary with its neighbours, both zeros, subnormal numbers, the largest numbers and infinities."""
    edges = np.concatenate([boundaries(fmt, rounding), fmt.float32_values[np.isfinite(fmt.float32_values)]])
    special = np.array([0.0, -0.0, 1e-45, 1e-40, 1e-38, 3e38, np.inf], np.float32)
    base = np.concatenate([edges, special, -special]).astype(np.float32)
    with np.errstate(over="ignore"):
        return np.concatenate([base, np.nextafter(base, np.float32(np.inf)), np.nextafter(base, np.float32(-np.inf))])


def random(shape: tuple[int, int], seed: int, spread: int = 20) -> NDArray[np.float32]:
    """Numbers of many magnitudes, a row of zeros among them."""
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal(shape) * np.exp2(generator.integers(-spread, spread, shape))).astype(np.float32)
    x[1] = 0
    x[2, 3] = -0.0
    return x


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
@pytest.mark.parametrize("fmt", every_format(), ids=lambda fmt: fmt.name)
def test_ties_limits_zeros_and_infinities_of_every_format(fmt: formats.Format, rounding: str) -> None:
    x = awkward(fmt, rounding)
    assert np.array_equal(
        encode(torch.from_numpy(x[np.newaxis]), fmt, 1.0, rounding=rounding).numpy()[0], fmt.encode(x, rounding=rounding)
    )


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), scale=st.floats(2.0**-126, 2.0**126, width=32), seed=st.integers(0, 2**32))
def test_any_bits_over_any_scale(name: str, scale: float, seed: int) -> None:
    fmt = formats.scalar(name)
    x = np.random.default_rng(seed).integers(0, 2**32, (3, 50), np.uint32).view(np.float32)
    x = np.where(np.isnan(x), np.float32(1), x)
    with np.errstate(over="ignore"):
        expected = fmt.encode(x, scale)
    assert np.array_equal(encode(torch.from_numpy(x), fmt, scale).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 1), (1, 10), (7, 10), (7, 70)], ids=["tensor", "channel", "columns", "group", "element"]
)
@pytest.mark.parametrize("name", NAMES)
def test_scales_of_every_layout_and_inputs_of_every_type(name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    fmt = formats.scalar(name)
    x = torch.from_numpy(random((7, 70), 1, spread=4)).to(dtype)
    scales = np.random.default_rng(2).uniform(0.01, 1, shape).astype(np.float32)
    expected = fmt.encode(x.float().numpy(), np.repeat(scales, 70 // shape[1], axis=1))
    assert np.array_equal(encode(x, fmt, torch.from_numpy(scales)).numpy(), expected)


@pytest.mark.parametrize(
    ("name", "x", "scale"), [("binary", -9.7147684e-36, 17179868160.0), ("lloydmax4", -1.85504859e-07, 3.4028235e38)]
)
def test_quotients_below_the_smallest_number_are_zero(name: str, x: float, scale: float) -> None:
    given = np.array([[x]], np.float32)
    with np.errstate(under="ignore"):
        expected = formats.scalar(name).encode(given, np.float32(scale))
    assert np.array_equal(encode(torch.from_numpy(given), name, scale).numpy(), expected)


def test_subnormal_numbers_of_bfloat16_are_widened_exactly() -> None:
    x = (torch.tensor([[1, 2, 5, 100]], dtype=torch.int16)).view(torch.bfloat16)  # times 2**-133
    assert encode(x, "int8", 2.0**-133).tolist() == [[1, 2, 5, 100]]


@pytest.mark.parametrize("group", [0, 7, 16, 24])
@pytest.mark.parametrize("name", NAMES)
def test_scales_found_in_the_same_pass_are_those_of_absmax(name: str, group: int) -> None:
    x = random((5, 70), 3, spread=60)
    codes, scales = quantize_absmax(torch.from_numpy(x), name, group)
    expected = absmax(name, group).scales(x).reshape(5, -1)
    assert np.array_equal(scales.numpy(), expected)
    spread = np.repeat(expected, group or 70, axis=1)[:, :70]
    assert np.array_equal(codes.numpy(), formats.scalar(name).encode(x, spread))


def test_groups_longer_than_registers_are_read_twice() -> None:
    x = random((3, 2 * LONGEST_WHOLE + 5), 6)
    codes, scales = quantize_absmax(torch.from_numpy(x), "e2m1")
    expected = absmax("e2m1").scales(x).reshape(3, 1)
    assert np.array_equal(scales.numpy(), expected)
    assert np.array_equal(codes.numpy(), formats.scalar("e2m1").encode(x, expected))
    x[1, -1] = np.nan
    with pytest.raises(InvalidValueError, match="not NaN or Inf in 1 elements"):
        quantize_absmax(torch.from_numpy(x), "e2m1")


@pytest.mark.parametrize("factor", [1.0, 2.0**-120, 2.0**-146, 2.0**120])
@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_block_formats_with_their_scales(name: str, factor: float) -> None:
    fmt = formats.get(name)
    assert isinstance(fmt, formats.BlockFormat)
    x = random((6, 83), 4, spread=5) * np.float32(factor)
    codes, scales, tensor = encode_blocks(torch.from_numpy(x), name)
    expected, found = fmt.encode(x)
    assert np.array_equal(codes.numpy(), expected)
    assert np.array_equal(scales.numpy(), found.codes)
    assert tensor == found.tensor


def test_nan_takes_the_code_of_nan_where_there_is_one() -> None:
    x = np.float32([[1, np.nan, -np.inf]])
    assert np.array_equal(encode(torch.from_numpy(x), "float8_e4m3fn", 1.0).numpy(), formats.scalar("float8_e4m3fn").encode(x))


@pytest.mark.parametrize("size", [(0, 8), (3, 0)])
def test_nothing_gives_nothing(size: tuple[int, int]) -> None:
    assert encode(torch.zeros(size), "int4", 1.0).shape == size


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(
    ("weight", "activation", "group"),
    [("int8", "bfloat16", 0), ("post4", "float16", 26), ("mxfp4", "float32", 0), ("nvfp4", "bfloat16", 0)],
)
def test_kernels_equal_their_references(weight: str, activation: str, group: int, kernel: Any) -> None:
    product = Product(rows=5, columns=0, depth=130, weight=weight, activation=activation, group=group)
    if kernel.name == "encode" and weight in BLOCK_FORMATS:
        assert kernel.takes(product) == f"format for given scales must be a scalar format, not {weight}"
        return
    kernel.require(product)
    operands = kernel.operands(product, 3, torch.device("cpu"))
    expected, bound = kernel.reference(operands)
    assert not bound.any()
    assert np.array_equal(kernel.run(operands).double().numpy(), expected)
    assert len(np.unique(expected)) > 5


def test_bytes_are_values_codes_and_scales_once() -> None:
    product = Product(rows=8, columns=0, depth=256, weight="int8", activation="bfloat16", group=64)
    assert KERNELS[0].bytes_moved(product) == 8 * (256 * 3 + 4 * 4)
    blocks = Product(rows=8, columns=0, depth=256, weight="mxfp4", activation="float32")
    assert KERNELS[0].bytes_moved(blocks) == 8 * (256 * 5 + 8)


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        (0, {"weight": "int9"}, "format of a quantize kernel must have at most 8 bits, not 9"),
        (0, {"weight": "tritplanes"}, "format of a quantize kernel must be one of a name alone, not tritplanes"),
        (0, {"activation": "int8"}, "values of a quantize kernel must be float32, float16, bfloat16, not int8"),
        (0, {"columns": 3}, "columns of a quantize kernel must be 0, not 3"),
        (0, {"weight": "mxfp4", "group": 32}, "group of a block format must be its own, not given"),
        (1, {"group": 48}, "group must divide 64, not be 48"),
    ],
)
def test_arrays_that_the_kernel_cannot_take_are_refused(kernel: int, changes: dict[str, Any], message: str) -> None:
    wanted = {"rows": 2, "columns": 0, "depth": 64, "weight": "int8", "activation": "bfloat16"} | changes
    assert KERNELS[kernel].takes(Product(**wanted)) == message


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: encode(x * np.nan, "int4", 1.0),
         InvalidValueError, "values for int4 must be numbers, not NaN in 6 elements: the format has no NaN code"),
        (lambda x: encode(x, "int4", 0.0), InvalidValueError, "scale must be finite and positive, not 0"),
        (lambda x: encode(x, "int4", torch.ones(2, 2)),
         InvalidValueError, "scale must be of shape (1 or 2, groups), where groups divide 3, not (2, 2)"),
        (lambda x: encode(x.double(), "int4", 1.0),
         InvalidTypeError, "x of a quantize kernel must be float32, float16 or bfloat16, not float64"),
        (lambda x: encode(x.t(), "int4", 1.0),
         InvalidValueError, "x of a quantize kernel must be contiguous of shape (rows, length), not (3, 2), not contiguous"),
        (lambda x: encode(x, "int9", 1.0), InvalidValueError, "format of a quantize kernel must have at most 8 bits, not 9: int9"),
        (lambda x: encode(x, "int4", 1.0, rounding="stochastic"), UnknownNameError, None),
        (lambda x: quantize_absmax(x / 0, "e2m1"),
         InvalidValueError, "values for e2m1 must be finite, not NaN or Inf in 6 elements"),
        (lambda x: quantize_absmax(x, "e2m1", -1),
         InvalidValueError, "group of a quantize kernel must be at least 1 element, not -1"),
        (lambda x: encode_blocks(x / 0, "mxfp4"),
         InvalidValueError, "values for mxfp4 must be finite, not NaN or Inf in 6 elements"),
        (lambda x: encode_blocks(x / 0, "nvfp4"),
         InvalidValueError, "values for nvfp4 must be finite, not NaN or Inf in 6 elements"),
        (lambda x: encode_blocks(x, "int4"), InvalidValueError, "format of encode_blocks must be a block format, not int4"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantized_is_refused(call: Any, error: type[Exception], message: str | None) -> None:
    with pytest.raises(error) as raised:
        call(torch.ones(2, 3))
    assert message is None or str(raised.value) == message


def block(name: str) -> Plan:
    fmt = formats.get(name)
    assert isinstance(fmt, formats.BlockFormat)
    return block_scales(fmt, np.float32(1))


#: plan and type of the values
COMPILED = {
    "integers": (given_scales(formats.scalar("int8"), 4096, torch.ones(1, 1)), torch.bfloat16),
    "minifloats": (given_scales(formats.scalar("e4m3"), 4096, torch.ones(1, 32)), torch.float32),
    "powers of the root of two": (given_scales(formats.scalar("post4"), 4096, torch.ones(1, 32)), torch.bfloat16),
    "a table": (absmax_scales(formats.scalar("nf4"), 64), torch.bfloat16),
    "a long table": (absmax_scales(formats.scalar("apot8"), 128), torch.float16),
    "whole rows": (absmax_scales(formats.scalar("float8_e4m3fn"), 8192), torch.bfloat16),
    "the longest rows": (absmax_scales(formats.scalar("int8"), 28672), torch.float32),
    "powers of two as scales": (block("mxfp4"), torch.bfloat16),
    "small floats as scales": (block("nvfp4"), torch.bfloat16),
}


@pytest.fixture(scope="module")
def compiled() -> dict[str, Compiled]:
    return dict(zip(COMPILED, compile_all([quantize_request(*each) for each in COMPILED.values()]), strict=True))


@pytest.mark.parametrize("name", COMPILED)
def test_divisions_are_ieee_754s_and_nothing_is_flushed_or_fused(name: str, compiled: dict[str, Compiled]) -> None:
    assert "div.rn.f32" in compiled[name].ptx
    for other in ("div.full", "div.approx", ".ftz", "satfinite"):
        assert other not in compiled[name].ptx


@pytest.mark.parametrize("name", COMPILED)
def test_numbers_that_share_a_scale_share_its_reciprocal(name: str, compiled: dict[str, Compiled]) -> None:
    plan, divisions = COMPILED[name][0], compiled[name].ptx.count("div.rn.f32")
    elements = plan.constants()["GROUPS"] * plan.constants()["SIZE"] / (32 * plan.warps)
    assert compiled[name].ptx.count("fma.rn.f32") == 4 * elements  # a guess is corrected twice
    assert divisions <= 4 < elements


@pytest.mark.parametrize("name", COMPILED)
def test_nothing_spills_and_accesses_are_wide(name: str, compiled: dict[str, Compiled]) -> None:
    assert compiled[name].spills == 0
    assert "ld.global.v4.b32" in compiled[name].ptx
    assert "st.global.v4.b32" in compiled[name].ptx or "st.global.v2.b32" in compiled[name].ptx
