"""Float8 kernels: within the bound that follows from float32 sums, weights of every width on float8 tensor cores."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import formats
from formats.errors import InvalidTypeError, InvalidValueError
from hwmodels.gpu.kernels.compiling import Compiled, Request, compile_all, request
from hwmodels.gpu.kernels.float8 import FLOAT8, bound, compiled_arguments, decoding, float8_matmul, weights
from hwmodels.gpu.kernels.float8_kernels import KERNELS
from hwmodels.gpu.kernels.float8_product import float8_product
from hwmodels.gpu.kernels.kernel import Kernel, Product
from hwmodels.gpu.kernels.launching import Tile, tiles_for

#: depth shared by two programs and by one; ragged in every direction
TILES = (Tile(rows=16, columns=32, depth=32, splits=2), Tile(rows=16, columns=16, depth=64))
SHAPE = (19, 83, 37)
WHOLE = ("int2", "int3", "int4", "int4_narrow", "int5", "ternary")
MINIFLOATS = ("e1m2", "e2m1", "e2m3", "e3m2", "e3m3", "e4m2", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn")


def codes_of(name: str, shape: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    usable = np.flatnonzero(np.isfinite(formats.scalar(name).values))
    return np.random.default_rng(seed).choice(usable, shape).astype(np.uint8)


def scales_of(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", [*FLOAT8, *WHOLE, *MINIFLOATS])
def test_every_code_becomes_the_float8_of_its_value(name: str) -> None:
    """A row of ones times each code alone: nothing is rounded."""
    codes = np.flatnonzero(np.isfinite(formats.scalar(name).values)).astype(np.uint8)
    one = formats.scalar("float8_e5m2").encode(np.float32([[1]]))
    packed = weights(codes[np.newaxis], name)
    found = float8_matmul(torch.from_numpy(one), "float8_e5m2", packed, dtype=torch.float32, tile=TILES[0])
    assert np.array_equal(found.numpy()[0], formats.scalar(name).values[codes])


@pytest.mark.parametrize("group", [0, 32, 64])
@pytest.mark.parametrize("weight", [*FLOAT8, "int4", "ternary", "int3", "e2m1", "e3m2"])
@pytest.mark.parametrize("activation", FLOAT8)
def test_products_are_within_the_bound_of_float32_sums(activation: str, weight: str, group: int) -> None:
    rows, depth, columns = SHAPE
    x, w = codes_of(activation, (rows, depth), 1), codes_of(weight, (depth, columns), 2)
    row_scales = scales_of((rows,), 3)
    scales = scales_of((-(-depth // group), columns) if group else (columns,), 4)
    spread = np.repeat(scales, group, axis=0)[:depth] if group else scales
    wide_x = formats.scalar(activation).values[x] * row_scales[:, np.newaxis].astype(np.float64)
    wide_w = formats.scalar(weight).values[w] * spread.astype(np.float64)
    limit = (depth + 6) * 2.0**-24 * (np.abs(wide_x) @ np.abs(wide_w))
    packed = weights(w, weight, scales, group=group)
    for tile in TILES:
        for promote in (True, False):
            found = float8_matmul(
                torch.from_numpy(x),
                activation,
                packed,
                torch.from_numpy(row_scales),
                dtype=torch.float32,
                tile=tile,
                promote=promote,
            )
            assert (np.abs(found.numpy() - wide_x @ wide_w) <= limit).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_biases_are_added_and_results_rounded_once(dtype: torch.dtype) -> None:
    x, w = codes_of("float8_e5m2", (3, 1), 5) & 0x8F, codes_of("int4", (1, 9), 6)  # single products: exact
    bias = torch.from_numpy(scales_of((9,), 7))
    found = float8_matmul(torch.from_numpy(x), "float8_e5m2", weights(w, "int4"), bias=bias, dtype=dtype)
    exact = torch.from_numpy((formats.scalar("float8_e5m2").values[x] @ formats.scalar("int4").values[w]).astype(np.float32))
    assert torch.equal(found, (exact + bias).to(dtype))


def test_the_bound_of_tensor_cores_grows_with_what_they_add_up_alone() -> None:
    magnitudes = np.ones((1, 1))
    assert bound(magnitudes, 8192) < bound(magnitudes, 8192, promote=False)
    assert 0.016 < float(bound(magnitudes, 128)[0, 0]) < 0.0162


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("group", [0, 128])
def test_kernels_are_within_their_bounds(kernel: Kernel, group: int) -> None:
    weight = "int4" if kernel.name == "float8_narrow" else "float8_e4m3fn"
    product = Product(rows=17, columns=270, depth=200, weight=weight, activation="float8_e4m3fn", group=group)
    kernel.require(product)
    operands = kernel.operands(product, 7, torch.device("cpu"))
    expected, limit = kernel.reference(operands)
    found = kernel.run(operands).double().numpy()
    assert (np.abs(found - expected) <= limit).all()
    assert np.median(np.abs(found - expected)) < 2.0**-8 * np.abs(expected).max()  # which the interpreter meets with ease
    groups = 2 if group else 1
    assert kernel.bytes_moved(product) == 270 * 200 * (0.5 if weight == "int4" else 1) + 17 * 200 + 2 * 17 * 270 + 4 * (
        17 + 270 * groups
    )


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        (0, {"activation": "int8"}, "activations of a float8 product must be float8_e4m3fn or float8_e5m2, not int8"),
        (0, {"weight": "mxfp4"}, "weights of a float8 product must be in a scalar format, not mxfp4"),
        (0, {"weight": "int4"}, "weights must have 8 bits, not 4"),
        (1, {}, "weights must have fewer than 8 bits, not 8"),
        (0, {"rows": 0}, "rows of a matrix product must be at least 1, not 0"),
        (0, {"group": 48}, "group of a float8 product must be 32, 64 or a multiple of 128, not 48"),
    ],
)
def test_products_that_the_kernel_cannot_take_are_refused(kernel: int, changes: dict[str, Any], message: str) -> None:
    given = {"rows": 4, "columns": 4, "depth": 64, "weight": "float8_e4m3fn", "activation": "float8_e4m3fn"} | changes
    assert KERNELS[kernel].takes(Product(**given)) == message


@pytest.mark.parametrize("name", ["nf4", "int6", "uint4", "e4m3", "ue3m2", "pot4", "float8_e4m3", "e5m2"])
def test_formats_that_float8_does_not_hold_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        decoding(formats.scalar(name))
    wanted = "float8_e4m3fn, float8_e5m2, int2 to int5 or a signed minifloat of up to 7 bits within e4m3"
    assert str(error.value) == f"weights of a float8 product must be {wanted}, not {name}"


def test_operands_that_do_not_fit_are_refused() -> None:
    w = weights(codes_of("int4", (64, 8), 1), "int4", scales_of((2, 8), 2), group=32)
    x = torch.from_numpy(codes_of("float8_e4m3fn", (4, 64), 3))
    with pytest.raises(
        InvalidValueError, match=r"^activations of a float8 product must be float8_e4m3fn or float8_e5m2, not int8$"
    ):
        float8_matmul(x, "int8", w)
    with pytest.raises(InvalidTypeError, match=r"^result of a float8 product must be float32, float16 or bfloat16, not int32$"):
        float8_matmul(x, "float8_e5m2", w, dtype=torch.int32)
    with pytest.raises(InvalidValueError, match=r"^row scale must be one number or 4, not 3$"):
        float8_matmul(x, "float8_e5m2", w, torch.ones(3))
    with pytest.raises(InvalidValueError, match=r"^scale must be of shape \(2, 8\) for groups of 32, not \(8,\)$"):
        weights(codes_of("int4", (64, 8), 1), "int4", scales_of((8,), 2), group=32)
    with pytest.raises(InvalidValueError, match=r"^codes of a weight must be numbers of float8_e4m3fn, not 127, which is none$"):
        weights(np.full((4, 4), 127, np.uint8), "float8_e4m3fn")


#: weight, activation, rows, whether groups have scales, whether sums are promoted
COMPILED = {
    "float8": ("float8_e4m3fn", "float8_e4m3fn", 4096, False, True),
    "float8, not promoted": ("float8_e4m3fn", "float8_e5m2", 4096, False, False),
    "four bits": ("int4", "float8_e4m3fn", 4096, False, True),
    "four bits by group": ("int4", "float8_e4m3fn", 64, True, True),
    "four bits, one row, split": ("int4", "float8_e4m3fn", 1, False, True),
    "minifloats": ("e2m1", "float8_e4m3fn", 128, False, True),
    "odd widths": ("float6_e3m2fn", "float8_e4m3fn", 4096, False, True),
}


def asked(weight: str, activation: str, rows: int, grouped: bool, promote: bool) -> Request:
    constants = {
        **compiled_arguments(formats.scalar(weight)), **tiles_for(rows, 4096, 4096, 1)[0].arguments(), "X_FORMAT": activation,
        "WIDENED": False, "GROUPED": grouped, "PROMOTE": promote, "HAS_BIAS": True, "SPLIT": rows == 1,
        "WHOLE": True,
    }  # fmt: skip
    signature = {
        "x_pointer": "*u8", "w_pointer": "*u8", "out_pointer": "*fp32" if rows == 1 else "*bf16", "row_scales": "*fp32",
        "column_scales": "*fp32", "group_scales": "*fp32", "biases": "*fp32",
    }  # fmt: skip
    signature |= {each: "i32" for each in float8_product.arg_names if each not in signature and each not in constants}
    return request(float8_product, signature, constants, ("columns", "depth", "row_bytes", "chunk"))


@pytest.fixture(scope="module")
def compiled() -> dict[str, Compiled]:
    return dict(zip(COMPILED, compile_all([asked(*each) for each in COMPILED.values()]), strict=True))


@pytest.mark.parametrize("name", COMPILED)
def test_products_are_those_of_float8_tensor_cores(name: str, compiled: dict[str, Compiled]) -> None:
    found = set(re.findall(r"(wgmma\.mma_async|mma\.sync)\S*?\.(f32\.\S+)", compiled[name].ptx))
    activation = "e5m2" if COMPILED[name][1] == "float8_e5m2" else "e4m3"
    assert found == {("wgmma.mma_async", f"f32.e4m3.{activation}")}
    assert "QGMMA" in compiled[name].sass


@pytest.mark.parametrize("name", COMPILED)
def test_codes_are_decoded_without_casts_and_nothing_spills(name: str, compiled: dict[str, Compiled]) -> None:
    assert not re.search(r"cvt\.\S*(e4m3|e5m2|e2m1|e2m3|e3m2)", compiled[name].ptx)
    assert compiled[name].spills == 0
    assert compiled[name].shared <= 227 * 1024


def test_promoted_sums_are_added_outside_the_tensor_cores(compiled: dict[str, Compiled]) -> None:
    def additions(name: str) -> int:
        return compiled[name].ptx.count("add.rn.f32")

    assert additions("float8") == 2 * additions("float8, not promoted") > 0


@pytest.mark.parametrize("activation", FLOAT8)
def test_activations_that_are_no_numbers_stay_so_in_their_rows(activation: str) -> None:
    fmt = formats.scalar(activation)
    x = torch.full((3, 32), 0x38, dtype=torch.uint8)
    x[1, 5] = fmt.nan[0]
    w = weights(np.full((32, 4), 0x38, np.uint8), "float8_e4m3fn")
    found = float8_matmul(x, activation, w)
    assert found[1].isnan().all()
    assert not found[[0, 2]].isnan().any()


def test_scales_must_be_finite_in_float32() -> None:
    for scale in (np.nan, 3e38):
        with pytest.raises(InvalidValueError) as error:
            weights(np.zeros((32, 4), np.uint8), "int4", scale)
        assert str(error.value) == "scale must be finite, also times 512, for int4"
