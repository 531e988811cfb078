"""Networks small enough to be looked through, each with what calibrates it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dse.assignment import Assignment, parse_quantizer
from dse.calibrate import calibrate
from dse.data import Split
from dse.network import build
from dse.quantize import Preparation

Prepare = Callable[..., Preparation]
Uniform = Callable[..., Assignment]


@pytest.fixture(scope="session")
def prepare() -> Prepare:
    """Calibrate a module on 64 random samples of a shape."""

    def make(module: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Preparation:
        images = np.random.default_rng(seed).normal(0, 1, (64, *shape)).astype(np.float32)
        split = Split(images=images, labels=np.zeros(64, np.int64))
        network = build("net", module, shape)
        return Preparation(network=network, statistics=calibrate(network, split), calibration=split)

    return make


@pytest.fixture(scope="session")
def uniform() -> Uniform:
    """Give every layer the same two quantizers and accumulator."""

    def make(preparation: Preparation, weight: str, activation: str, accumulator: str = "exact") -> Assignment:
        pair = parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
        made = preparation.uniform("net", "random", *pair)
        layers = {name: replace(layer, accumulator=accumulator) for name, layer in made.layers.items()}
        return replace(made, layers=layers)

    return make


class Residual(nn.Module):
    """A convolution, a depthwise one beside a shortcut, pooling of both kinds and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8 * 2 * 2, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.max_pool2d(x, 3, stride=1, padding=1)
        x = nn.functional.relu6(self.point(nn.functional.hardtanh(self.depthwise(x))) + x)
        x = nn.functional.avg_pool2d(x, 2)
        return self.head(x.flatten(1))


class Attention(nn.Module):
    """A patch embedding with positions and a class token, one block of a transformer, and a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Conv2d(1, 16, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 17, 16))
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)
        nn.init.normal_(self.norm.weight, 1, 0.3)
        nn.init.normal_(self.norm.bias, 0, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.head(x[:, 0] * 0.5 + x.mean(1))


@pytest.fixture(scope="session")
def residual(prepare: Prepare) -> Preparation:
    """A convolutional network with a shortcut."""
    return prepare(Residual(), (3, 8, 8))


@pytest.fixture(scope="session")
def attention(prepare: Prepare) -> Preparation:
    """A small transformer."""
    return prepare(Attention(), (1, 8, 8))
