"""Single layers with calibration operands that depend on each other, as those of real networks do."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dse.network import build
from dse.ptq.blocks import nodes_by_layer
from dse.ptq.step import LayerData, PreparedWeight
from formats import Quantizer

#: a uniform grid, a minifloat's, logarithmic ones
FORMATS = ("int4", "e2m1", "post4", "pot4")
KINDS = ("linear", "tokens", "convolution", "depthwise", "grouped", "strided", "dilated", "line", "volume")
MAIN_KINDS = ("linear", "convolution", "depthwise")


def module(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The layer, and the shape of one of its operands."""
    made: dict[str, tuple[Any, tuple[int, ...]]] = {
        "linear": (nn.Linear(24, 10), (24,)),
        "tokens": (nn.Linear(12, 8), (5, 12)),
        "convolution": (nn.Conv2d(6, 8, 3, padding=1), (6, 5, 5)),
        "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 6, 6)),
        "grouped": (nn.Conv2d(6, 4, 3, groups=2), (6, 6, 6)),
        "strided": (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0)), (3, 7, 6)),
        "dilated": (nn.Conv2d(3, 5, 2, dilation=2, padding="same"), (3, 6, 6)),
        "line": (nn.Conv1d(4, 5, 3, padding=2), (4, 9)),
        "volume": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4)),
    }
    return made[kind]


def operands(shape: tuple[int, ...], samples: int = 40, seed: int = 0) -> NDArray[np.float32]:
    """A few common causes, smooth along every axis, their means away from zero, and little noise."""
    draws = np.random.default_rng(seed)
    size = int(np.prod(shape))
    mixed = (draws.standard_normal((samples, 6)) @ draws.standard_normal((6, size)) + 1).reshape(samples, *shape)
    for axis in range(1, mixed.ndim):
        mixed = mixed + np.roll(mixed, 1, axis) + np.roll(mixed, 2, axis)
    return (mixed / mixed.std() + 0.1 * draws.standard_normal(mixed.shape)).astype(np.float32)


@cache
def layer_data(kind: str, samples: int = 40, seed: int = 0) -> LayerData:
    torch.manual_seed(seed)
    layer, shape = module(kind)
    network = build(kind, nn.Sequential(layer), shape)
    (only,) = network.layers
    return LayerData(
        layer=only, node=nodes_by_layer(network)[only.name], bias=layer.bias.detach().numpy(), inputs=operands(shape, samples, seed)
    )


def outputs(data: LayerData, weight: NDArray[np.float32], shift: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """The layer as torch computes it, float64 with the output channels last."""
    x, values = torch.from_numpy(data.inputs).double(), torch.tensor(weight).double()
    bias = torch.tensor(data.bias if shift is None else data.bias + shift).double()
    arguments = [tuple(argument) if isinstance(argument, list) else argument for argument in data.node.args[3:]]
    found = data.node.target(x, values, bias, *arguments)
    return (found if data.layer.kind == "linear" else found.movedim(1, -1)).numpy()


def output_errors(data: LayerData, prepared: PreparedWeight) -> NDArray[np.float64]:
    """Mean squared output error of every output channel."""
    error = outputs(data, prepared.values(), prepared.bias_shift) - outputs(data, data.weight)
    return np.square(error).reshape(-1, error.shape[-1]).mean(axis=0)


def nearest(data: LayerData, quantizer: str) -> tuple[Any, PreparedWeight]:
    chosen = Quantizer.parse(quantizer)
    return chosen, PreparedWeight(encoded=chosen.encode(data.weight))
