"""What layers compute, read off the traced graph, and who makes what they read."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dse import network
from dse.assignment import parse_quantizer
from dse.experiment import Experiment
from dse.network import Network
from hwmodels.workload import Convolution, LayerWorkload


def built(module: nn.Module, shape: tuple[int, ...]) -> Network:
    return network.build("x", module, shape)


def only(module: nn.Module, shape: tuple[int, ...]) -> LayerWorkload:
    (layer,) = built(module, shape).layers
    return layer.workload


CONVOLUTIONS: list[tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, object]]] = [
    (lambda: nn.Conv2d(3, 8, 3, padding=1), (3, 9, 7), {"kernel": (3, 3), "padding": ((1, 1), (1, 1)), "output_size": (9, 7)}),
    (lambda: nn.Conv2d(4, 8, (3, 5), stride=(2, 1)), (4, 9, 7), {"stride": (2, 1), "output_size": (4, 3)}),
    (lambda: nn.Conv2d(4, 8, 3, dilation=2), (4, 9, 7), {"dilation": (2, 2), "output_size": (5, 3)}),
    (lambda: nn.Conv2d(4, 8, 3, groups=2), (4, 9, 7), {"groups": 2, "input_channels": 4}),
    (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 9, 7), {"groups": 4, "input_channels": 4}),
    (lambda: nn.Conv1d(4, 8, 3, stride=2), (4, 9), {"kernel": (3,), "output_size": (4,), "input_size": (9,)}),
    (lambda: nn.Conv3d(2, 4, 2), (2, 3, 4, 5), {"kernel": (2, 2, 2), "output_size": (2, 3, 4)}),
    (lambda: nn.Conv2d(4, 8, 3, padding="same"), (4, 9, 7), {"padding": ((1, 1), (1, 1)), "output_size": (9, 7)}),
    (lambda: nn.Conv2d(4, 8, (4, 3), padding="same"), (4, 9, 7), {"padding": ((1, 2), (1, 1)), "output_size": (9, 7)}),
    (lambda: nn.Conv2d(4, 8, 3, padding="valid", dilation=2), (4, 9, 7), {"padding": ((0, 0), (0, 0)), "output_size": (5, 3)}),
]


@pytest.mark.parametrize(("make", "shape", "expected"), CONVOLUTIONS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_a_convolution_keeps_its_shape(make: Callable[[], nn.Module], shape: tuple[int, ...], expected: dict[str, object]) -> None:
    module = make()
    found = only(module, shape)
    assert isinstance(found.convolution, Convolution)
    for name, value in expected.items():
        assert getattr(found.convolution, name) == value
    outputs = module(torch.zeros(1, *shape))
    weight = module.weight
    assert isinstance(weight, Tensor)
    assert found.vectors == outputs[0, 0].numel()
    assert found.macs == outputs.numel() * weight[0].numel()
    assert found.weights == weight.numel()


def test_a_linear_layer_has_a_vector_for_every_leading_position() -> None:
    assert only(nn.Linear(6, 4), (6,)).vectors == 1
    tokens = only(nn.Linear(6, 4), (5, 3, 6))
    assert (tokens.vectors, tokens.dot_length, tokens.macs) == (15, 6, 15 * 24)
    assert tokens.convolution is None


def test_a_product_has_a_matrix_for_every_head() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x, need_weights=False)[0]

    layers = {layer.name: layer for layer in built(Attention(), (5, 8)).layers}
    scores, mix = (next(layer for name, layer in layers.items() if name.endswith(end)) for end in ("scores", "mix"))
    assert (scores.workload.matrices, scores.workload.vectors, scores.workload.dot_length) == (2, 10, 4)
    assert (mix.workload.matrices, mix.workload.output_channels, mix.workload.operand_elements) == (2, 4, 2 * 5 * 4)
    assert mix.operands["activation"].producer == scores.name


def test_an_operand_is_made_by_the_last_layer_before_it() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third, self.last = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.first(x))
            return self.last(torch.relu(self.second(y)) + self.third(y) + x)

    layers = {layer.name: layer.operands["activation"] for layer in built(Residual(), (4,)).layers}
    assert {name: operand.producer for name, operand in layers.items()} == {
        "first": None,
        "second": "first",
        "third": "first",
        "last": "third",
    }


def test_every_different_quantizer_of_a_result_is_planned_for_once(resnet8: Experiment) -> None:
    preparation = resnet8.preparation
    int4, int8 = parse_quantizer("int4", "weight"), parse_quantizer("int8", "activation")
    same = preparation.uniform("", "", int4, int8)
    plans = {plan.workload.name: plan for plan in resnet8.plans(same)}
    assert [str(output) for output in plans["stem"].outputs] == ["uint8:tensor:mse"]
    assert plans["classifier"].outputs == ()
    readers = [layer.name for layer in preparation.network.layers if layer.operands["activation"].producer == "block1.conv2"]
    assert readers == ["block2.conv1", "block2.shortcut.0"]
    assert len(plans["block1.conv2"].outputs) == 1
    other = preparation.uniform("", "", int4, parse_quantizer("e2m1", "activation"))
    mixed = type(same)(model="", data="", layers={**same.layers, readers[1]: other.layers[readers[1]]})
    outputs = {plan.workload.name: plan.outputs for plan in resnet8.plans(mixed)}["block1.conv2"]
    assert len(set(map(str, outputs))) == len(outputs) == 2


def test_workloads_of_the_zoo_are_consistent(resnet8: Experiment) -> None:
    for layer, following in itertools.pairwise(resnet8.preparation.network.layers):
        workload = layer.workload
        assert workload.macs == workload.vectors * workload.output_channels * workload.dot_length
        assert following.workload.activations_in
