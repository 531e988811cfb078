"""Every format as a weight and as an activation: what onnxruntime decodes is what the emulator decodes, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import formats
from dse.export import codebook, qdq, types
from dse.export.lowering import Lowering
from dse.ptq.step import LowRank
from formats import Quantizer
from formats.boundaries import boundaries
from formats.registry import FAMILIES

GRANULARITIES = ("tensor", "channel", "group7", "group32", "block2x4")
SHAPES = ((5, 3, 2, 3), (5, 18))
BOTH = (qdq.LOWERING, codebook.LOWERING)
ZERO_POINTS = ["uint8_zero128", "uint8_zero10", "int8_zero-1", "uint3_zero3", "uint2_zero1"]
SMALL = sorted(
    {
        name
        for family in FAMILIES
        for name in (*family.examples, *ZERO_POINTS)
        if isinstance(fmt := formats.get(name), formats.Format) and fmt.bits <= 8
    }
)


def weight(shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    values.reshape(-1)[::17] = 0
    return values


def expressible(name: str, target: Lowering) -> bool:
    return target is codebook.LOWERING or types.holding(formats.get(name)) is not None


def names_of(case: object) -> str:
    return case.name if isinstance(case, Lowering) else str(case)


def test_there_are_formats_of_every_family_to_look_at() -> None:
    assert len(SMALL) > 150
    assert {"int8", "uint1", "e2m1", "ue4m4", "post4", "apot3", "nf4", "float8_e4m3fn", "lloydmax3", "binary"} <= set(SMALL)


@pytest.mark.parametrize(("name", "target"), [(n, t) for n in SMALL for t in BOTH if expressible(n, t)], ids=names_of)
def test_a_weight_is_stored_exactly_whatever_shares_a_scale(
    name: str, target: Lowering, start: Callable[..., Any], make_model: Any, run_model: Any, same_bits: Any
) -> None:
    operands, expected = start(target), {}
    for granularity in GRANULARITIES:
        for shape in SHAPES:
            encoded = Quantizer.parse(f"{name}:{granularity}:absmax").encode(weight(shape))
            output = f"{granularity}_{len(shape)}"
            operands.weight(output, encoded)
            expected[output] = encoded.decode()
    model = make_model(operands.parts, {output: values.ndim for output, values in expected.items()})
    found = run_model(model, np.zeros(1, np.float32))
    for output, values in expected.items():
        assert same_bits(found[output], values), output


@pytest.mark.parametrize(
    ("name", "target"),
    [(n, t) for n in SMALL for t in BOTH if t is codebook.LOWERING or types.rounding(formats.scalar(n)) is not None],
    ids=names_of,
)
def test_an_activation_is_rounded_as_the_emulator_rounds(
    name: str, target: Lowering, start: Callable[..., Any], make_model: Any, run_model: Any, same_bits: Any
) -> None:
    """At every boundary between levels and one float32 to either side, and over numbers of all magnitudes."""
    fmt = formats.get(name)
    generator = np.random.default_rng(0)
    operands, expected = start(target), {}
    scales = (1.0, 0.3, 0.007)
    random = generator.normal(size=2000) * np.exp(generator.normal(size=2000) * 4)
    x = np.concatenate([random.astype(np.float32), np.float32([0.0, -0.0, 1e30, -1e30, np.inf, -np.inf])])
    for scale in scales:
        edges = boundaries(fmt, "nearest_even") * np.float32(scale)
        x = np.concatenate([x, edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf))])
    for scale in scales:
        operands.activation(f"at_{scale}", fmt, scale)
        expected[f"at_{scale}"] = fmt.quantize(x, scale)
    found = run_model(make_model(operands.parts, dict.fromkeys(expected, 1)), x)
    for output, values in expected.items():
        assert same_bits(found[output], values), output


@pytest.mark.parametrize("target", BOTH, ids=names_of)
@pytest.mark.parametrize("name", ["int12", "int16", "uint12", "uint16"])
def test_wide_integers_are_exact_too(
    name: str, target: Lowering, start: Callable[..., Any], make_model: Any, run_model: Any, same_bits: Any
) -> None:
    fmt, x = formats.get(name), weight((4000,)) * 3
    operands, encoded = start(target), Quantizer.parse(f"{name}:channel:absmax").encode(weight(SHAPES[0]))
    operands.weight("w", encoded)
    operands.activation("a", fmt, 0.001)
    found = run_model(make_model(operands.parts, {"w": 4, "a": 1}), x)
    assert same_bits(found["w"], encoded.decode())
    assert same_bits(found["a"], fmt.quantize(x, 0.001))


@pytest.mark.parametrize("name", ["e5m10", "float16", "bfloat16"])
def test_wide_floats_are_decoded_from_tables(
    name: str, start: Callable[..., Any], make_model: Any, run_model: Any, same_bits: Any
) -> None:
    operands, encoded = start(codebook.LOWERING), Quantizer.parse(f"{name}:channel:absmax").encode(weight(SHAPES[0]))
    operands.weight("w", encoded)
    found = run_model(make_model(operands.parts, {"w": 4}), np.zeros(1, np.float32))
    assert same_bits(found["w"], encoded.decode())


METHODS = (
    *("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "nvfp4"),
    *(f"{n}:{g}" for n in ("tritplanes", "twinlog5", "lloydfit3", "tanq4", "llmfp6", "pcdvq_d6_m2") for g in GRANULARITIES),
    "nf4:group7:absmax:double",
    "int4:block2x4:mse:e8m0",
    "post4:channel:lsq:float8_e4m3fn",
    "ternary:channel:twn",
)


@pytest.mark.parametrize("text", METHODS)
def test_block_formats_and_methods_are_decoded_by_functions_named_after_them(
    text: str, start: Callable[..., Any], make_model: Any, run_model: Any, same_bits: Any
) -> None:
    operands, expected = start(codebook.LOWERING), {}
    for number, shape in enumerate([*SHAPES, (5, 9, 2, 5), (3, 64)]):
        values = weight(shape) * np.float32(10.0) ** (3 * number - 5)
        encoded = Quantizer.parse(text).encode(values)
        operands.weight(f"w{number}", encoded)
        expected[f"w{number}"] = encoded.decode()
    found = run_model(make_model(operands.parts, {output: v.ndim for output, v in expected.items()}), np.zeros(1, np.float32))
    for output, values in expected.items():
        assert same_bits(found[output], values), output
    name = text.split(":")[0]
    if not name.startswith("llmfp"):  # which writes the codes of the minifloat it finds
        assert all(function.startswith(f"decode_{name}") for function in operands.parts.functions)
    assert {(f.domain, operands.parts.opsets[f.domain]) for f in operands.parts.functions.values()} == {("bitatlas.formats", 1)}


@pytest.mark.parametrize("target", BOTH, ids=names_of)
def test_factors_beside_codes_are_stored_as_codes(
    target: Lowering, start: Callable[..., Any], make_model: Any, run_model: Any
) -> None:
    values = weight(SHAPES[0])
    channel = Quantizer.parse("int8:channel:mse")
    low_rank = LowRank(left=channel.encode(weight((5, 2))), right=channel.encode(weight((2, 18))))
    encoded = Quantizer.parse("int4:channel").encode(values)
    operands = start(target)
    operands.weight("w", encoded, low_rank)
    found = run_model(make_model(operands.parts, {"w": 4}), np.zeros(1, np.float32))["w"]
    np.testing.assert_allclose(found, encoded.decode() + low_rank.values().reshape(SHAPES[0]), rtol=1e-5, atol=1e-6)
    stored = {tensor.name: tensor for tensor in operands.parts.initializers}
    assert len(stored["layer_w/weight/left/codes"].raw_data) == 10
