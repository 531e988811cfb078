"""Integer kernels: sums equal to those of ``formats.matmul``, codes equal to those of ``formats.requantize``."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import formats
from formats.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from hwmodels.gpu.kernels.compiling import Compiled, Request, compile_all, request
from hwmodels.gpu.kernels.finishing import Requantized, RequantizedByShift, Scaled, prepare
from hwmodels.gpu.kernels.integer import IntegerWeights, compiled_arguments, integer_matmul, weights
from hwmodels.gpu.kernels.integer_kernels import KERNELS
from hwmodels.gpu.kernels.integer_operand import operand
from hwmodels.gpu.kernels.integer_sums import finish_integer_sums, integer_product
from hwmodels.gpu.kernels.kernel import Kernel, Product
from hwmodels.gpu.kernels.launching import Tile, tiles_for
from hwmodels.gpu.kernels.packing import FILLED

#: depth shared by two programs and by one; ragged in every direction
TILES = (Tile(rows=16, columns=32, depth=32, splits=2), Tile(rows=16, columns=16, depth=64))
SHAPE = (19, 83, 37)
INT8, UINT8 = formats.scalar("int8"), formats.scalar("uint8")


def codes_of(name: str, shape: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    usable = np.flatnonzero(np.isfinite(formats.scalar(name).values))
    return np.random.default_rng(seed).choice(usable, shape).astype(np.uint8)


def exact(x: NDArray[np.uint8], x_name: str, w: NDArray[np.uint8], w_name: str) -> NDArray[np.int64]:
    return formats.matmul(x, x_name, w, w_name, formats.Accumulator.exact()).to_float().astype(np.int64)


@pytest.fixture(scope="module")
def case() -> tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]:
    rows, depth, columns = SHAPE
    x, w = codes_of("int8", (rows, depth), 1), codes_of("int4", (depth, columns), 2)
    return torch.from_numpy(x), weights(w, "int4"), exact(x, "int8", w, "int4")


@pytest.mark.parametrize(
    "weight", ["int8", "int8_narrow", "int4", "ternary", "int2", "int3", "int5", "int7", "uint4", "uint8", "uint4_zero7"]
)
@pytest.mark.parametrize("activation", ["int8", "uint8", "uint8_zero131", "int8_zero-3", "uint5"])
def test_sums_are_exact(activation: str, weight: str) -> None:
    rows, depth, columns = SHAPE
    x, w = codes_of(activation, (rows, depth), 1), codes_of(weight, (depth, columns), 2)
    expected, packed = exact(x, activation, w, weight), weights(w, weight)
    for tile in TILES:
        found = integer_matmul(torch.from_numpy(x), activation, packed, tile=tile)
        assert found.dtype == torch.int32
        assert np.array_equal(found.numpy(), expected)


def test_the_largest_sums_that_int32_holds_are_exact() -> None:
    depth = (2**31 - 1) // 2**14
    x, w = np.full((1, depth), 128, np.uint8), np.full((depth, 1), 128, np.uint8)  # -128 times -128
    found = integer_matmul(torch.from_numpy(x), "int8", weights(w, "int8"), tile=Tile(rows=16, columns=16, depth=256))
    assert int(found) == depth * 2**14


@pytest.mark.parametrize("tile", [*TILES, None], ids=["split", "whole", "chosen"])
@pytest.mark.parametrize("output", ["int8", "uint8", "int4", "int8_narrow"])
def test_requantized_codes_are_those_of_the_emulator(
    output: str, tile: Tile | None, case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]
) -> None:
    x, w, sums = case
    generator = np.random.default_rng(3)
    multiplier = generator.integers(2**30, 2**31, w.columns)
    shift = generator.integers(-12, -4, w.columns)
    multiplier[:4], shift[:4] = (2**30, 0, 2**31 - 1, 2**30), (-6, 0, 30, -31)  # ties, nothing, and both ends
    fmt = formats.scalar(output)
    finish = Requantized(fmt=fmt, multiplier=multiplier, shift=shift, zero_point=3)
    found = integer_matmul(x, "int8", w, finish, tile=tile)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), formats.requantize(sums, multiplier, shift, fmt, 3, variant="single"))


@pytest.mark.parametrize("rounding", ["nearest_even", "nearest_away", "toward_zero", "floor"])
def test_codes_by_shift_are_those_of_the_emulator(
    rounding: str, case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]
) -> None:
    x, w, sums = case
    shift = np.random.default_rng(4).integers(0, 9, w.columns)
    shift[:5] = 62, -62, -3, 40, 1
    finish = RequantizedByShift(fmt=INT8, shift=shift, zero_point=-5, rounding=rounding)
    found = integer_matmul(x, "int8", w, finish, tile=TILES[0])
    assert np.array_equal(found.numpy(), formats.requantize_by_shift(sums, shift, INT8, -5, rounding=rounding))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tile", TILES, ids=["split", "whole"])
def test_scaled_sums_are_rounded_step_by_step(
    tile: Tile, dtype: torch.dtype, case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]
) -> None:
    x, w, sums = case
    generator = torch.Generator().manual_seed(5)
    rows, columns, bias = (torch.rand(n, generator=generator) / 16 for n in (len(x), w.columns, w.columns))
    found = integer_matmul(x, "int8", w, Scaled(row_scale=rows, column_scale=columns, bias=bias, dtype=dtype), tile=tile)
    expected = torch.from_numpy(sums.astype(np.float32)) * rows[:, None] * columns + bias
    assert torch.equal(found, expected.to(dtype))


def test_one_scale_serves_for_all(case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]) -> None:
    x, w, sums = case
    found = integer_matmul(x, "int8", w, Scaled(row_scale=0.5, column_scale=0.25))
    assert np.array_equal(found.numpy(), sums.astype(np.float32) / 8)


def test_no_rows_give_no_results(case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]) -> None:
    assert integer_matmul(case[0][:0], "int8", case[1]).shape == (0, SHAPE[2])


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_kernels_equal_their_references(kernel: Kernel) -> None:
    weight = "ternary" if kernel.name == "integer_narrow" else "int8"
    product = Product(rows=17, columns=270, depth=130, weight=weight, activation="int8")
    kernel.require(product)
    operands = kernel.operands(product, 7, torch.device("cpu"))
    expected, bound = kernel.reference(operands)
    assert not bound.any()
    assert np.array_equal(kernel.run(operands).double().numpy(), expected)
    assert len(np.unique(expected)) > 100
    assert kernel.operations(product) == 2 * 17 * 270 * 130


def test_bytes_are_operands_and_results_once() -> None:
    product = Product(rows=16, columns=4096, depth=4096, weight="int4", activation="int8")
    kernel = next(each for each in KERNELS if each.name == "integer_narrow")
    assert kernel.bytes_moved(product) == 4096 * 4096 / 2 + 16 * 4096 + 2 * 16 * 4096 + 4 * (16 + 4096)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": "nf4"}, "format of an integer product must be an integer of 2 to 8 bits, not nf4"),
        ({"weight": "tritplanes"}, "formats of an integer product must be integers, not tritplanes x int8"),
        ({"weight": "int4"}, "weights must have 8 bits, not 4"),
        ({"columns": 0}, "columns of a matrix product must be at least 1, not 0"),
        ({"group": 32}, "scales of an integer product must be one for each column, not one for each 32 weights"),
        ({"depth": 131072}, "depth of an integer product must be at most 131071, so that int32 holds its sums, not 131072"),
    ],
)
def test_products_that_the_kernel_cannot_take_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {"rows": 4, "columns": 4, "depth": 64, "weight": "int8", "activation": "int8"} | changes
    assert KERNELS[0].takes(Product(**given)) == message


@pytest.mark.parametrize(
    ("finish", "error", "message"),
    [
        (Requantized(fmt=formats.scalar("e2m1"), multiplier=1, shift=0),
         InvalidValueError, "format of an integer product must be an integer of 2 to 8 bits, not e2m1"),
        (Requantized(fmt=formats.scalar("uint8_zero3"), multiplier=1, shift=0),
         InvalidValueError, "output format must be an integer in two's complement or unsigned, not uint8_zero3"),
        (Requantized(fmt=INT8, multiplier=-1, shift=0), InvalidValueError, "multiplier must be 0 to 2147483647, not -1"),
        (Requantized(fmt=INT8, multiplier=1, shift=31), InvalidValueError, "shift must be -31 to 30, not 31"),
        (Requantized(fmt=INT8, multiplier=1, shift=0.5), InvalidTypeError, "shift must be integers, not float64"),
        (Requantized(fmt=UINT8, multiplier=1, shift=0, zero_point=-1), InvalidValueError, "zero point must be 0 to 255, not -1"),
        (RequantizedByShift(fmt=INT8, shift=[1, 2]), InvalidValueError, "shift must be one number or 37, not 2"),
        (RequantizedByShift(fmt=INT8, shift=1, rounding="flor"),
         UnknownNameError, "rounding must be a known name, not 'flor'; nearest: floor"),
    ],
)  # fmt: skip
def test_a_finish_that_cannot_be_is_refused(
    finish: Requantized | RequantizedByShift, error: type[Exception], message: str,
    case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]],
) -> None:  # fmt: skip
    with pytest.raises(error) as raised:
        integer_matmul(case[0], "int8", case[1], finish)
    assert str(raised.value) == message


def test_a_finish_prepared_for_another_shape_is_refused(case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]) -> None:
    x, w, _ = case
    prepared = prepare(Scaled(), x.shape[0] - 1, w.columns, x.device)
    with pytest.raises(InvalidValueError) as error:
        integer_matmul(x, "int8", w, prepared)
    shape = (x.shape[0], w.columns)
    assert str(error.value) == f"finish of an integer product must be prepared for {shape}, not {(shape[0] - 1, shape[1])}"


def test_operands_that_do_not_fit_are_refused(case: tuple[torch.Tensor, IntegerWeights, NDArray[np.int64]]) -> None:
    x, w, _ = case
    with pytest.raises(InvalidTypeError) as error:
        integer_matmul(x.to(torch.int8), "int8", w)
    assert str(error.value) == "codes of an integer product must be torch.uint8, not torch.int8"
    with pytest.raises(InvalidValueError) as error:
        integer_matmul(x[:, 1:].contiguous(), "int8", w)
    assert str(error.value) == "codes of an integer product must be contiguous of shape (rows, 83), not (19, 82)"
    with pytest.raises(InvalidValueError) as error:
        integer_matmul(x, "int8", w, tile=Tile(rows=16, columns=16, depth=2 * FILLED))
    assert str(error.value) == f"depth of a tile must divide {FILLED} and be a multiple of 32, not {2 * FILLED}"
    with pytest.raises(InvalidValueError) as error:
        weights(np.full((4, 4), 2, np.uint8), "ternary")
    assert str(error.value) == "codes of a weight must be numbers of ternary, not 2, which is none"
    with pytest.raises(InvalidValueError) as error:
        weights(np.zeros(4, np.uint8), "int4")
    assert str(error.value) == "codes of a weight must have the shape (depth, columns) and not be empty, not (4,)"


#: weight, activation, finish, rows
COMPILED = {
    "eight bits": ("int8", "int8", "sums", 4096),
    "eight bits, requantized": ("int8", "int8", "multiplied", 4096),
    "eight bits without sign, by shift": ("int8", "uint8", "shifted", 4096),
    "four bits": ("int4", "int8", "float", 4096),
    "four bits, one row, split": ("int4", "int8", "split", 1),
    "two bits": ("ternary", "int8", "float", 64),
    "odd widths": ("int3", "int8", "float", 4096),
    "a zero point": ("uint4_zero7", "uint8", "multiplied", 128),
}


def asked(weight: str, activation: str, finish: str, rows: int) -> Request:
    tile = tiles_for(rows, 4096, 4096, 1)[0]
    constants = {
        **compiled_arguments(operand(formats.scalar(activation)), operand(formats.scalar(weight))),
        **tile.arguments(), "FINISH": "sums" if finish == "split" else finish, "ROUNDING": "nearest_even", "MASK": 255,
        "HAS_BIAS": True, "SPLIT": finish == "split", "WHOLE": True,
    }  # fmt: skip
    out = {"float": "*bf16", "multiplied": "*u8", "shifted": "*u8"}.get(finish, "*i32")
    signature = {
        "x_pointer": "*u8", "w_pointer": "*u8", "out_pointer": out, "column_sums": "*i32", "row_scales": "*fp32",
        "factors": "*fp32" if finish == "float" else "*i32", "shifts": "*i32", "biases": "*fp32",
    }  # fmt: skip
    signature |= {each: "i32" for each in integer_product.arg_names if each not in signature and each not in constants}
    return request(integer_product, signature, constants, ("columns", "depth", "row_bytes", "chunk"))


def asked_to_finish() -> Request:
    constants = {"FINISH": "multiplied", "ROUNDING": "floor", "MASK": 255, "HAS_BIAS": False, "BLOCK_M": 16, "BLOCK_N": 128}
    signature = {
        "partial": "*i32", "out_pointer": "*u8", "column_sums": "*i32", "row_scales": "*i32", "factors": "*i32", "shifts": "*i32",
        "biases": "*i32",
    }  # fmt: skip
    signature |= {each: "i32" for each in finish_integer_sums.arg_names if each not in signature and each not in constants}
    return request(finish_integer_sums, signature, constants, ("columns",))


@pytest.fixture(scope="module")
def compiled() -> dict[str, Compiled]:
    made = compile_all([*(asked(*each) for each in COMPILED.values()), asked_to_finish()])
    return dict(zip([*COMPILED, "the sums of splits"], made, strict=True))


@pytest.mark.parametrize("name", COMPILED)
def test_products_are_those_of_integer_tensor_cores(name: str, compiled: dict[str, Compiled]) -> None:
    found = set(re.findall(r"(wgmma\.mma_async|mma\.sync)\S*?\.(s32\.\S+)", compiled[name].ptx))
    assert found == {("wgmma.mma_async", "s32.s8.s8")}
    assert "IGMMA" in compiled[name].sass


@pytest.mark.parametrize("name", [*COMPILED, "the sums of splits"])
def test_nothing_spills(name: str, compiled: dict[str, Compiled]) -> None:
    assert compiled[name].spills == 0
    assert compiled[name].shared <= 227 * 1024


def test_steps_of_scaling_are_not_fused(compiled: dict[str, Compiled]) -> None:
    assert "fma.rn.f32" not in compiled["four bits"].ptx
