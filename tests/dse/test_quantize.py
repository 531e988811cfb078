"""The quantized network against a slow one that quantizes operand by operand with nothing shared, kept or overwritten."""

import numpy as np
import pytest
import torch
from torch import fx

from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.calibrate import calibrate
from dse.data import Split
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.network import ROLES, Role, Slot, build
from dse.quantize import Preparation, StoredWeight
from formats import BitatlasError
from formats.quantizer import Granularity


class Slow(fx.Interpreter):
    """Runs the graph node by node and quantizes at every slot by the format's definition alone."""

    def __init__(self, preparation: Preparation, assignment: Assignment) -> None:
        super().__init__(preparation.network.graph_module)
        self.preparation, self.assignment = preparation, assignment

    def call_module(self, target: object, arguments: tuple[torch.Tensor, ...], options: object) -> torch.Tensor:  # type: ignore[override]
        role, number = str(target).removeprefix("_bitatlas_slots.").split("_")
        if role == "bias":
            return arguments[0]
        layer = self.preparation.network.layers[int(number)]
        quantizer = self.assignment.layers[layer.name].quantizer(role)  # type: ignore[arg-type]
        x = arguments[0].detach().numpy()
        if layer.weight is not None and role == "weight":
            rows = quantizer.granularity.to_rows(layer.weight)
            scales = quantizer.choice.scales(quantizer.format, rows)[:, np.newaxis]
            fmt = quantizer.format
            codes = fmt.encode(rows, scales)
            flat = (fmt.float32_values[codes] * scales).astype(np.float32)
            moved = quantizer.granularity.from_rows(flat, layer.weight.shape)
            return torch.from_numpy(np.ascontiguousarray(moved))
        sample = self.preparation.statistics[layer.name, role].sample  # type: ignore[index]
        scale = quantizer.scales(sample)[0]
        codes = quantizer.format.encode(np.ascontiguousarray(x) / scale)
        return torch.from_numpy((quantizer.format.float32_values[codes] * scale).astype(np.float32))


