"""AWQ: channels that activations make salient are rounded finer, the function stays, low-bit weights err less."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dse import network
from dse.network import Network
from dse.ptq.awq import Awq
from dse.ptq.rewrite import with_tensors
from formats import BitatlasError, Quantizer, UnknownNameError

IMAGES = np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)


def salient(kind: str) -> Network:
    """Two layers of which the second reads a few channels that are large or, for the depthwise one, has a few large ones."""
    torch.manual_seed(0)
    first, factors = nn.Conv2d(3, 64, 3), torch.where(torch.rand(64) < 0.05, 30.0, 1.0).reshape(-1, 1, 1, 1)
    between: list[nn.Module] = [nn.ReLU()]
    second: nn.Module = nn.Conv2d(64, 8, 3)
    if kind == "linear":
        between += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        second = nn.Linear(64, 8)
    if kind == "depthwise":
        second = nn.Conv2d(64, 64, 3, groups=64)
        with torch.no_grad():
            second.weight *= factors
        factors = 1 / factors
    with torch.no_grad():
        first.weight *= factors
        first.bias *= factors.flatten()
    modules = {
        "first": first,
        **{f"between{number}": part for number, part in enumerate(between)},
        "second": second,
        "last": nn.Flatten(),
    }
    return network.build(kind, nn.Sequential(OrderedDict(modules)), (3, 8, 8))


def error_of_weights(given: Network, quantizer: str) -> float:
    """Mean squared error of the logits, as a share of their power, with the weights of both layers quantized."""
    parsed, expected = Quantizer.parse(quantizer), given.logits(IMAGES)
    weights = {f"{layer.name}.weight": torch.from_numpy(parsed.encode(layer.weight).decode()) for layer in given.layers}
    return float(((with_tensors(given, weights).logits(IMAGES) - expected) ** 2).mean() / (expected**2).mean())


@pytest.mark.parametrize(
    ("kind", "quantizer", "factor"),
    [
        ("linear", "int3:channel:absmax", 1.5),
        ("linear", "int4:group16:absmax", 1.5),
        ("linear", "nf4:channel:absmax", 2),
        ("conv", "e2m1:channel:absmax", 1.1),
        ("conv", "int4:tensor:absmax", 1.2),
        ("depthwise", "int4:tensor:absmax", 10),
    ],
)
def test_low_bit_weights_err_less_where_channels_are_salient(kind: str, quantizer: str, factor: float) -> None:
    original = salient(kind)
    scaled, expected = Awq(format=quantizer).apply(original, IMAGES), original.logits(IMAGES)
    np.testing.assert_allclose(scaled.logits(IMAGES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert error_of_weights(scaled, quantizer) < error_of_weights(original, quantizer) / factor


def slow_error(inputs: np.ndarray, weight: np.ndarray, scales: np.ndarray, quantizer: str) -> float:
    """|Q(W s) (X / s) - W X|^2, as the paper writes it."""
    rounded = Quantizer.parse(quantizer).encode((weight * scales).astype(np.float32)).decode().astype(np.float64)
    return float((((inputs / scales) @ rounded.T - inputs @ weight.T.astype(np.float64)) ** 2).sum())


def test_the_exponent_is_the_best_of_the_grid() -> None:
    """One space between two linear layers: the scales are those of a search in the paper's words."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 8))
    with torch.no_grad():
        module[0].weight *= torch.logspace(-1, 1, 32).reshape(-1, 1)
    quantizer, samples = "int3:channel:absmax", IMAGES.reshape(64, 192)
    original = network.build("two", module, (192,))
    inputs = module[:2](torch.from_numpy(samples)).detach().numpy().astype(np.float64)
    weight, mean = original.layer("2").weight, np.abs(inputs).mean(axis=0)
    candidates = [mean**alpha / np.sqrt((mean**alpha).max() * (mean**alpha).min()) for alpha in np.arange(10) / 10]
    errors = [slow_error(inputs, weight, scales, quantizer) for scales in candidates]
    best = int(np.argmin(errors))
    assert 0 < best < 9
    scaled = Awq(format=quantizer, grid=10).apply(original, samples)
    np.testing.assert_allclose(scaled.layer("2").weight, weight * candidates[best], rtol=1e-5)


def test_what_no_scaling_betters_stays_as_it_is() -> None:
    """The grid begins with scales of one."""
    torch.manual_seed(0)
    original = network.build("two", nn.Sequential(nn.Linear(192, 8), nn.Linear(8, 4)), (192,))
    scaled = Awq(format="float16", grid=1).apply(original, IMAGES.reshape(64, 192))
    np.testing.assert_array_equal(scaled.layer("1").weight, original.layer("1").weight)


def test_queries_and_keys_alone_are_no_weights_that_read_channels() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return (self.query(x) @ self.key(x).transpose(1, 2)).mean(1)

    original = network.build("scores", Scores(), (4, 8))
    with pytest.raises(BitatlasError) as error:
        Awq().apply(original, np.zeros((2, 4, 8), np.float32))
    assert str(error.value) == (
        "step awq must find weights whose input channels can be scaled where they are written in the network, not none: 'scores'"
    )


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="grid of awq must be at least 1, not 0"):
        Awq(grid=0)
    with pytest.raises(UnknownNameError, match=r"b of format int\{b\} must be 2 to 16, not 44"):
        Awq(format="int44")
