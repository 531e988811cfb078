"""SmoothQuant: outliers of activation channels go into weights, the function stays, 8-bit activations with one scale err less."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dse import network
from dse.network import Filling, Network, Place
from dse.ptq.rewrite import stored_tensor
from dse.ptq.smooth import Smooth
from formats import BitatlasError, Quantizer

GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.normal(size=(64, 6, 16)).astype(np.float32)


class Normed(nn.Module):
    """Two linear layers that read a layer norm, three of whose channels are a hundred times the others."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.a, self.b, self.head = nn.LayerNorm(16), nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.norm.weight[[2, 7, 11]] = torch.tensor([100.0, 80.0, 120.0])
            self.norm.bias.normal_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.head(torch.relu(self.a(y)) + torch.sigmoid(self.b(y))).mean(1)


@pytest.fixture(scope="module")
def normed() -> Network:
    torch.manual_seed(0)
    return network.build("normed", Normed(), (6, 16))


class Rounding:
    """A filling that quantizes what passes, with one scale for the tensor."""

    def __init__(self, quantizer: str) -> None:
        self.quantizer = Quantizer.parse(quantizer)

    def __call__(self, operand: Tensor) -> Tensor:
        return torch.from_numpy(self.quantizer.encode(operand.contiguous().numpy()).decode())


def error(given: Network, names: tuple[str, ...], images: np.ndarray, quantizer: str, places: tuple[Place, ...]) -> float:
    """Mean squared error of the logits, as a share of their power, with operands of some layers quantized."""
    fillings: dict[tuple[str, Place], Filling] = {(name, place): Rounding(quantizer) for name in names for place in places}
    expected = given.logits(images)
    with given.filled(fillings):
        return float(((given.logits(images) - expected) ** 2).mean() / (expected**2).mean())


def test_activations_and_weights_of_8_bits_err_less_where_channels_stand_out(normed: Network) -> None:
    smooth = Smooth().apply(normed, TOKENS)
    expected = normed.logits(TOKENS)
    np.testing.assert_allclose(smooth.logits(TOKENS), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    before, after = (error(given, ("a", "b"), TOKENS, "int8", ("activation", "weight")) for given in (normed, smooth))
    assert after < before / 3


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_scales_are_those_of_the_paper(normed: Network, alpha: float) -> None:
    """The norm's scale is divided by max|X|^alpha / max|W|^(1 - alpha), over all samples and all weights that read it."""
    scale, shift = (stored_tensor(normed, f"norm.{part}").numpy() for part in ("weight", "bias"))
    centred = TOKENS - TOKENS.mean(-1, keepdims=True)
    activations = np.abs(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + shift).max(axis=(0, 1))
    weights = np.abs(np.concatenate([normed.layer(name).weight for name in "ab"])).max(axis=0)
    expected = activations**alpha / weights ** (1 - alpha)
    smooth = Smooth(alpha=alpha).apply(normed, TOKENS)
    np.testing.assert_allclose(scale / stored_tensor(smooth, "norm.weight").numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(smooth.layer("b").weight, normed.layer("b").weight * expected, rtol=1e-4)


class Scores(nn.Module):
    """A query one of whose features is a thousand times the others, while the key's is a thousandth."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(6, 4)
        with torch.no_grad():
            self.query.weight[3] *= 1000
            self.key.weight[3] /= 1000

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.query(x) @ self.key(x).transpose(1, 2)).mean(1))


def test_the_factors_of_a_product_smooth_each_other() -> None:
    torch.manual_seed(0)
    original = network.build("scores", Scores(), (6, 16))
    smooth, expected = Smooth().apply(original, TOKENS), original.logits(TOKENS)
    np.testing.assert_allclose(smooth.logits(TOKENS), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    before, after = (error(given, ("product",), TOKENS, "int8", ("activation", "weight")) for given in (original, smooth))
    assert after < before / 10


def test_channels_that_are_always_zero_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        module[0].weight[5], module[0].bias[5] = 0, -1
    original = network.build("dead", module, (16,))
    smooth = Smooth().apply(original, TOKENS[:, 0])
    np.testing.assert_array_equal(smooth.layer("2").weight[:, 5], original.layer("2").weight[:, 5])
    assert not np.array_equal(smooth.layer("2").weight[:, 4], original.layer("2").weight[:, 4])


def test_a_network_without_such_activations_is_refused() -> None:
    original = network.build("one", nn.Linear(16, 4), (16,))
    with pytest.raises(BitatlasError) as error:
        Smooth().apply(original, TOKENS[:, 0])
    assert str(error.value) == (
        "step smooth must find activations whose channels can be scaled where they are written and read in the network, "
        "not none: 'one'"
    )


def test_an_exponent_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha of smooth must be from 0 to 1, not 1\.5"):
        Smooth(alpha=1.5)
