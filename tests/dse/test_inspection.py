"""The error report against plain numpy on a network of one layer, and what it says of a real one."""

import math

import numpy as np
import pytest
import torch

from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.calibrate import calibrate
from dse.cli import main
from dse.data import Split
from dse.experiment import Experiment
from dse.inspection import inspect, table
from dse.network import build
from dse.quantize import Preparation
from formats import InvalidValueError


def decibels(exact: np.ndarray, quantized: np.ndarray) -> float:
    x, y = exact.astype(np.float64), quantized.astype(np.float64)
    return float(10 * np.log10((x**2).sum() / ((y - x) ** 2).sum()))


def test_a_single_layer_by_hand() -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(300, 5)).astype(np.float32)
    module = torch.nn.Sequential(torch.nn.Linear(5, 3))
    network = build("x", module, (5,))
    split = Split(images=images, labels=np.zeros(300, np.int64))
    preparation = Preparation(network=network, statistics=calibrate(network, split), calibration=split)
    weight, activation = parse_quantizer("int3:channel:mse", "weight"), parse_quantizer("e2m1:tensor:mse", "activation")
    chosen = LayerAssignment(weight=weight, activation=activation)
    (error,) = inspect(preparation, Assignment(model="x", data="y", layers={"0": chosen}), images)
    w, bias = (parameter.detach().numpy() for parameter in (module[0].weight, module[0].bias))
    fmt, scale = activation.fit(preparation.statistics["0", "activation"].sample)
    quantized_w, quantized_x = weight.encode(w).decode(), fmt.quantize(images, scale)
    assert error.weight_sqnr == pytest.approx(decibels(w, quantized_w))
    assert error.activation_sqnr == pytest.approx(decibels(images, quantized_x))
    assert error.output_sqnr == pytest.approx(decibels(images @ w.T + bias, quantized_x @ quantized_w.T + bias), rel=1e-4)
    assert error.network_sqnr == pytest.approx(error.output_sqnr)
    assert error.weight_zeros == (quantized_w == 0).mean()
    assert error.activation_zeros == (quantized_x == 0).mean()
    assert error.activation_clipped == (np.abs(images / np.float32(scale)) > 6).mean() > 0
    scales = weight.encode(w).scales[:, np.newaxis]
    assert error.weight_clipped == ((w / scales < -4) | (w / scales > 3)).mean()


def test_a_format_that_loses_nothing_has_no_noise_and_blocks_have_no_clipping() -> None:
    module = torch.nn.Linear(4, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 4.0], [0.0, 5.0, -6.0, 7.0]]))
    images = np.arange(-8, 8, dtype=np.float32).reshape(4, 4)
    network = build("x", torch.nn.Sequential(module), (4,))
    split = Split(images=images, labels=np.zeros(4, np.int64))
    preparation = Preparation(network=network, statistics=calibrate(network, split), calibration=split)
    exact = LayerAssignment(
        weight=parse_quantizer("int4:tensor:absmax", "weight"), activation=parse_quantizer("int8:tensor:absmax", "activation")
    )
    blocks = LayerAssignment(weight=parse_quantizer("mxfp4", "weight"), activation=parse_quantizer("int8", "activation"))
    (error,) = inspect(preparation, Assignment(model="x", data="y", layers={"0": exact}), images)
    assert error.weight_sqnr == math.inf
    assert error.weight_zeros == 1 / 8
    (error,) = inspect(preparation, Assignment(model="x", data="y", layers={"0": blocks}), images)
    assert math.isnan(error.weight_clipped)


@pytest.mark.parametrize("model", ["resnet8", "vit"])
def test_wider_formats_lose_less_in_every_layer(model: str, request: pytest.FixtureRequest) -> None:
    experiment: Experiment = request.getfixturevalue(model)
    images = experiment.split("validation").images[:140]

    def found(weight: str, activation: str) -> list[float]:
        quantizers = parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
        assignment = experiment.preparation.uniform("m", "d", *quantizers)
        errors = inspect(experiment.preparation, assignment, images)
        assert list(table(errors, assignment)["layer"]) == [layer.name for layer in experiment.preparation.network.layers]
        return [ratio for error in errors for ratio in (error.weight_sqnr, error.activation_sqnr, error.network_sqnr)]

    assert all(fine > coarse for fine, coarse in zip(found("int8", "int8"), found("int4", "int4"), strict=True))


def test_no_samples_are_refused(resnet8: Experiment) -> None:
    assignment = resnet8.preparation.uniform("m", "d", parse_quantizer("int4", "weight"), parse_quantizer("int4", "activation"))
    with pytest.raises(InvalidValueError, match=r"^samples to inspect must be at least one, not none$"):
        inspect(resnet8.preparation, assignment, np.empty((0, 1, 8, 8), np.float32))


def test_the_command_leaves_a_table_and_a_figure(tmp_path: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inspect", "--model", "resnet8", "--weights", "int4", "--activations", "int4", "--samples", "40"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "block3.conv2" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"inspection.csv", "inspection.png"}  # type: ignore[attr-defined]
    assert main([*arguments[:-1], "0"]) == 2
    assert capsys.readouterr().err == "dse: --samples must be at least 1, not 0\n"
