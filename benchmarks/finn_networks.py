"""Small networks for the check against FINN, as torch modules and, with Brevitas' integer quantizers in them, as QONNX."""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from formats import BitatlasError


def perceptron() -> nn.Sequential:
    """Return a network of dense layers alone."""
    sizes = (64, 32, 16, 10)
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def convolutional() -> nn.Sequential:
    """Return a network with padding, pooling, stride, dilation and a pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, stride=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 8, 2, dilation=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 12, 1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 5 * 4, 10, bias=False),
    )


def depthwise() -> nn.Sequential:
    """Return a network with depthwise convolutions, one of them with stride 2."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 12, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, stride=2, groups=12, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 7 * 7, 10, bias=False),
    )


def sequence() -> nn.Sequential:
    """Return a network over one axis, with a stride, a dilation and a depthwise convolution."""
    return nn.Sequential(
        nn.Conv2d(4, 8, (5, 1), padding=(2, 0), bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, (3, 1), stride=(2, 1), groups=8, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 6, (3, 1), dilation=(3, 1), bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 9, 10, bias=False),
    )


NETWORKS = {
    "perceptron": (perceptron, (64,)),
    "convolutional": (convolutional, (4, 30, 26)),
    "depthwise": (depthwise, (3, 16, 16)),
    "sequence": (sequence, (4, 32, 1)),
}


def quantized(network: nn.Sequential, weight_bits: int, activation_bits: int) -> nn.Sequential:
    """Return the network with Brevitas' integer quantizers; every weight tensor holds the quantizer's largest value."""
    from brevitas import nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat

    fixed = {"scaling_impl_type": "const", "bit_width": activation_bits}
    weights = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": weight_bits, "bias": False}
    made: list[nn.Module] = [qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, scaling_init=1.0, **fixed)]
    for layer in network:
        if isinstance(layer, nn.Linear):
            made.append(qnn.QuantLinear(layer.in_features, layer.out_features, **weights))
        elif isinstance(layer, nn.Conv2d):
            shape: dict[str, Any] = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
            made.append(qnn.QuantConv2d(layer.in_channels, layer.out_channels, layer.kernel_size, **shape, **weights))
        elif isinstance(layer, nn.ReLU):
            made.append(qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, scaling_init=4.0, **fixed))
        else:
            made.append(layer)
        if hasattr(layer, "weight"):
            made[-1].weight.data = layer.weight.data.clone()
    return nn.Sequential(*made).eval()


def export(network: nn.Sequential, sample_shape: Sequence[int], path: Path) -> None:
    """Write a Brevitas network as QONNX."""
    try:
        import onnxoptimizer  # noqa: F401 -- Brevitas says only that "installation of onnx and onnxoptimizer is required"
    except ModuleNotFoundError:
        raise BitatlasError("onnxoptimizer must be installed for Brevitas' export: pip install bitatlas[bench]") from None
    from brevitas.export import export_qonnx

    sample = torch.randn(1, *sample_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, on the exporter that QONNX needs
        network(sample)
        export_qonnx(network, args=sample, export_path=str(path), dynamo=False, opset_version=13)
