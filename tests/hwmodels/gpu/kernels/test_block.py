"""Block-format kernels: weights are what the emulator decodes, products are within the bound of float32 sums."""

import re
from typing import Any

import numpy as np
import pytest
import torch

import formats
from formats.block import MICROSCALING, BlockFormat, BlockScales
from formats.errors import InvalidTypeError, InvalidValueError
from hwmodels.gpu.kernels.block import BlockWeights, block_matmul, bound, compiled_arguments, weights
from hwmodels.gpu.kernels.block_kernels import KERNELS
from hwmodels.gpu.kernels.block_product import block_product
from hwmodels.gpu.kernels.compiling import Compiled, Request, compile_all, request
from hwmodels.gpu.kernels.kernel import Product
from hwmodels.gpu.kernels.launching import Tile, tiles_for

NAMES = (*(each.name for each in MICROSCALING), "nvfp4")
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
#: depth shared by two programs and by one; ragged in every direction
TILES = (Tile(rows=16, columns=32, depth=32, splits=2), Tile(rows=16, columns=16, depth=64))
KERNEL = KERNELS[0]


def block_format(name: str) -> BlockFormat:
    fmt = formats.get(name)
    assert isinstance(fmt, BlockFormat)
    return fmt


def encoded(name: str, shape: tuple[int, int], spread: float, seed: int) -> tuple[np.ndarray, BlockWeights]:
    """Weights as the emulator decodes them, float64, and packed; magnitudes differ by up to 2**(2 * spread)."""
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal(shape) * np.exp2(generator.uniform(-spread, spread, shape))).astype(np.float32)
    fmt = block_format(name)
    codes, scales = fmt.encode(x, axis=0)
    return fmt.decode(codes, scales, axis=0).astype(np.float64), weights(codes, scales, fmt)


def assert_decoded(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Equal; the emulator rounds nvfp4's scales and weights to float32, where the kernel rounds the sum alone."""
    assert (np.abs(found - expected) <= np.abs(expected) * (2.0**-22 if name == "nvfp4" else 0)).all()


@pytest.mark.parametrize("activation", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_decoded_exactly(name: str, activation: str) -> None:
    """Rows of the identity pick weights one by one: nothing is rounded, even where blocks differ by 2**30."""
    w, packed = encoded(name, (67, 21), 7, 1)
    found = block_matmul(torch.eye(67, dtype=TYPES[activation]), packed, dtype=torch.float32, tile=TILES[1])
    assert_decoded(found.numpy(), w, name)


@pytest.mark.parametrize("factor", [2.0**-118, 2.0**120])
@pytest.mark.parametrize("name", ["mxfp4", "mxfp8_e5m2", "mxint8", "nvfp4"])
def test_scales_at_the_ends_of_their_range(name: str, factor: float) -> None:
    fmt = block_format(name)
    x = np.random.default_rng(2).uniform(-1, 1, (40, 5)).astype(np.float32) * np.float32(factor)
    codes, scales = fmt.encode(x, axis=0)
    found = block_matmul(torch.eye(40, dtype=torch.float16), weights(codes, scales, fmt), dtype=torch.float32, tile=TILES[1])
    assert_decoded(found.numpy(), fmt.decode(codes, scales, axis=0), name)


@pytest.mark.parametrize("activation", TYPES)
@pytest.mark.parametrize("spread", [1, 30])
@pytest.mark.parametrize("name", NAMES)
def test_products_are_within_the_bound_of_float32_sums(name: str, spread: float, activation: str) -> None:
    w, packed = encoded(name, (83, 37), spread, 3)
    x = torch.randn(19, 83, generator=torch.Generator().manual_seed(4)).to(TYPES[activation])
    wide = x.double().numpy()
    limit = bound(wide, w, x.dtype)
    for tile in TILES:
        found = block_matmul(x, packed, dtype=torch.float32, tile=tile)
        assert (np.abs(found.numpy() - wide @ w) <= limit).all()
    assert np.median(limit) < 1e-4 * np.abs(wide @ w).max()


@pytest.mark.parametrize("activation", TYPES)
def test_biases_are_added_and_results_rounded_to_the_type_of_x(activation: str) -> None:
    w, packed = encoded("mxfp4", (32, 9), 1, 5)
    bias = torch.linspace(-1, 1, 9)
    found = block_matmul(torch.eye(32, dtype=TYPES[activation]), packed, bias=bias)
    assert torch.equal(found, (torch.from_numpy(w.astype(np.float32)) + bias).to(TYPES[activation]))


@pytest.mark.parametrize("activation", TYPES)
@pytest.mark.parametrize("name", ["mxfp4", "mxfp6_e3m2", "nvfp4"])
def test_the_kernel_is_within_its_bound(name: str, activation: str) -> None:
    product = Product(rows=17, columns=270, depth=130, weight=name, activation=activation)
    KERNEL.require(product)
    operands = KERNEL.operands(product, 7, torch.device("cpu"))
    expected, limit = KERNEL.reference(operands)
    found = KERNEL.run(operands).double().numpy()
    assert (np.abs(found - expected) <= limit).all()
    assert np.median(limit) < 2.0**-7 * np.abs(expected).max()


def test_bytes_are_operands_scales_and_results_once() -> None:
    product = Product(rows=16, columns=256, depth=512, weight="mxfp4", activation="bfloat16")
    assert KERNEL.bytes_moved(product) == 256 * (512 / 2 + 16) + 2 * 16 * (512 + 256) + 8 * 256
    assert KERNEL.operations(product) == 2 * 16 * 256 * 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": "int4"}, "weights of a block product must be in a block format, not int4"),
        ({"weight": "tritplanes"}, "weights of a block product must be in a block format, not tritplanes"),
        ({"activation": "float32"}, "activations of a block product must be float16 or bfloat16, not float32"),
        ({"columns": 0}, "columns of a matrix product must be at least 1, not 0"),
        ({"group": 32}, "group of a block format must be its own, not given"),
    ],
)
def test_products_that_the_kernel_cannot_take_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {"rows": 4, "columns": 4, "depth": 64, "weight": "mxfp4", "activation": "bfloat16"} | changes
    assert KERNEL.takes(Product(**given)) == message


