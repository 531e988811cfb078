"""Weight-only kernels, compiled for Hopper without one: they use its tensor cores, and all that they hold is in registers."""

import re
from dataclasses import replace

import pytest

import formats
from formats.errors import BitatlasError, InvalidValueError
from formats.registry import FAMILIES
from hwmodels.gpu.kernels.compiling import Compiled, Request, compile_all, compile_for
from hwmodels.gpu.kernels.issue import bytes_of, main_loop, opcode
from hwmodels.gpu.kernels.operand_type import ACTIVATIONS, operand_type
from hwmodels.gpu.kernels.requests import untuned_tile, weight_only_request, weight_operand
from hwmodels.gpu.kernels.weight_product import add_parts

#: format, activations, group, rows, and the type in which the weights' values are exact
CASES = {
    "integers by channel": ("int4", "float16", 0, 256, "f16"),
    "integers by group": ("int4", "bfloat16", 128, 256, "bf16"),
    "few rows": ("int4", "bfloat16", 128, 1, "bf16"),
    "ternary": ("ternary", "bfloat16", 0, 256, "bf16"),
    "odd widths": ("int3", "float16", 64, 64, "f16"),
    "bytes": ("int8", "float16", 0, 16, "f16"),
    "minifloats": ("e2m1", "float16", 64, 1, "f16"),
    "float8 with infinities": ("float8_e5m2", "bfloat16", 0, 256, "bf16"),
    "powers of two": ("pot4", "bfloat16", 0, 256, "bf16"),
    "powers that float16 lacks": ("pot6", "float16", 0, 256, "tf32"),
    "a table": ("apot4", "float16", 64, 256, "f16"),
    "a code book in three terms": ("nf4", "bfloat16", 64, 1, "bf16"),
    "and in many rows": ("nf4", "float16", 64, 256, "f16"),
    "a wider table": ("apot5", "float16", 0, 256, "f16"),
    "irrational levels in two terms": ("post5", "float16", 0, 1, "f16"),
    "in three terms": ("post8", "bfloat16", 0, 1, "bf16"),
    "those in many rows": ("post8", "bfloat16", 0, 256, "bf16"),
    "and by group": ("post6", "bfloat16", 64, 256, "bf16"),
    "a small code book": ("lloydmax3", "bfloat16", 64, 16, "bf16"),
    "irrational levels beyond the range": ("post7", "float16", 64, 1, "tf32"),
    "and those in many rows": ("post7", "float16", 0, 256, "tf32"),
    "levels too small for float32": ("ulog2_8", "bfloat16", 0, 1, None),
    "and they in many rows": ("ulog2_8", "float16", 64, 256, None),
}


def asked(name: str, activation: str, group: int, rows: int) -> Request:
    weight = weight_operand(name, activation, group)
    return weight_only_request(weight, rows, untuned_tile(weight, rows))


