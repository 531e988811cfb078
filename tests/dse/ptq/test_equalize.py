"""Equalization: equal ranges of channels on both sides, the same function, and less error of weights with one scale."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dse import network
from dse.experiment import Experiment
from dse.network import Network
from dse.ptq.equalize import Equalize
from dse.ptq.rewrite import stored_tensor, with_tensors
from formats import BitatlasError, Quantizer

IMAGES = np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32)


class Chain(nn.Module):
    """A convolution, a depthwise one and another, each behind a ReLU; channels of the first two spaces differ a thousandfold."""

    def __init__(self, *, depthwise: bool) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)
        self.b: nn.Module = nn.Conv2d(16, 16, 3, groups=16) if depthwise else nn.Identity()
        self.head = nn.Linear(4, 4)
        factors = torch.logspace(-1.5, 1.5, 16)[torch.randperm(16)].reshape(-1, 1, 1, 1)
        with torch.no_grad():
            self.a.weight *= factors
            self.a.bias *= factors.flatten()
            (self.b if depthwise else self.c).weight /= factors if depthwise else factors.reshape(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(torch.relu(self.b(torch.relu(self.a(x))))).mean((2, 3)))


def chain(*, depthwise: bool) -> Network:
    torch.manual_seed(0)
    return network.build("chain", Chain(depthwise=depthwise), (3, 8, 8))


def error_of_weights(given: Network, expected: np.ndarray, images: np.ndarray, quantizer: str) -> float:
    """Mean squared error of the logits, as a share of their power, with every weight quantized."""
    parsed = Quantizer.parse(quantizer)
    weights = {
        f"{layer.name}.weight": torch.from_numpy(parsed.encode(layer.weight).decode())
        for layer in given.layers
        if layer.weight is not None
    }
    return float(((with_tensors(given, weights).logits(images) - expected) ** 2).mean() / (expected**2).mean())


@pytest.mark.parametrize("depthwise", [False, True])
def test_weights_with_one_scale_err_less_where_channels_differ_a_thousandfold(depthwise: bool) -> None:
    original = chain(depthwise=depthwise)
    equalized = Equalize().apply(original, IMAGES)
    expected = original.logits(IMAGES)
    np.testing.assert_allclose(equalized.logits(IMAGES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    before, after = (error_of_weights(given, expected, IMAGES, "int8:tensor:absmax") for given in (original, equalized))
    assert after < before / 100


def test_one_writer_and_one_reader_get_the_same_ranges() -> None:
    """Both become the root of the product of what they were: equation 11 of the paper, per channel."""
    original = chain(depthwise=False)
    equalized = Equalize().apply(original, IMAGES)

    def ranges(given: Network) -> tuple[np.ndarray, np.ndarray]:
        return np.abs(given.layer("a").weight).max(axis=(1, 2, 3)), np.abs(given.layer("c").weight).max(axis=(0, 2, 3))

    (written, read), (written_after, read_after) = ranges(original), ranges(equalized)
    # the classifier's space gives every row of c another factor, the same for all columns: shares of the columns are compared
    np.testing.assert_allclose(written_after, read_after, rtol=5e-3)
    assert np.ptp(np.log(written_after)) < np.ptp(np.log(written))
    assert np.ptp(np.log(read_after)) < np.ptp(np.log(read))


def test_the_bias_follows_the_weight() -> None:
    original = chain(depthwise=False)
    equalized = Equalize().apply(original, IMAGES)
    factors = (equalized.layer("a").weight / original.layer("a").weight)[:, 0, 0, 0]
    np.testing.assert_allclose(stored_tensor(equalized, "a.bias"), stored_tensor(original, "a.bias").numpy() * factors, rtol=1e-5)


def test_a_channel_that_nothing_writes_or_reads_is_left_alone() -> None:
    original = chain(depthwise=False)
    weights = {name: stored_tensor(original, name).clone() for name in ("a.weight", "c.weight")}
    weights["a.weight"][3], weights["c.weight"][:, 5] = 0, 0
    original = with_tensors(original, weights)
    equalized = Equalize().apply(original, IMAGES)
    np.testing.assert_array_equal(equalized.layer("a").weight[[3, 5]], original.layer("a").weight[[3, 5]])


def test_one_round_is_less_than_all() -> None:
    """Spaces on both sides of a layer pull at it in turn."""
    original = chain(depthwise=True)
    few, many, more = (Equalize(iterations=n, tolerance=0).apply(original, IMAGES) for n in (1, 60, 120))

    def step(one: Network, other: Network) -> float:
        return max(float(np.abs(one.layer(name).weight - other.layer(name).weight).max()) for name in "abc")

    assert step(many, more) < 1e-3 * step(few, more)


def test_int4_weights_of_the_zoo_err_less_with_one_scale(resnet8: Experiment) -> None:
    original, images = resnet8.preparation.network, resnet8.split("validation").images[:64]
    expected = original.logits(images)
    before, after = (
        error_of_weights(given, expected, images, "int4:tensor:absmax") for given in (original, Equalize().apply(original, images))
    )
    assert after < before


def test_a_network_without_such_channels_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(144, 4))
    original = network.build("clipped", module, (3, 8, 8))
    with pytest.raises(BitatlasError) as error:
        Equalize().apply(original, IMAGES)
    assert str(error.value) == (
        "step equalize must find channels that a weight writes, a weight reads and only scalable operators lie between in the "
        "network, not none: 'clipped'"
    )


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="iterations of equalize must be at least 1, not 0"):
        Equalize(iterations=0)
    with pytest.raises(ValueError, match="tolerance of equalize must be finite and not negative, not -1"):
        Equalize(tolerance=-1)
