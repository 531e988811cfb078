"""16-bit activations times weights in codes: what the kernels give lies within the bound that follows from float32 sums."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats.errors import InvalidTypeError, InvalidValueError
from formats.quantizer import Quantizer
from formats.registry import scalar
from hwmodels.gpu.kernels.launching import Tile
from hwmodels.gpu.kernels.operand_type import operand_type
from hwmodels.gpu.kernels.packing import of_tensor, pack_weight, unit
from hwmodels.gpu.kernels.weight_only import bound, weight_only_gemm, weight_only_gemv
from hwmodels.gpu.kernels.weight_only_kernels import decoded
from hwmodels.gpu.kernels.weight_only_tiles import gemm_tiles, gemv_tiles
from hwmodels.gpu.kernels.weight_operand import WeightOperand, prepare
from hwmodels.gpu.kernels.weight_product import narrowed

TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
#: every width, every kind of decoding, and every type that is multiplied
NAMES = ("ternary", "int2", "int3", "int4", "uint4", "uint4_zero8", "int5", "int6", "int7", "int8", "e2m1", "e2m3", "e3m2", "e4m3",
         "float8_e5m2", "pot4", "pot6", "post4", "post5", "post7", "apot5", "nf4", "lloydmax3", "ulog2_8")  # fmt: skip


def used_codes(fmt: formats.Format) -> np.ndarray:
    return np.flatnonzero(np.isfinite(fmt.values))


def random_weight(name: str, columns: int, depth: int, group: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(seed)
    codes = numbers.choice(used_codes(scalar(name)), (columns, depth)).astype(np.uint8)
    groups = -(-depth // group) if group else 1
    return codes, numbers.uniform(0.01, 0.1, (columns, groups)).astype(np.float32)


def expected(
    name: str, codes: np.ndarray, scales: np.ndarray, group: int, x: torch.Tensor, weight: WeightOperand
) -> tuple[np.ndarray, np.ndarray]:
    """The product in float64 of what ``formats`` says that codes are, and how far off float32 sums may be."""
    each = np.repeat(scales.astype(np.float64), group or codes.shape[1], axis=1)[:, : codes.shape[1]]
    values = scalar(name).decode(codes).astype(np.float64) * each
    wide = x.double().numpy()
    result = wide @ values.T
    return result, bound(weight, wide, np.abs(values).T, result)


def random_activations(rows: int, depth: int, activation: str, seed: int) -> torch.Tensor:
    return torch.randn(rows, depth, generator=torch.Generator().manual_seed(seed)).to(TYPES[activation])


@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("activation", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_products_of_ragged_shapes_are_right_in_every_format(name: str, activation: str, group: int) -> None:
    codes, scales = random_weight(name, 37, 83, group, seed=1)
    weight = prepare(pack_weight(codes, scalar(name), scales, group), activation)
    x = random_activations(5, 83, activation, seed=2)
    result, allowed = expected(name, codes, scales, group, x, weight)
    whole = weight_only_gemm(x, weight, Tile(rows=16, columns=32, depth=group or 32))
    shared = weight_only_gemv(x, weight, Tile(rows=16, columns=16, depth=max(16, unit(scalar(name).bits)), splits=3))
    for found in (whole, shared):
        assert found.dtype == x.dtype
        assert (np.abs(found.double().numpy() - result) <= allowed).all()


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    depth=st.integers(1, 200),
    splits=st.integers(1, 4),
    group=st.sampled_from([0, 32, 48]),
)
@settings(max_examples=20, deadline=None)
def test_any_shape_any_split(rows: int, columns: int, depth: int, splits: int, group: int) -> None:
    codes, scales = random_weight("int3", columns, depth, group, seed=rows)
    weight = prepare(pack_weight(codes, scalar("int3"), scales, group), "bfloat16")
    x = random_activations(rows, depth, "bfloat16", seed=depth)
    result, allowed = expected("int3", codes, scales, group, x, weight)
    found = weight_only_gemm(x, weight, Tile(rows=16, columns=32, depth=32, splits=splits))
    assert (np.abs(found.double().numpy() - result) <= allowed).all()


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("activation", TYPES)
@pytest.mark.parametrize("name", ["int8", "e2m1", "ternary", "pot4"])
def test_sums_that_float32_holds_are_rounded_once_to_nearest_even(name: str, activation: str, splits: int) -> None:
    codes, _ = random_weight(name, 24, 100, 0, seed=3)
    weight = prepare(pack_weight(codes, scalar(name), np.full((24, 1), 0.5, np.float32)), activation)
    x = torch.randint(-8, 9, (7, 100), generator=torch.Generator().manual_seed(4)).to(TYPES[activation])
    as_codes = (x.int() & 31).numpy().astype(np.uint8)
    exact = formats.matmul(as_codes, "int5", codes.T, name, formats.Accumulator.exact())
    sums = torch.from_numpy(exact.to_float() / 2)
    assert torch.equal(weight_only_gemv(x, weight, Tile(rows=16, columns=32, depth=16, splits=splits)), sums.to(TYPES[activation]))


def test_depths_are_added_in_the_same_order_every_time() -> None:
    codes, scales = random_weight("int4", 33, 160, 32, seed=5)
    weight = prepare(pack_weight(codes, scalar("int4"), scales, 32), "float16")
    x = random_activations(3, 160, "float16", seed=6)
    tile = Tile(rows=16, columns=32, depth=32, splits=4)
    assert torch.equal(weight_only_gemv(x, weight, tile), weight_only_gemv(x, weight, tile))


@pytest.mark.parametrize(
    ("name", "activation", "operand", "terms"),
    [
        ("int8", "bfloat16", "bfloat16", 1),
        ("e4m3", "float16", "float16", 1),
        ("e6m1", "float16", "tf32", 1),  # its exponents go beyond those of float16
        ("apot8", "bfloat16", "tf32", 1),  # 11 significant bits
        ("nf4", "float16", "float16", 3),
        ("post4", "bfloat16", "bfloat16", 3),
        ("post5", "float16", "float16", 2),
        ("post7", "float16", "tf32", 3),  # both: irrational, and beyond the range of float16
        ("ulog2_8", "bfloat16", "float32", 1),
    ],
)
def test_values_settle_what_is_multiplied(name: str, activation: str, operand: str, terms: int) -> None:
    found = operand_type(scalar(name), activation)
    assert (found.operand, len(found.terms)) == (operand, terms)


@pytest.mark.parametrize("activation", TYPES)
@pytest.mark.parametrize("name", ["nf4", "post3", "post7", "lloydmax8"])
def test_terms_add_up_to_the_values(name: str, activation: str) -> None:
    found = operand_type(scalar(name), activation)
    assert len(found.terms) > 1
    assert (found.terms.astype(np.float64).sum(0) * found.factor == scalar(name).float32_values).all()
    for term in found.terms:
        if found.operand == "tf32":
            assert not (term.view(np.int32) & 0x1FFF).any()
        else:
            assert (torch.from_numpy(term).to(TYPES[activation]).float().numpy() == term).all()


@pytest.mark.parametrize(("name", "activation", "dtype"), [("post5", "float16", torch.int32), ("post5", "bfloat16", torch.int64)])
def test_terms_are_looked_up_at_once(name: str, activation: str, dtype: torch.dtype) -> None:
    found = operand_type(scalar(name), activation)
    assert found.table.dtype == dtype
    sides = found.table.view(torch.int16).reshape(2**5, -1).view(TYPES[activation]).float().numpy()
    assert (sides[:, : len(found.terms)] == found.terms.T).all()
    assert not sides[:, len(found.terms) :].any()


def test_values_are_rounded_where_that_is_asked_for() -> None:
    fmt = scalar("nf4")
    weight = prepare(pack_weight(np.arange(16).reshape(1, 16), fmt, np.ones((1, 1), np.float32)), "bfloat16", exact=False)
    found = weight_only_gemm(torch.eye(16, dtype=torch.bfloat16), weight, Tile(rows=16, columns=16, depth=16))
    assert torch.equal(found[:, 0], torch.from_numpy(fmt.float32_values.copy()).bfloat16())


def test_values_that_would_overflow_are_not_rounded() -> None:
    with pytest.raises(InvalidValueError) as error:
        operand_type(scalar("e6m1"), "float16", exact=False)
    assert str(error.value) == "values to be rounded to float16 must be at most 65504, not 6.44245e+09: e6m1"


@pytest.mark.parametrize(
    "text", ["int4:tensor", "e2m1:channel", "nf4:group48", "tritplanes:group32", "tritplanes:tensor", "tritplanes:channel"]
)
def test_tensors_of_quantizers_are_multiplied_as_they_decode(text: str) -> None:
    values = np.random.default_rng(7).normal(0, 1, (20, 4, 27)).astype(np.float32)
    tensor = Quantizer.parse(text).encode(values)
    weight = prepare(of_tensor(tensor), "float16")
    assert np.allclose(decoded(weight).sum(0), tensor.decode().reshape(20, 108), rtol=1e-6, atol=1e-7)
    x = random_activations(3, 108, "float16", seed=8)
    wide, planes = x.double().numpy(), decoded(weight)
    result = wide @ planes.sum(0).T
    found = weight_only_gemm(x, weight, Tile(rows=16, columns=32, depth=16)).double().numpy()
    assert (np.abs(found - result) <= bound(weight, wide, np.abs(planes).sum(0).T, result)).all()


def test_half_precision_scales_are_taken_as_they_are() -> None:
    codes, scales = random_weight("int4", 9, 40, 16, seed=9)
    half = scales.astype(np.float16)
    x = random_activations(2, 40, "float16", seed=10)
    tile = Tile(rows=16, columns=16, depth=16)
    found, same = (
        weight_only_gemm(x, prepare(pack_weight(codes, scalar("int4"), each, 16), "float16"), tile)
        for each in (half, half.astype(np.float32))
    )
    assert torch.equal(found, same)


@pytest.mark.parametrize("activation", TYPES)
def test_infinities_and_nan_of_activations_are_handed_on(activation: str) -> None:
    weight = prepare(pack_weight(np.ones((2, 16), np.uint8), scalar("int4"), np.ones((2, 1), np.float32)), activation)
    x = torch.ones(3, 16, dtype=TYPES[activation])
    x[1, 3], x[2, 5] = float("inf"), float("nan")
    found = weight_only_gemm(x, weight, Tile(rows=16, columns=16, depth=16))
    assert found[:, 0].tolist()[:2] == [16, float("inf")]
    assert found[2].isnan().all()


@triton.jit
def narrow_all(x, out, COUNT: tl.constexpr):
    place = tl.arange(0, COUNT)
    tl.store(out + place, narrowed(tl.load(x + place), out.dtype.element_ty))


@pytest.mark.parametrize("activation", TYPES)
def test_float32_is_rounded_to_nearest_even_whatever_its_bits(activation: str) -> None:
    numbers = np.random.default_rng(14)
    bits = numbers.integers(0, 2**32, 4096, dtype=np.uint32)
    bits[:8] = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x3F808000, 0x3F818000]
    x = torch.from_numpy(bits.view(np.float32))
    if activation == "float16":
        x = torch.where(x.abs() < 65504, x, 1.5)  # numpy warns of what becomes an infinity
    out = torch.empty(4096, dtype=TYPES[activation])
    narrow_all[(1,)](x, out, 4096)
    assert torch.equal(out.nan_to_num(123), x.to(TYPES[activation]).nan_to_num(123))


def test_no_rows_give_no_results() -> None:
    weight = prepare(pack_weight(np.ones((2, 16), np.uint8), scalar("int4"), np.ones((2, 1), np.float32)), "float16")
    assert weight_only_gemm(torch.empty(0, 16, dtype=torch.float16), weight).shape == (0, 2)


@pytest.mark.parametrize(("group", "depths"), [(0, {64, 128}), (128, {64, 128}), (48, {16}), (32, {32})])
def test_tiles_divide_groups(group: int, depths: set[int]) -> None:
    codes, scales = random_weight("int4", 8, 256, group, seed=11)
    weight = prepare(pack_weight(codes, scalar("int4"), scales, group), "float16")
    tiles = [tile for rows in (1, 20, 64, 500) for tile in gemm_tiles(weight, rows)]
    found = {tile.depth for tile in (*tiles, *gemv_tiles(weight, 1))}
    assert depths & found
    assert all(group % depth == 0 for depth in found) or group == 0


WEIGHT = (np.ones((2, 32), np.uint8), "int4", np.ones((2, 1), np.float32), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.ones(32, np.uint8)}, "codes of a weight must have the shape (columns, depth) and not be empty, not (32,)"),
        ({0: np.full((2, 32), 2), 1: "ternary"}, "codes of a weight must be numbers of ternary, not 2, which is none"),
        ({2: np.ones((2, 2), np.float32)}, "scales of a weight must be float32 or float16 of shape (2, 1), not float32 of (2, 2)"),
        ({2: np.ones((2, 1))}, "scales of a weight must be float32 or float16 of shape (2, 1), not float64 of (2, 1)"),
        ({2: np.full((2, 1), np.nan, np.float32)}, "scales of a weight must be finite and not negative, not nan"),
        ({3: 20}, "group of weights that share a scale must be a multiple of 16, or 0 for one scale, not 20; nearest: 16"),
    ],
)  # fmt: skip
def test_weights_that_kernels_cannot_read_are_refused(change: dict[int, object], message: str) -> None:
    codes, name, scales, group = (change.get(place, given) for place, given in enumerate(WEIGHT))
    with pytest.raises(InvalidValueError) as error:
        pack_weight(codes, scalar(name), scales, group)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_operands_that_do_not_fit_are_refused() -> None:
    weight = prepare(pack_weight(WEIGHT[0], scalar("int4"), WEIGHT[2], 0), "float16")
    with pytest.raises(InvalidTypeError, match=r"must be torch\.float16, not torch\.float32"):
        weight_only_gemm(torch.ones(2, 32), weight)
    with pytest.raises(InvalidValueError, match=r"must be contiguous of shape \(rows, 32\), not \(2, 31\)"):
        weight_only_gemm(torch.ones(2, 31, dtype=torch.float16), weight)
    with pytest.raises(InvalidValueError) as error:
        weight_only_gemv(torch.ones(17, 32, dtype=torch.float16), weight)
    assert str(error.value) == "rows of weight_only_gemv must be 1 to 16, not 17; nearest: weight_only_gemm"
    with pytest.raises(InvalidValueError) as error:
        prepare(weight.weight, "float32")
    assert str(error.value) == "activations beside weights in codes must be float16 or bfloat16, not float32"


@pytest.mark.parametrize("group", [16, 48])
def test_a_tile_may_be_deeper_than_a_group(group: int) -> None:
    codes, scales = random_weight("int4", 9, 130, group, seed=12)
    weight = prepare(pack_weight(codes, scalar("int4"), scales, group), "float16")
    x = random_activations(2, 130, "float16", seed=13)
    result, allowed = expected("int4", codes, scales, group, x, weight)
    found = weight_only_gemm(x, weight, Tile(rows=16, columns=16, depth=64))
    assert (np.abs(found.double().numpy() - result) <= allowed).all()


@pytest.mark.parametrize(("name", "group", "depth"), [("int3", 16, 16), ("int3", 48, 33), ("int7", 16, 40), ("int4", 16, 16)])
def test_no_scale_is_read_behind_the_last_one(name: str, group: int, depth: int) -> None:
    codes, scales = random_weight(name, 9, depth, group, seed=15)
    weight = prepare(pack_weight(codes, scalar(name), scales, group), "float16")
    guarded = torch.full((weight.weight.scales.numel() + 16,), float("nan"))
    guarded[: weight.weight.scales.numel()] = weight.weight.scales.reshape(-1)
    held = guarded[: weight.weight.scales.numel()].view(weight.weight.scales.shape)
    weight = replace(weight, weight=replace(weight.weight, scales=held))
    x = random_activations(3, depth, "float16", seed=16)
    result, allowed = expected(name, codes, scales, group, x, weight)
    tile = Tile(rows=16, columns=16, depth=64)
    for found in (weight_only_gemm(x, weight), weight_only_gemv(x, weight), weight_only_gemm(x, weight, tile)):
        assert (np.abs(found.double().numpy() - result) <= allowed).all()


def test_a_tile_with_infinities_may_not_be_deeper_than_their_group() -> None:
    codes, scales = random_weight("float8_e5m2", 4, 64, 16, seed=17)
    weight = prepare(pack_weight(codes, scalar("float8_e5m2"), scales, 16), "bfloat16")
    with pytest.raises(InvalidValueError) as error:
        weight_only_gemm(torch.ones(2, 64, dtype=torch.bfloat16), weight, Tile(rows=16, columns=16, depth=64))
    assert str(error.value) == "depth of a tile must divide the group where float8_e5m2 has infinities, not be 64"


def test_scales_that_a_power_of_two_takes_out_of_float32_are_refused() -> None:
    weight = pack_weight(np.zeros((2, 16), np.uint8), scalar("e4m3"), np.full((2, 1), 3e38, np.float32))
    with pytest.raises(InvalidValueError) as error:
        prepare(weight, "float16")
    assert str(error.value) == "scales of e4m3 must be at most 1.32923e+36 in this kernel, not 3e+38"
    prepare(weight, "bfloat16")


def test_activations_that_are_no_matrix_are_refused() -> None:
    weight = prepare(pack_weight(WEIGHT[0], scalar("int4"), WEIGHT[2], 0), "float16")
    for run in (weight_only_gemm, weight_only_gemv):
        with pytest.raises(
            InvalidValueError, match=r"^activations of a weight-only product must be contiguous of shape \(rows, 32\), not"
        ):
            run(torch.tensor(1.0, dtype=torch.float16), weight)


@pytest.mark.parametrize(("name", "depth", "units"), [("int4", 512, 16), ("int4", 8, 16), ("int3", 16, 32)])
def test_a_tile_holds_whole_units_and_is_no_deeper_than_rows_are_filled_up_to(name: str, depth: int, units: int) -> None:
    codes, scales = random_weight(name, 4, 48, 0, seed=14)
    weight = prepare(pack_weight(codes, scalar(name), scales), "float16")
    with pytest.raises(InvalidValueError) as error:
        weight_only_gemm(torch.ones(2, 48, dtype=torch.float16), weight, Tile(rows=16, columns=16, depth=depth))
    assert str(error.value) == f"depth of a tile must divide 256 and be a multiple of {units}, not {depth}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 24}, "rows of a tile must be a power of two from 8 up, not 24"),
        ({"columns": 8}, "columns of a tile must be a power of two from 16 up, not 8"),
        ({"warps": 3}, "warps of a tile must be a power of two from 1 up, not 3"),
        ({"splits": 0}, "splits of a tile must be at least 1, not 0"),
    ],
)
def test_tiles_that_cannot_be_compiled_are_refused(change: dict[str, int], message: str) -> None:
    weight = prepare(pack_weight(WEIGHT[0], scalar("int4"), WEIGHT[2], 0), "float16")
    with pytest.raises(InvalidValueError) as error:
        weight_only_gemm(torch.ones(2, 32, dtype=torch.float16), weight, replace(Tile(rows=16, columns=16, depth=32), **change))
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3b11fnuz", "int3"])
def test_what_follows_a_row_counts_for_nothing(name: str) -> None:
    fmt = scalar(name)
    codes = np.random.default_rng(13).choice(used_codes(fmt), (3, 130)).astype(np.uint8)
    weight = prepare(pack_weight(codes, fmt, np.ones((3, 1), np.float32)), "float16")
    found = weight_only_gemm(torch.ones(1, 130, dtype=torch.float16), weight, Tile(rows=16, columns=16, depth=256))
    result = fmt.decode(codes).astype(np.float64).sum(1)
    allowed = bound(weight, np.ones((1, 130)), np.abs(fmt.decode(codes).astype(np.float64)).T, result[np.newaxis])
    assert (np.abs(found.double().numpy() - result) <= allowed).all()


def test_scales_in_tiles_are_refused() -> None:
    tensor = Quantizer.parse("int4:block2x16").encode(np.ones((4, 32), np.float32))
    with pytest.raises(InvalidValueError) as error:
        of_tensor(tensor)
    assert str(error.value) == "scales of a GPU kernel's weight must be by tensor, channel or group, not block2x16 of (4, 32)"
