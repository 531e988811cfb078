"""Programs of whole networks: equal to fake quantization where scales are powers of two, near it elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dse.evaluate import quantized_logits
from dse.hardware.compiling import compile_program
from dse.hardware.steps import Rescale
from dse.quantize import Preparation
from formats import BitatlasError

IMAGES = np.random.default_rng(9).normal(0, 1, (40, 3, 8, 8)).astype(np.float32)
TOKENS = np.random.default_rng(8).normal(0, 1, (40, 1, 8, 8)).astype(np.float32)
SHIFTS = [
    ("int4", "int8"),
    ("int8", "int4"),
    ("ternary", "int6"),
    ("e2m1", "e3m2"),
    ("pot4", "int5"),
    ("int3_narrow", "pot5"),
    ("binary", "int8"),
]


@pytest.mark.parametrize(("weight", "activation"), SHIFTS)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_powers_of_two_agree_with_fake_quantization_bit_for_bit(
    residual: Preparation, uniform, weight: str, activation: str, granularity: str
) -> None:
    scaling = f"{weight}:{granularity}:absmax:power_of_two", f"{activation}:tensor:absmax:power_of_two"
    assignment = uniform(residual, *scaling)
    program = compile_program(residual, assignment)
    assert np.array_equal(program.logits(IMAGES), quantized_logits(residual, assignment, IMAGES))
    assert all(step.even for step in (each.step for each in program.instructions) if isinstance(step, Rescale))


class Pooled(nn.Module):
    """A mean over 9 by 9 pixels, and another over 3 by 3."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(torch.relu(self.first(x)), 3)
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


@pytest.mark.parametrize(("weight", "activation"), SHIFTS)
def test_means_over_any_number_are_divided_exactly(prepare, uniform, weight: str, activation: str) -> None:
    preparation = prepare(Pooled(), (3, 9, 9))
    scaling = f"{weight}:channel:mse:power_of_two", f"{activation}:tensor:mse:power_of_two"
    assignment = uniform(preparation, *scaling)
    images = np.random.default_rng(5).normal(0, 1, (200, 3, 9, 9)).astype(np.float32)
    found = compile_program(preparation, assignment).logits(images)
    assert np.array_equal(found, quantized_logits(preparation, assignment, images))


@pytest.mark.parametrize(("weight", "activation"), [*SHIFTS, ("nf4", "int8"), ("int8", "uint8")])
def test_other_scales_differ_by_single_codes_now_and_then(residual: Preparation, uniform, weight: str, activation: str) -> None:
    assignment = uniform(residual, weight, activation)
    found, fake = compile_program(residual, assignment).logits(IMAGES), quantized_logits(residual, assignment, IMAGES)
    assert np.median(np.abs(found - fake)) <= 1e-5 * np.abs(fake).max()


def test_sums_of_roots_are_near_theirs(residual: Preparation, uniform) -> None:
    assignment = uniform(residual, "post4", "int8")
    found, fake = compile_program(residual, assignment).logits(IMAGES), quantized_logits(residual, assignment, IMAGES)
    assert np.abs(found - fake).max() < 0.05 * np.abs(fake).max()  # 181 / 128 is the root of two but for 1e-4


def test_a_transformer_in_whole_numbers_is_near_the_float_one(attention: Preparation, uniform) -> None:
    assignment = uniform(attention, "int16:channel:absmax", "int12")
    found, real = compile_program(attention, assignment).logits(TOKENS), attention.network.logits(TOKENS)
    assert np.abs(found - real).max() < 0.01 * np.abs(real).max()


def test_the_result_does_not_depend_on_batches_or_threads(residual: Preparation, uniform) -> None:
    program = compile_program(residual, uniform(residual, "int4", "int8"))
    one_by_one = np.concatenate([program.run(IMAGES[i : i + 1], workers=1) for i in range(len(IMAGES))])
    assert np.array_equal(one_by_one, program.run(IMAGES, workers=2))


def test_a_narrow_accumulator_makes_itself_felt(residual: Preparation, uniform) -> None:
    wide, narrow, wrapping = (
        compile_program(residual, uniform(residual, "int8", "int8", accumulator))
        for accumulator in ("fixed:32", "fixed:12", "fixed:12:wrap")
    )
    exact = compile_program(residual, uniform(residual, "int8", "int8"))
    assert np.array_equal(exact.run(IMAGES), wide.run(IMAGES))
    assert not np.array_equal(exact.logits(IMAGES), narrow.logits(IMAGES))
    assert not np.array_equal(narrow.logits(IMAGES), wrapping.logits(IMAGES))


