"""Small networks made on the spot, ready to be quantized."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dse.assignment import Assignment, parse_quantizer
from dse.data import Dataset
from dse.experiment import Experiment, prepare
from dse.models.loading import Subject


class Residual(nn.Module):
    """A convolution beside a shortcut that keeps more digits than the convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.classifier = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        logits: Tensor = self.classifier(torch.relu(self.second(y) + y).mean(dim=(2, 3)))
        return logits


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.Linear(16, 10))


def cnn() -> nn.Module:
    """Pools of both kinds, strides, a depthwise convolution, and a dense layer on a flattened image."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 8, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def pooled() -> nn.Module:
    """An average over nine pixels, which no power of two divides."""
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))


def finn_cnn() -> nn.Module:
    """What FINN has hardware for: a quantizer behind every layer's ReLU, pools of the largest alone, a depthwise convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "without biases": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 12, bias=False), nn.ReLU(), nn.Linear(12, 10, bias=False)),
    "mlp": mlp,
    "cnn": cnn,
    "pooled": pooled,
    "residual": Residual,
    "finn_cnn": finn_cnn,
}


@pytest.fixture(scope="session")
def make_experiment(digits: Dataset, resnet8: Experiment) -> Callable[[str], Experiment]:
    """Return the small network of a name with random weights, or the zoo's resnet8, calibrated on the digits."""
    made = {"resnet8": resnet8}

    def make(name: str) -> Experiment:
        if name not in made:
            torch.manual_seed(0)
            made[name] = prepare(Subject(model=name, module=NETWORKS[name]().eval(), dataset=digits))
        return made[name]

    return make


@pytest.fixture(scope="session")
def uniform() -> Callable[..., Assignment]:
    """Make the assignment of two quantizers to every layer, with exact accumulators unless told otherwise."""

    def make(experiment: Experiment, weight: str, activation: str, *, exact: bool = True) -> Assignment:
        quantizers = parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
        made = experiment.preparation.uniform(experiment.subject.model, "digits", *quantizers)
        return made.in_whole_numbers() if exact else made

    return make
