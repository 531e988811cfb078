"""Rotation: outliers are spread over channels, the function stays, 4-bit activations with one scale err less."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse import network
from dse.experiment import Experiment
from dse.network import Filling, Network, Place
from dse.ptq.norm_folding import folded_norms
from dse.ptq.rewrite import rounded, with_tensors
from dse.ptq.rotate import KINDS, Rotate
from dse.ptq.spaces import spaces
from formats import BitatlasError, Quantizer

GENERATOR = np.random.default_rng(0)


class Transformer(nn.Module):
    """One block of a transformer whose layer norms make a few features of the stream large, after another of its writers."""

    def __init__(self, norm: type[nn.LayerNorm] | type[nn.RMSNorm], dim: int = 24) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2, self.norm3 = nn.Linear(dim, dim), norm(dim), norm(dim), norm(dim)
        self.qkv, self.out, self.up, self.down = (
            nn.Linear(dim, 3 * dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, 32),
            nn.Linear(32, dim),
        )
        self.head = nn.Linear(dim, 8)
        with torch.no_grad():
            self.embed.weight[[3, 17]] *= 30
            for part in (self.norm1, self.norm2, self.norm3):
                part.weight.copy_(torch.rand(dim) + 0.5)
                if isinstance(part, nn.LayerNorm):
                    part.bias.normal_(std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


TOKENS = GENERATOR.normal(size=(64, 6, 24)).astype(np.float32)


def transformer(norm: type[nn.LayerNorm] | type[nn.RMSNorm]) -> Network:
    torch.manual_seed(0)
    return network.build("transformer", Transformer(norm), (6, 24))


class Rounding:
    """A filling that quantizes what passes, with one scale for the tensor."""

    def __init__(self, quantizer: str) -> None:
        self.quantizer = Quantizer.parse(quantizer)

    def __call__(self, operand: Tensor) -> Tensor:
        return torch.from_numpy(self.quantizer.encode(operand.contiguous().numpy()).decode())


def error(given: Network, names: tuple[str, ...], images: np.ndarray) -> float:
    """Mean squared error of the logits, as a share of their power, with what layers read in int4."""
    fillings: dict[tuple[str, Place], Filling] = {(name, "activation"): Rounding("int4:tensor:absmax") for name in names}
    expected = given.logits(images)
    with given.filled(fillings):
        return float(((given.logits(images) - expected) ** 2).mean() / (expected**2).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_4_bit_activations_err_less_where_features_stand_out(norm: type[nn.LayerNorm] | type[nn.RMSNorm], kind: str) -> None:
    original = transformer(norm)
    rotated, expected = Rotate(kind=kind).apply(original, TOKENS), original.logits(TOKENS)
    np.testing.assert_allclose(rotated.logits(TOKENS), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    before, after = (error(given, ("qkv", "up", "head"), TOKENS) for given in (original, rotated))
    assert after < before / 3


def second_moments(given: Network, name: str, images: np.ndarray) -> np.ndarray:
    """E[x x'] of what a layer reads."""
    kept: list[np.ndarray] = []

    def keep(operand: Tensor) -> Tensor:
        kept.append(operand.numpy().reshape(-1, operand.shape[-1]).copy())
        return operand

    with given.filled({(name, "activation"): keep}):
        given.logits(images)
    rows = np.concatenate(kept).astype(np.float64)
    return rows.T @ rows / len(rows)


def test_principal_components_are_shared_out_evenly() -> None:
    """One reader, 2^n channels, no mean to keep: after K and H every channel has the same second moment."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(24, 16), nn.Linear(16, 4))
    with torch.no_grad():
        module[0].weight[3] *= 30
    original = network.build("two", module, (24,))
    samples = TOKENS[:, 0]
    spread = {}
    for name, given in {"float": original, **{kind: Rotate(kind=kind).apply(original, samples) for kind in KINDS}}.items():
        powers = np.diag(second_moments(given, "1", samples))
        spread[name] = powers.max() / powers.mean()
    assert spread["klt"] == pytest.approx(1, abs=1e-4)
    assert spread["klt"] < spread["hadamard"] < spread["float"]


def test_the_stream_of_the_vision_transformer_is_one_space_once_norms_are_folded(vit: Experiment) -> None:
    original, images = vit.preparation.network, vit.split("validation").images[:64]
    norms = folded_norms(original)
    assert len(norms) == 7
    folded = with_tensors(original, rounded({name: values for tensors in norms.values() for name, values in tensors.items()}))
    expected = original.logits(images)
    np.testing.assert_allclose(folded.logits(images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    stream = spaces(folded, "orthogonal")[0]
    blocks = [f"blocks.{number}" for number in range(3)]
    writers = [f"{block}.{part}" for block in blocks for part in ("norm1", "attention.output", "norm2", "down")]
    readers = [f"{block}.{part}" for block in blocks for part in ("attention.query", "attention.key", "attention.value", "up")]
    assert (stream.size, stream.keeps_mean, len(stream.norms)) == (32, True, 7)
    assert sorted(stream.writers) == sorted(["embed", "positions", "norm", *writers])
    assert sorted(stream.readers) == sorted([*readers, "classifier"])


def test_a_norm_that_is_added_to_is_not_folded() -> None:
    """After the sum its scale would have to be undone in another writer: no rotation passes."""

    class After(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b, self.head = nn.Linear(24, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.a(x))
            return self.head(torch.relu(y + self.b(y)))

    original = network.build("after", After(), (24,))
    assert folded_norms(original) == {}
    with pytest.raises(BitatlasError) as error:
        Rotate().apply(original, TOKENS[:, 0])
    assert str(error.value) == (
        "step rotate must find channels that only linear operators and norms lie between in the network, not none: 'after'"
    )


def test_the_seed_fixes_the_result() -> None:
    original = transformer(nn.LayerNorm)
    digests = [Rotate(seed=seed).apply(original, TOKENS).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_network_with_a_relu_everywhere_is_refused(resnet8: Experiment) -> None:
    with pytest.raises(BitatlasError, match="step rotate must find channels that only linear operators"):
        Rotate().apply(resnet8.preparation.network, resnet8.split("validation").images[:2])


def test_unknown_options_are_refused() -> None:
    with pytest.raises(KeyError, match="kind of rotate must be a known name, not 'hadamrad'; nearest: hadamard"):
        Rotate(kind="hadamrad")
    with pytest.raises(ValueError, match="seed of rotate must be a whole number of at least 0, not -1"):
        Rotate(seed=-1)