@pytest.fixture(scope="module")
def compiled() -> dict[str, Compiled]:
    made = compile_all([asked(*case[:4]) for case in CASES.values()])
    return dict(zip(CASES, made, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_weights_are_multiplied_by_the_tensor_cores_in_the_type_that_has_their_values(
    case: str, compiled: dict[str, Compiled]
) -> None:
    wanted = CASES[case][4]
    found = set(re.findall(r"wgmma\.mma_async\.sync\.aligned\.m64n\d+k\d+\.(\S+)", compiled[case].ptx))
    if wanted is None:  # in float32, which tensor cores lack
        assert not found
        assert "fma.rn.f32" in compiled[case].ptx
    else:
        assert found == {f"f32.{wanted}.{wanted}"}
        assert "HGMMA" in compiled[case].sass


@pytest.mark.parametrize("case", CASES)
def test_nothing_spills(case: str, compiled: dict[str, Compiled]) -> None:
    assert compiled[case].spills == 0
    assert compiled[case].registers <= 255
    assert compiled[case].shared <= 227 * 1024


@pytest.mark.parametrize("case", CASES)
def test_codes_are_decoded_without_casts_from_narrow_types(case: str, compiled: dict[str, Compiled]) -> None:
    casts = set(re.findall(r"cvt\.\S+", compiled[case].ptx))
    assert not [cast for cast in casts if re.search(r"e4m3|e5m2|e2m1|e2m3|e3m2|ue8m0", cast)]
    to_float = [cast for cast in casts if re.fullmatch(r"cvt\.rn\S*\.(f16|bf16|f32)\.[su]\d+;?", cast)]
    assert not to_float


def most_registers() -> list[tuple[str, str]]:
    """A format of each width, with each type of activations, whose codes are looked up or whose operands have 32 bits."""
    found = {}
    for name in dict.fromkeys(name for family in FAMILIES for name in family.examples):
        fmt = formats.get(name)
        if not isinstance(fmt, formats.Format) or not 2 <= fmt.bits <= 8:
            continue
        for activation in ACTIVATIONS:
            type_ = operand_type(fmt, activation)
            if type_.decoding.kind == "table" or type_.bytes == 4:
                found.setdefault((fmt.bits, type_.decoding.kind, type_.operand, len(type_.terms)), (name, activation))
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 256])
def test_formats_that_take_most_registers_spill_none(rows: int) -> None:
    wanted = most_registers()
    made = compile_all([asked(name, activation, 64, rows) for name, activation in wanted])
    assert {case: each.spills for case, each in zip(wanted, made, strict=True) if each.spills} == {}
    without = {name for (name, _), each in zip(wanted, made, strict=True) if "HGMMA" not in each.sass}
    assert without == {"ulog2_8"}  # some of whose values are subnormal numbers of float32


def test_partial_sums_are_added_without_spills() -> None:
    signature = {"parts": "*fp32", "out": "*bf16", "count": "i32", "size": "i32"}
    made = compile_for(add_parts, signature, {"BLOCK": 1024, "num_warps": 4, "enable_fp_fusion": False}, ("size",))
    assert made.spills == 0
    assert "ld.global.v4.b32" in made.ptx


@pytest.mark.parametrize(
    ("case", "instruction"),
    [
        ("few rows", "HADD2.BF16_V2 "),
        ("integers by channel", "HADD2 "),
        ("powers of two", "HMUL2.BF16_V2 "),
    ],
)
def test_codes_are_decoded_two_at_a_time(case: str, instruction: str, compiled: dict[str, Compiled]) -> None:
    assert instruction in compiled[case].sass


def test_codes_are_looked_up_in_memory_once_for_all_terms(compiled: dict[str, Compiled]) -> None:
    operand = weight_operand("post8", "bfloat16")
    tile = untuned_tile(operand, 1)
    loop = main_loop(compiled["in three terms"].sass)
    gathered = [each for each in loop if opcode(each) == "LDGSTS" and bytes_of(each) == 8]
    codes = tile.columns * tile.depth // (32 * tile.warps)
    assert codes <= len(gathered) < 2 * codes


def test_float16_leaves_the_biases_of_floats_to_the_scales(compiled: dict[str, Compiled]) -> None:
    assert "HMUL2" not in compiled["minifloats"].sass


def test_older_architectures_take_their_own_instruction() -> None:
    wanted = asked("int4", "bfloat16", 0, 256)
    for made in compile_all([replace(wanted, architecture=name) for name in ("sm_80", "sm_89")]):
        assert "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" in made.ptx
        assert made.spills == 0


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(InvalidValueError) as error:
        compile_for(add_parts, {}, {}, arch="sm_70")
    assert str(error.value) == "architecture to compile for must be sm_80, sm_86, sm_89, sm_90a, not sm_70"


def test_arguments_left_out_are_named() -> None:
    with pytest.raises(InvalidValueError) as error:
        compile_for(add_parts, {"parts": "*fp32", "out": "*fp16", "count": "i32"}, {"BLOCK": 1024})
    assert str(error.value) == "arguments of add_parts must have a type or be constant, not neither: size"


def test_what_does_not_compile_is_one_line() -> None:
    signature = {"parts": "*fp32", "out": "*fp16", "count": "i32", "size": "i32"}
    with pytest.raises(BitatlasError, match=r"^kernel must compile, not fail: .*power of 2"):
        compile_for(add_parts, signature, {"BLOCK": 1000})
