"""Torch's own attention puts tokens before samples and folds heads into samples: steps look at it as at anything else."""

import numpy as np
import pytest
import torch

from dse.assignment import Assignment, parse_quantizer
from dse.calibrate import calibrate
from dse.data import Split
from dse.inspection import inspect
from dse.network import build
from dse.ptq import steps
from dse.ptq.capture import operands, samples_first
from dse.quantize import Preparation
from formats import InvalidValueError

IMAGES = np.random.default_rng(0).normal(size=(150, 5, 8)).astype(np.float32)


class Attention(torch.nn.Module):
    def __init__(self, apart: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = torch.nn.Linear(8, apart or 8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True, kdim=apart, vdim=apart, bias=not apart)
        self.classifier = torch.nn.Linear(8, 3)
        self.apart = apart

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keys = self.project(x) if self.apart else x
        found: torch.Tensor = self.classifier(x + self.attention(x, keys, keys)[0]).mean(dim=1)
        return found


@pytest.fixture(params=[None, 4], ids=["together", "apart"])
def preparation(request: pytest.FixtureRequest) -> Preparation:
    network = build("attention", Attention(request.param).eval(), (5, 8))
    split = Split(images=IMAGES, labels=np.zeros(len(IMAGES), np.int64))
    return Preparation(network=network, statistics=calibrate(network, split), calibration=split)


def test_operands_come_sample_by_sample(preparation: Preparation) -> None:
    names = [layer.name for layer in preparation.network.layers if layer.weight is not None]
    found = operands(preparation.network, names, IMAGES)
    assert {len(operand) for operand in found.values()} == {len(IMAGES)}
    first = next(name for name in names if "attention" in name and found[name].size == IMAGES.size)
    np.testing.assert_array_equal(found[first].reshape(IMAGES.shape), IMAGES)


@pytest.mark.parametrize("name", ["smooth", "awq", "equalize", "rotate", "rotate(kind=klt)"])
def test_network_steps_leave_the_function_as_it_is(preparation: Preparation, name: str) -> None:
    exact = preparation.network.logits(IMAGES)
    prepared = preparation.after(steps.parse_row(name, "network"))
    assert prepared.network.digest != preparation.network.digest
    np.testing.assert_allclose(prepared.network.logits(IMAGES), exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("row", ["gptq", "round(iterations=20)", "lorc"])
def test_layer_steps_lower_the_error_of_the_layers(preparation: Preparation, row: str) -> None:
    weight, activation = parse_quantizer("int3", "weight"), parse_quantizer("int8", "activation")
    stored = [layer.name for layer in preparation.network.layers if layer.weight is not None]

    def decibels(texts: tuple[str, ...]) -> float:
        layers = {layer.name: preparation.resolve(layer, weight, activation, texts) for layer in preparation.network.layers}
        errors = inspect(preparation, Assignment(model="m", data="d", layers=layers), IMAGES)
        return float(np.mean([error.output_sqnr for error in errors if error.layer in stored]))

    assert decibels(steps.parse_row(row, "layer")) > decibels(())


def test_samples_are_found_wherever_they_stand() -> None:
    x = np.arange(4 * 2 * 3 * 5, dtype=np.float32).reshape(4, 2, 3, 5)
    np.testing.assert_array_equal(samples_first(x.reshape(8, 3, 5), (2, 3, 5), 4), x)
    np.testing.assert_array_equal(samples_first(np.moveaxis(x[:, :1], 0, 1), (1, 1, 3, 5), 4)[:, 0], x[:, :1])
    np.testing.assert_array_equal(samples_first(x, (1, 2, 3, 5), 4), x)
    with pytest.raises(
        InvalidValueError, match=r"operand must have an axis for the samples, not go from \(2, 3\) to \(7, 3\) with 4"
    ):
        samples_first(np.zeros((7, 3), np.float32), (2, 3), 4)