def test_operands_that_do_not_fit_are_refused() -> None:
    fmt = block_format("mxfp8_e5m2")
    codes, scales = fmt.encode(np.ones((40, 3), np.float32), axis=0)
    packed = weights(codes, scales, fmt)
    with pytest.raises(InvalidValueError, match=r"^weights of a block product must be in a block format, not int4$"):
        weights(codes, scales, "int4")  # type: ignore[arg-type]
    with pytest.raises(
        InvalidValueError, match=r"^scales of mxfp8_e5m2 must be uint8 of shape \(2, 3\) for these codes, not uint8 of \(1, 3\)$"
    ):
        weights(codes, BlockScales(scales.codes[:1], scales.tensor), fmt)
    with pytest.raises(InvalidValueError, match=r"^scales of mxfp8_e5m2 must be numbers, not the code of NaN in float8_e8m0fnu$"):
        weights(codes, BlockScales(np.full_like(scales.codes, 255), scales.tensor), fmt)
    with pytest.raises(InvalidValueError, match=r"^codes of a weight must be numbers of float8_e5m2, not 124, which is none$"):
        weights(np.full((40, 3), 124, np.uint8), scales, fmt)
    with pytest.raises(
        InvalidTypeError, match=r"^activations of a block product must be torch.float16 or torch.bfloat16, not torch.float32$"
    ):
        block_matmul(torch.ones(2, 40), packed)
    with pytest.raises(InvalidTypeError, match=r"^result of a block product must be float32, float16 or bfloat16, not int32$"):
        block_matmul(torch.ones(2, 40, dtype=torch.float16), packed, dtype=torch.int32)
    with pytest.raises(InvalidValueError, match=r"^depth of a tile must be a multiple of 32 for mxfp8_e5m2, not 16$"):
        block_matmul(torch.ones(2, 40, dtype=torch.float16), packed, tile=Tile(rows=16, columns=16, depth=16))


#: format, activations, rows
COMPILED = {
    "four bits": ("mxfp4", "bfloat16", 4096),
    "four bits in float16": ("mxfp4", "float16", 4096),
    "four bits, one row, split": ("mxfp4", "bfloat16", 1),
    "small floats as scales": ("nvfp4", "bfloat16", 4096),
    "six bits": ("mxfp6_e2m3", "bfloat16", 64),
    "eight bits": ("mxfp8_e4m3", "float16", 128),
    "integers": ("mxint8", "bfloat16", 4096),
}


def asked(name: str, activation: str, rows: int) -> Request:
    own = "*fp16" if activation == "float16" else "*bf16"
    constants = {
        **compiled_arguments(block_format(name), TYPES[activation], native=True), **tiles_for(rows, 4096, 4096, 2)[0].arguments(),
        "HAS_BIAS": True, "SPLIT": rows == 1,
    }  # fmt: skip
    signature = {
        "x_pointer": own, "w_pointer": "*u8", "scales_pointer": "*u8", "tops_pointer": "*i32",
        "out_pointer": "*fp32" if rows == 1 else own, "column_scales": "*fp32", "biases": "*fp32",
    }  # fmt: skip
    signature |= {each: "i32" for each in block_product.arg_names if each not in signature and each not in constants}
    return request(block_product, signature, constants, ("columns", "depth", "row_bytes", "chunk"))


@pytest.fixture(scope="module")
def compiled() -> dict[str, Compiled]:
    return dict(zip(COMPILED, compile_all([asked(*each) for each in COMPILED.values()]), strict=True))


@pytest.mark.parametrize("name", COMPILED)
def test_products_are_those_of_tensor_cores_in_the_type_of_the_activations(name: str, compiled: dict[str, Compiled]) -> None:
    own = "f16" if COMPILED[name][1] == "float16" else "bf16"
    found = set(re.findall(r"(wgmma\.mma_async|mma\.sync)\S*?\.(f32\.\S+)", compiled[name].ptx))
    assert found == {("wgmma.mma_async", f"f32.{own}.{own}")}


@pytest.mark.parametrize("name", COMPILED)
def test_codes_are_decoded_without_casts_and_nothing_spills(name: str, compiled: dict[str, Compiled]) -> None:
    assert not re.search(r"cvt\.\S*(e4m3|e5m2|e2m1|e2m3|e3m2|ue8m0)", compiled[name].ptx)
    assert compiled[name].spills == 0
    assert compiled[name].shared <= 227 * 1024


@pytest.mark.parametrize(
    ("name", "code", "tensor", "message"),
    [
        ("nvfp4", 0xB8, 1.0, "scales of nvfp4 must not be negative, as a code of float8_e4m3fn is"),
        ("nvfp4", 0x38, 0.0, "scale of a tensor in nvfp4 must be finite and positive, not 0"),
        ("mxfp8_e5m2", 254, 1.0, "weights in mxfp8_e5m2 must be within float32, not beyond it by their scales"),
    ],
)
def test_scales_without_a_meaning_here_are_refused(name: str, code: int, tensor: float, message: str) -> None:
    fmt = block_format(name)
    scales = BlockScales(np.full((1, 2), code, np.uint8), np.float32(tensor))
    with pytest.raises(InvalidValueError) as error:
        weights(np.zeros((fmt.block, 2), np.uint8), scales, fmt)
    assert str(error.value) == message