def slow_logits(preparation: Preparation, assignment: Assignment, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return Slow(preparation, assignment).run(torch.from_numpy(images)).numpy()


MIXES: list[tuple[str, str]] = [
    ("int8", "int8"),
    ("int4:tensor:absmax", "e2m1"),
    ("e3m2:group7:mse", "int4"),
    ("pot4", "post4"),
    ("ternary:channel:absmax", "e4m3:tensor:percentile99.9"),
    ("binary", "int8_narrow"),
]


@pytest.mark.parametrize(("weight", "activation"), MIXES)
@pytest.mark.parametrize("model", ["resnet8", "vit"])
def test_a_quantized_network_equals_the_slow_one(model: str, weight: str, activation: str, request: pytest.FixtureRequest) -> None:
    experiment: Experiment = request.getfixturevalue(model)
    preparation = experiment.preparation
    assignment = preparation.uniform("m", "d", parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation"))
    images = experiment.split("validation").images[:40]
    expected = slow_logits(preparation, assignment, images)
    # the slow one's convolutions may sum in another order, and a value at a rounding boundary then goes the other way
    difference = np.abs(quantized_logits(preparation, assignment, images) - expected).max(axis=1)
    assert np.median(difference) < 1e-4
    assert (difference > 1e-3 * np.abs(expected).max()).mean() <= 0.2


def test_a_residual_input_is_not_overwritten(resnet8: Experiment) -> None:
    """Block 1 adds its own input to its output: quantizing that input must not change what is added."""
    network = resnet8.preparation.network
    assert not network.layer("block1.conv1").operands["activation"].overwritable
    assert network.layer("block1.conv2").operands["activation"].overwritable
    assert network.layer("block2.conv1").operands["activation"] == network.layer("block2.shortcut.0").operands["activation"]


def test_operands_that_are_never_negative_get_unsigned_formats(resnet8: Experiment, vit: Experiment) -> None:
    convolutional = resnet8.preparation.uniform("m", "d", parse_quantizer("int4", "weight"), parse_quantizer("int4", "activation"))
    assert {str(layer.activation) for layer in convolutional.layers.values()} == {"uint4:tensor:mse"}
    assert {str(layer.weight) for layer in convolutional.layers.values()} == {"int4:channel:mse"}
    layers = vit.preparation.uniform("m", "d", parse_quantizer("e2m1", "weight"), parse_quantizer("post4", "activation")).layers
    assert str(layers["blocks.0.attention.mix"].activation) == "ulogsqrt2_4:tensor:mse"  # after the softmax
    assert str(layers["blocks.0.attention.mix"].weight) == "e2m1:tensor:mse"  # the values: an activation of either sign
    assert str(layers["blocks.0.attention.query"].activation) == "post4:tensor:mse"


def test_slots_are_empty_again_after_use(resnet8: Experiment) -> None:
    network = resnet8.preparation.network
    before = network.logits(resnet8.split("validation").images)
    assignment = resnet8.preparation.uniform("m", "d", parse_quantizer("ternary", "weight"), parse_quantizer("int4", "activation"))
    quantized_logits(resnet8.preparation, assignment, resnet8.split("validation").images)
    assert all(module.filling is None for module in network.graph_module.modules() if isinstance(module, Slot))
    np.testing.assert_array_equal(network.logits(resnet8.split("validation").images), before)


def test_logits_do_not_depend_on_the_number_of_threads(vit: Experiment) -> None:
    preparation = vit.preparation
    assignment = preparation.uniform("m", "d", parse_quantizer("int4", "weight"), parse_quantizer("e2m1", "activation"))
    images = vit.split("train").images
    with preparation.network.filled(preparation.fillings(assignment)):
        one = preparation.network.logits(images, 128, workers=1)
        np.testing.assert_array_equal(preparation.network.logits(images, 128, workers=3), one)


def test_a_weight_is_quantized_once_for_each_quantizer(resnet8: Experiment) -> None:
    preparation = resnet8.preparation

    def stored(weight: str) -> StoredWeight:
        quantizer = parse_quantizer(weight, "weight")
        chosen = LayerAssignment(weight=quantizer, activation=parse_quantizer("int8", "activation"))
        return preparation.stored_weights({"stem": chosen})["stem"]

    assert stored("e2m1") is stored("e2m1")
    assert stored("e2m1:tensor") is not stored("e2m1")


def test_statistics_hold_the_exact_range_and_a_sample_with_its_ends(resnet8: Experiment) -> None:
    images = resnet8.split("calibration").images
    found = resnet8.preparation.statistics["stem", "activation"]
    assert (found.minimum, found.maximum) == (float(images.min()), float(images.max()))
    assert {found.minimum, found.maximum} <= set(found.sample.tolist())
    assert found.never_negative


def test_calibration_refuses_a_network_that_overflows() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[0].weight.data[:] = 3e38
    split = Split(images=np.full((4, 2), 3e38, np.float32), labels=np.zeros(4, np.int64))
    with pytest.raises(
        BitatlasError, match=r"^operands must be finite in the float network, not NaN or Inf in 8 values \(layer '1'\)$"
    ):
        calibrate(build("x", module, (2,)), split)


def test_a_weight_of_a_plain_product_has_its_channels_last() -> None:
    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = torch.nn.Parameter(torch.tensor([[1.0, 100.0], [2.0, -300.0], [-3.0, 200.0]]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.mixing

    network = build("x", Product(), (3,))
    split = Split(images=np.eye(3, dtype=np.float32), labels=np.zeros(3, np.int64))
    preparation = Preparation(network=network, statistics=calibrate(network, split), calibration=split)
    chosen = LayerAssignment(
        weight=parse_quantizer("int3:channel:absmax", "weight"), activation=parse_quantizer("uint8", "activation")
    )
    assignment = Assignment(model="x", data="y", layers={"mixing": chosen})
    expected = np.float32([[1, 100], [2, -300], [-3, 200]])
    np.testing.assert_allclose(quantized_logits(preparation, assignment, split.images), expected, rtol=1e-2)
    assert chosen.weight.granularity == Granularity(name="channel")


def test_roles_are_both_filled(resnet8: Experiment) -> None:
    assignment = resnet8.preparation.uniform("m", "d", parse_quantizer("int4", "weight"), parse_quantizer("int4", "activation"))
    roles: list[Role] = list(ROLES)
    assert set(resnet8.preparation.fillings(assignment)) == {
        (layer.name, role) for layer in resnet8.preparation.network.layers for role in roles
    }