def test_biases_are_rounded_to_the_accumulators_lsb_in_both_arithmetics(residual: Preparation, uniform) -> None:
    assignment = uniform(residual, "int4", "int4")
    fillings = residual.fillings(assignment)
    for layer in residual.network.layers:
        bias, stored, activation = (fillings[layer.name, place] for place in ("bias", "weight", "activation"))
        unit = stored.encoded.scales.astype(np.float64) * np.float64(np.float32(activation.scale))
        assert np.array_equal(bias.numbers, np.round(residual.network.bias(layer.name) / unit))
        assert np.array_equal(bias.values.numpy(), (bias.numbers * unit).astype(np.float32))


class Functions(nn.Module):
    """One function between two layers."""

    def __init__(self, function: object) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.function, self.last = nn.Linear(6, 8), function, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.function(self.first(x) * 4))


FUNCTIONS = {
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "hardswish": nn.Hardswish(),
    "softmax": nn.Softmax(-1),
    "layer norm": nn.LayerNorm(8),
    "negated": lambda x: 1 - x,
    "product": lambda x: x * torch.relu(x),
    "quotient": lambda x: x / 3 - 0.1,
    "clamped": lambda x: x.clamp(min=-0.3),
    "joined": lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
    "picked": lambda x: torch.stack([x[:, i] for i in (1, 0, 3, 2, 5, 4, 7, 6)], 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_between_layers_are_those_of_torch_to_four_places(prepare, uniform, name: str) -> None:
    preparation = prepare(Functions(FUNCTIONS[name]), (6,))
    x = preparation.calibration.images  # nothing saturates
    assignment = uniform(preparation, "int16:channel:absmax", "int16:tensor:absmax")
    found, real = compile_program(preparation, assignment).logits(x), preparation.network.logits(x)
    assert np.abs(found - real).max() < 5e-4 * np.abs(real).max()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nn.Softplus(), r"^operator must have a whole-number form, not be aten.softplus.default \(softplus\); it runs in float"),
        (lambda x: x / (x + 9), r"^divisor must be stored in whole-number arithmetic, not computed \(div\)$"),
        (nn.ELU(0.5), r"^function must be the standard one in whole-number arithmetic, not with options \(elu\)$"),
    ],
)
def test_operators_without_a_whole_number_form_are_named(prepare, uniform, function: object, message: str) -> None:
    preparation = prepare(Functions(function), (6,))
    with pytest.raises(BitatlasError, match=message):
        compile_program(preparation, uniform(preparation, "int8", "int8"))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("int4:group4:absmax", r"not int4:group4:absmax, for sums of whole numbers \(layer 'stem'\); nearest: FORMAT:channel:mse$"),
        ("mxfp4", r"not mxfp4:block:absmax, for sums of whole numbers \(layer 'stem'\); nearest: FORMAT:channel:mse$"),
    ],
)
def test_weights_whose_products_have_several_units_are_refused(residual: Preparation, uniform, weight: str, message: str) -> None:
    with pytest.raises(BitatlasError, match="^weight must have scales by tensor or channel, " + message):
        compile_program(residual, uniform(residual, weight, "int8"))


def test_factors_beside_the_codes_are_refused(residual: Preparation, uniform) -> None:
    assignment = uniform(residual, "int4", "int8")
    layers = {name: replace(layer, steps=("lorc",)) for name, layer in assignment.layers.items()}
    with pytest.raises(BitatlasError, match=r"not have factors beside them by lorc, for sums of whole numbers \(layer 'stem'\)$"):
        compile_program(residual, replace(assignment, layers=layers))


def test_an_input_that_something_else_reads_first_is_refused(prepare, uniform) -> None:
    preparation = prepare(nn.Sequential(nn.ReLU(), nn.Linear(6, 2)), (6,))
    with pytest.raises(BitatlasError, match=r"^input must be quantized before anything else reads it, not by aten.relu.default"):
        compile_program(preparation, uniform(preparation, "int8", "int8"))
