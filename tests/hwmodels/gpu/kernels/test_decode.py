"""Every scalar format of 2 to 8 bits: what registers decode is what the format says, bit for bit."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import formats
from formats import pack
from formats.errors import InvalidValueError
from formats.registry import FAMILIES, scalar
from hwmodels.gpu.kernels.code_tile import spread, weight_tile
from hwmodels.gpu.kernels.decode_arguments import factor, paired_arguments
from hwmodels.gpu.kernels.decoding import Carrier, Decoding, decoding
from hwmodels.gpu.kernels.operand_type import exact_in
from hwmodels.gpu.kernels.packing import FILLED

TYPES: dict[Carrier, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def every_format() -> list[formats.Format]:
    names = [name for family in FAMILIES for name in family.examples]
    names += [f"int{bits}_zero{zero}" for bits, zero in ((2, -2), (4, 3), (8, -128), (8, 127))]
    names += [f"uint{bits}_zero{zero}" for bits, zero in ((2, 3), (4, 8), (8, 0), (8, 255))]
    found = [formats.get(name) for name in dict.fromkeys(names)]
    return [fmt for fmt in found if isinstance(fmt, formats.Format) and 2 <= fmt.bits <= 8]


@triton.jit
def decode_all(words, table, out, COUNT: tl.constexpr, KIND: tl.constexpr, BITS: tl.constexpr, CARRIER: tl.constexpr,
               MANTISSA: tl.constexpr, BIAS: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr,
               SIGNED: tl.constexpr, PAIRED: tl.constexpr):  # fmt: skip
    row = words + tl.full((1, 1), 0, tl.int32)
    values = weight_tile(row, 0, table, COUNT, KIND, BITS, CARRIER, MANTISSA, BIAS, P0, P1, P2, SIGNED, PAIRED, False)
    tl.store(out + spread(tl.arange(0, COUNT)[None, :], BITS, 2), values)


def decoded(found: Decoding, carrier: Carrier, *, paired: bool) -> np.ndarray:
    """What is decoded from every code, packed in order."""
    packed = np.zeros(FILLED + 16, np.uint8)
    every = pack(np.resize(np.arange(2**found.bits), FILLED), found.bits)
    packed[: every.size] = every
    out = torch.empty(FILLED, dtype=TYPES[carrier])
    table = torch.from_numpy(found.values.copy()).to(TYPES[carrier])
    given = paired_arguments(found, carrier, paired=paired)
    assert given["PAIRED"] == paired
    decode_all[(1,)](torch.from_numpy(packed.view(np.int32)), table, out, FILLED, **given)
    return out.float().numpy()[: 2**found.bits] * np.float32(factor(given))


@pytest.mark.parametrize("fmt", every_format(), ids=lambda fmt: fmt.name)
def test_every_code_of_every_format_decodes_to_its_value_in_every_type_that_has_it(fmt: formats.Format) -> None:
    found = decoding(fmt)
    used = [code for code in range(2**fmt.bits) if code not in fmt.unused and code not in fmt.nan]
    carriers = [carrier for carrier in TYPES if exact_in(fmt, carrier)]
    assert "float32" in carriers
    for carrier in carriers:
        for paired in {False, found.in_halves(carrier)}:
            values = decoded(found, carrier, paired=paired)[used]
            assert values.tobytes() == fmt.float32_values[used].tobytes(), (carrier, paired)


@pytest.mark.parametrize(
    ("name", "carriers"),
    [
        ("ternary", ["float16", "bfloat16"]),
        ("int4", ["float16", "bfloat16"]),
        ("int8", ["float16"]),  # bfloat16 has too few places
        ("e2m1", ["float16", "bfloat16"]),
        ("float8_e4m3fn", ["float16", "bfloat16"]),
        ("float8_e5m2", ["float16"]),  # whose infinities are those of float16
        ("pot4", ["float16", "bfloat16"]),
        ("pot6", ["bfloat16"]),
        ("nf4", []),
    ],
)
def test_codes_are_decoded_two_at_a_time_where_16_bits_are_enough(name: str, carriers: list[str]) -> None:
    found = decoding(scalar(name))
    assert [carrier for carrier in TYPES if found.in_halves(carrier)] == carriers


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ternary", "planes"),
        ("int2_narrow", "planes"),
        ("int4", "integer"),
        ("uint8_zero128", "integer"),
        ("e2m1", "floating"),
        ("ue4m3", "floating"),
        ("float8_e5m2", "floating"),
        ("pot4", "power"),
        ("ulog2_8", "table"),  # its smallest powers are subnormal, or zero, in float32
        ("ulog2_4", "power"),
        ("post4", "table"),
        ("apot4", "table"),
        ("nf4", "table"),
        ("lloydmax3", "table"),
    ],
)
def test_the_definition_settles_how_codes_are_decoded(name: str, kind: str) -> None:
    assert decoding(scalar(name)).kind == kind


@pytest.mark.parametrize("name", ["binary", "int9", "float16"])
def test_other_widths_are_refused(name: str) -> None:
    fmt = scalar(name)
    with pytest.raises(InvalidValueError) as error:
        decoding(fmt)
    assert str(error.value) == f"bits of a format decoded in registers must be 2 to 8, not {fmt.bits}: {name}"
