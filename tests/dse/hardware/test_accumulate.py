"""Accumulators of layers, against the emulator's own dot products and convolutions of codes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import formats
from dse.hardware.accumulate import Accumulate, Operand
from formats import Accumulator, InvalidValueError

PAIRS = [("int8", "int4"), ("uint8", "int8"), ("e2m1", "ue3m2"), ("pot4", "int8"), ("post4", "int4"), ("post4", "post4")]
PAIRS += [("int4", "ulogsqrt2_4"), ("nf4", "int8"), ("ternary", "uint4"), ("binary", "int8"), ("int8", "e3m2")]
ACCUMULATORS = ["exact", "fixed:9", "fixed:9:wrap", "fixed:30"]

CASES = list(itertools.product(PAIRS, ACCUMULATORS))


def finite(name: str) -> list[int]:
    fmt = formats.scalar(name)
    return [code for code in range(2**fmt.bits) if np.isfinite(fmt.values[code])]


def carried(operand: Operand, codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(operand.tables[0][codes] if operand.plain else codes.astype(np.int64))


def joined(content: object) -> np.ndarray:
    return 128 * content[0] + 181 * content[1] if isinstance(content, tuple) else np.asarray(content)


def layer(kind: str, a: str, w: str, accumulator: str, codes: np.ndarray | None, **options: object) -> Accumulate:
    made = Accumulate(
        layer="l",
        kind=kind,
        activation=Operand(format=formats.scalar(a)),
        weight=Operand(format=formats.scalar(w)),
        accumulator=Accumulator.parse(accumulator),
        codes=codes,
        bias=None,
        bound=0,
        **options,
    )
    return made.bounded(7)


@pytest.mark.parametrize(("pair", "accumulator"), CASES)
def test_a_linear_layer_is_a_matrix_product_of_codes(pair: tuple[str, str], accumulator: str) -> None:
    w, a = pair
    rng = np.random.default_rng(0)
    weight, x = rng.choice(finite(w), (5, 7)), rng.choice(finite(a), (3, 4, 7))
    step = layer("linear", a, w, accumulator, weight)
    expected = formats.matmul(x.reshape(12, 7), a, weight.T, w, Accumulator.parse(accumulator)).to_integers()
    assert np.array_equal(step.run(carried(step.activation, x)).reshape(12, 5), joined(expected))


@pytest.mark.parametrize(("pair", "accumulator"), CASES)
def test_a_convolution_is_one_of_codes(pair: tuple[str, str], accumulator: str) -> None:
    w, a = pair
    rng = np.random.default_rng(1)
    weight, x = rng.choice(finite(w), (4, 2, 3, 3)), rng.choice(finite(a), (2, 4, 6, 5))
    step = layer("convolution", a, w, accumulator, weight, geometry=((2, 1), (1, 1), (1, 1)), groups=2)
    expected = formats.convolve2d(x, a, weight, w, Accumulator.parse(accumulator), stride=(2, 1), padding=1, groups=2).to_integers()
    assert np.array_equal(step.run(carried(step.activation, x)), joined(expected))


@pytest.mark.parametrize(("pair", "accumulator"), CASES)
def test_a_product_multiplies_two_computed_operands(pair: tuple[str, str], accumulator: str) -> None:
    w, a = pair
    rng = np.random.default_rng(2)
    x, y = rng.choice(finite(a), (2, 3, 4, 7)), rng.choice(finite(w), (2, 3, 7, 5))
    step = layer("product", a, w, accumulator, None)
    found = step.run(carried(step.activation, x), carried(step.weight, y)).numpy()
    for index in np.ndindex(2, 3):
        expected = formats.matmul(x[index], a, y[index], w, Accumulator.parse(accumulator)).to_integers()
        assert np.array_equal(found[index], joined(expected))


@pytest.mark.parametrize(("accumulator", "expected"), [("exact", 148), ("fixed:8", 127), ("fixed:8:wrap", 148 - 256)])
def test_the_bias_is_added_last(accumulator: str, expected: int) -> None:
    step = replace(layer("linear", "int8", "int8", accumulator, np.array([[12, 1]])), bias=np.array([40])).bounded(0)
    assert step.run(torch.tensor([[9, 0]])).tolist() == [[expected]]


def test_no_sum_is_beyond_the_bound() -> None:
    codes = np.array([[0x80, 0x80], [0x7F, 0x7F]])
    step = layer("linear", "int8", "int8", "exact", codes)
    assert step.bound == 2 * 128 * 128
    assert int(step.run(torch.tensor([[-128, -128]])).abs().max()) == step.bound


def test_sums_beyond_53_bits_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^exact sums must fit 54 bits, not need \d+ \(layer 'l'\)$"):
        layer("linear", "e4m10", "e4m10", "exact", np.array([[0x3FFF] * 16]))
    with pytest.raises(InvalidValueError, match=r"^values of e5m7 must span 31 places to be summed in 64 bits, not 37$"):
        layer("linear", "e5m7", "int8", "exact", np.array([[1]]))


@pytest.mark.parametrize("accumulator", ["fixed:65", "fixed:65:wrap", "fixed:200"])
def test_a_register_that_nothing_overflows_is_an_exact_one(accumulator: str) -> None:
    codes, x = np.array([[0x80, 0x7F]]), torch.tensor([[-128, 127]])
    assert torch.equal(
        layer("linear", "int8", "int8", accumulator, codes).run(x), layer("linear", "int8", "int8", "exact", codes).run(x)
    )


def test_saturation_over_one_axis_is_refused_unless_nothing_overflows() -> None:
    options = {"geometry": ((1,), (0,), (1,))}
    codes = np.full((1, 1, 3), 0x7F)
    message = (
        r"^accumulator of a convolution over other than two axes must not saturate, not be fixed:8; nearest: fixed:17, which "
        r"nothing overflows, or fixed:8:wrap \(layer 'l'\)$"
    )
    with pytest.raises(InvalidValueError, match=message):
        layer("convolution", "int8", "int8", "fixed:8", codes, **options)
    wide, wrapping = (layer("convolution", "int8", "int8", name, codes, **options) for name in ("fixed:17", "fixed:8:wrap"))
    x = torch.full((1, 1, 3), 127)
    assert wide.run(x).item() == 3 * 127 * 127
    assert wrapping.run(x).item() == (3 * 127 * 127 + 128) % 256 - 128
