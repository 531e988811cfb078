"""Channel spaces: which tensors change together, and that any change of them leaves every network's function as it was."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from torch import Tensor, nn
from torch.nn import functional

from dse import network
from dse.experiment import Experiment
from dse.models import loading
from dse.network import Network
from dse.ptq.channel_labels import Passes
from dse.ptq.rewrite import Change, changed_tensors, rounded, stored_tensor, with_tensors
from dse.ptq.spaces import OUTSIDE, Space, spaces, vector_axis


class Attention(nn.Module):
    """Attention whose query, key and value come from one linear layer, on images as tokens with a class token in front."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))
        self.norm, self.last = norm(8), norm(8)
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], 17, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return self.head(self.last(x + self.out(mixed))[:, 0])


class Wired(nn.Module):
    """Three convolutions of 4 channels and what a function makes of them."""

    def __init__(self, wire: Callable[["Wired", Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        for name, part in parts.items():
            setattr(self, name, part)
        self.wire = wire

    def forward(self, x: Tensor) -> Tensor:
        y = self.wire(self, x)
        return functional.softmax(y.flatten(1), 1) * 3


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(*shape) + 0.5)


#: networks by name, with the writers and readers of their diagonal spaces
WIRED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "relu": (lambda: Wired(lambda m, x: m.b(torch.relu(m.a(x)))), ["a -> b (4 channels)"]),
    "leaky": (lambda: Wired(lambda m, x: m.b(functional.leaky_relu(m.a(x)))), ["a -> b (4 channels)"]),
    "prelu": (lambda: Wired(lambda m, x: m.b(m.p(m.a(x))), p=nn.PReLU(4)), ["a -> b (4 channels)"]),
    "relu6": (lambda: Wired(lambda m, x: m.b(functional.relu6(m.a(x)))), []),
    "gelu": (lambda: Wired(lambda m, x: m.b(functional.gelu(m.a(x)))), []),
    "sigmoid": (lambda: Wired(lambda m, x: m.b(torch.sigmoid(m.a(x)))), []),
    "clamp from below": (lambda: Wired(lambda m, x: m.b(m.a(x).clamp(min=0))), ["a -> b (4 channels)"]),
    "clamp from above": (lambda: Wired(lambda m, x: m.b(m.a(x).clamp(0, 1))), []),
    "max pool": (lambda: Wired(lambda m, x: m.b(functional.max_pool2d(m.a(x), 2))), ["a -> b (4 channels)"]),
    "mean pool": (lambda: Wired(lambda m, x: m.b(functional.avg_pool2d(m.a(x), 3, 1))), ["a -> b (4 channels)"]),
    "constant": (lambda: Wired(lambda m, x: m.b(m.a(x) + 0.5)), []),
    "number": (lambda: Wired(lambda m, x: m.b(m.a(x) * -0.5)), ["a -> b (4 channels)"]),
    "residual": (
        lambda: Wired(lambda m, x: m.b((y := torch.relu(m.a(x))) + m.c(y)), c=nn.Conv2d(4, 4, 1)),
        ["a, c -> c, b (4 channels)"],
    ),
    "residual of the result": (lambda: Wired(lambda m, x: (y := m.a(x)) + m.b(y)), []),
    "depthwise": (
        lambda: Wired(lambda m, x: m.b(torch.relu(m.d(torch.relu(m.a(x))))), d=nn.Conv2d(4, 4, 3, groups=4)),
        ["a -> d (4 channels)", "d -> b (4 channels)"],
    ),
    "groups": (
        lambda: Wired(lambda m, x: m.b(m.d(m.a(x))), d=nn.Conv2d(4, 4, 1, groups=2)),
        ["a -> d (4 channels)", "d -> b (4 channels)"],
    ),
    "flatten": (lambda: Wired(lambda m, x: m.l(torch.relu(m.a(x)).flatten(1)), l=nn.Linear(256, 4)), ["a -> l (4 channels)"]),
    "two halves": (
        lambda: Wired(lambda m, x: m.b(torch.cat([m.a(x)[:, 2:], m.c(x)], 1)), c=nn.Conv2d(3, 2, 1)),
        ["a -> b (2 channels)", "c -> b (2 channels)"],
    ),
    "gate": (
        lambda: Wired(
            lambda m, x: m.b((y := torch.relu(m.a(x))) * torch.sigmoid(m.c(y.mean((2, 3), keepdim=True)))), c=nn.Conv2d(4, 4, 1)
        ),
        ["a -> c, b (4 channels)"],
    ),
    "product of two": (lambda: Wired(lambda m, x: m.b(m.a(x) * m.c(x)), c=nn.Conv2d(3, 4, 1)), []),
    "layer scale": (
        lambda: Wired(lambda m, x: m.b(m.a(x) * m.s), s=parameter(4, 1, 1)),
        ["a -> s (4 channels)", "s -> b (4 channels)"],
    ),
    "shared": (lambda: Wired(lambda m, x: m.b(torch.relu(m.b(torch.relu(m.a(x)))))), []),
    "shuffle": (lambda: Wired(lambda m, x: m.b(functional.channel_shuffle(m.a(x), 2))), ["a -> b (4 channels)"]),
    "zeros around": (lambda: Wired(lambda m, x: m.b(functional.pad(m.a(x), (1, 0, 2, 0)))), ["a -> b (4 channels)"]),
    "ones around": (lambda: Wired(lambda m, x: m.b(functional.pad(m.a(x), (1, 0, 2, 0), value=1.0))), []),
    "zero channels": (
        lambda: Wired(lambda m, x: m.c(functional.pad(m.a(x), (0, 0, 0, 0, 1, 1))), c=nn.Conv2d(6, 4, 1)),
        ["a -> c (4 channels)"],
    ),
    "group norm": (lambda: Wired(lambda m, x: m.b(m.n(m.a(x))), n=nn.GroupNorm(2, 4)), []),
    "token mixing": (
        lambda: Wired(lambda m, x: m.l(m.a(x).flatten(2).transpose(1, 2).roll(1, 1).mean(1)), l=nn.Linear(4, 4)),
        ["a -> l (4 channels)"],
    ),
    "halves of other tokens": (
        lambda: Wired(
            lambda m, x: m.l(torch.cat([(y := m.a(x).flatten(2).transpose(1, 2))[..., :2], y[..., 2:].roll(1, 1)], -1)),
            l=nn.Linear(4, 4),
        ),
        ["a -> l (4 channels)"],
    ),
    "layer norms": (
        lambda: Attention(nn.LayerNorm),
        ["norm -> qkv (8 channels)", "qkv -> qkv (8 channels)", "qkv -> out (8 channels)", "last -> head (8 channels)"],
    ),
    "norms by root mean square": (
        lambda: Attention(nn.RMSNorm),
        ["norm -> qkv (8 channels)", "qkv -> qkv (8 channels)", "qkv -> out (8 channels)", "last -> head (8 channels)"],
    ),
}
#: the same for orthogonal maps, where there are any
ORTHOGONAL: dict[str, list[str]] = {
    "mean pool": ["a -> b (4 channels)"],
    "number": ["a -> b (4 channels)"],
    "groups": ["a -> d (2 channels)", "a -> d (2 channels)", "d -> b (2 channels)", "d -> b (2 channels)"],
    "two halves": ["a -> b (2 channels)", "c -> b (2 channels)"],
    "shuffle": ["a -> b (4 channels)"],
    "zeros around": ["a -> b (4 channels)"],
    "zero channels": ["a -> c (4 channels)"],
    "token mixing": ["a -> l (4 channels)"],
    # norms let rotations through as long as they scale all channels alike, as fresh ones do
    "layer norms": [
        "embed, token, positions, norm, out, last -> qkv, head (8 channels)",
        *["qkv -> qkv (4 channels)"] * 2,
        *["qkv -> out (4 channels)"] * 2,
    ],
    "norms by root mean square": [
        "embed, token, positions, out -> qkv, head (8 channels)",
        *["qkv -> qkv (4 channels)"] * 2,
        *["qkv -> out (4 channels)"] * 2,
    ],
}


@cache
def built(name: str) -> Network:
    torch.manual_seed(0)
    return network.build(name, WIRED[name][0]().eval(), (3, 8, 8))


def random_map(space: Space, generator: np.random.Generator) -> np.ndarray:
    """A map of the kind that the space passes, nothing special besides."""
    if space.passes == "diagonal":
        return np.exp(generator.normal(size=space.size))
    if not space.keeps_mean:
        return ortho_group.rvs(space.size, random_state=generator)
    basis = np.linalg.qr(np.column_stack([np.ones(space.size), generator.normal(size=(space.size, space.size - 1))]))[0]
    inner = np.eye(space.size)
    inner[1:, 1:] = ortho_group.rvs(space.size - 1, random_state=generator)
    return basis @ inner @ basis.T


def changed(original: Network, found: tuple[Space, ...]) -> Network:
    generator = np.random.default_rng(1)
    changes = [Change(space=space, map=random_map(space, generator)) for space in found]
    return with_tensors(original, rounded(changed_tensors(original, changes)))


def assert_same_function(original: Network, other: Network, images: np.ndarray) -> None:
    expected = original.logits(images)
    np.testing.assert_allclose(other.logits(images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", WIRED)
def test_the_diagonal_spaces_of_every_operator(name: str) -> None:
    assert [str(space) for space in spaces(built(name), "diagonal")] == WIRED[name][1]


@pytest.mark.parametrize("name", WIRED)
def test_the_orthogonal_spaces_of_every_operator(name: str) -> None:
    assert [str(space) for space in spaces(built(name), "orthogonal")] == ORTHOGONAL.get(name, [])


@pytest.mark.parametrize("passes", ["diagonal", "orthogonal"])
@pytest.mark.parametrize("name", WIRED)
def test_any_map_of_every_space_leaves_the_function_as_it_is(name: str, passes: Passes) -> None:
    original = built(name)
    found = spaces(original, passes)
    images = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    other = changed(original, found)
    assert_same_function(original, other, images)
    for member in (member for space in found for member in space.members):
        if stored_tensor(original, member.tensor).any():  # a bias of zeros stays
            assert not torch.equal(stored_tensor(original, member.tensor), stored_tensor(other, member.tensor)), member.tensor


RESNET8 = [
    "stem, block1.conv2 -> block1.conv1, block2.conv1, block2.shortcut.0 (12 channels)",
    "block1.conv1 -> block1.conv2 (12 channels)",
    "block2.conv1 -> block2.conv2 (24 channels)",
    "block2.conv2, block2.shortcut.0 -> block3.conv1, block3.shortcut.0 (24 channels)",
    "block3.conv1 -> block3.conv2 (48 channels)",
    "block3.conv2, block3.shortcut.0 -> classifier (48 channels)",
]
# what ReLU6 clips can carry no factor: linear bottlenecks are what is left
MOBILENET = [
    "blocks.1.project.0, blocks.2.project.0 -> blocks.2.expand.0, blocks.3.expand.0 (24 channels)",
    "blocks.3.project.0 -> head.0 (32 channels)",
]
VIT = [
    text
    for block in ("blocks.0", "blocks.1", "blocks.2")
    for text in (
        f"{block}.norm1 -> {block}.attention.query, {block}.attention.key, {block}.attention.value (32 channels)",
        f"{block}.attention.query -> {block}.attention.key (32 channels)",
        f"{block}.attention.value -> {block}.attention.output (32 channels)",
        f"{block}.norm2 -> {block}.up (32 channels)",
    )
]
HEADS = [
    f"{block}.attention.{pair} (8 channels)"
    for block in ("blocks.0", "blocks.1", "blocks.2")
    for pair in (f"query -> {block}.attention.key", f"value -> {block}.attention.output")
    for _ in range(4)
]


def of_the_zoo(model: str, request: pytest.FixtureRequest) -> tuple[Network, np.ndarray]:
    if model == "mobilenet":
        subject = loading.load("mobilenet", "digits")
        return network.build("mobilenet", subject.module, subject.dataset.sample_shape), subject.dataset.validation.images[:64]
    experiment: Experiment = request.getfixturevalue(model)
    return experiment.preparation.network, experiment.split("validation").images[:64]


@pytest.mark.parametrize(
    ("model", "passes", "expected"),
    [
        ("resnet8", "diagonal", RESNET8),
        ("resnet8", "orthogonal", []),
        ("mobilenet", "diagonal", MOBILENET),
        ("mobilenet", "orthogonal", MOBILENET),
        ("vit", "diagonal", [*VIT, "norm -> classifier (32 channels)"]),
        ("vit", "orthogonal", HEADS),
    ],
)
def test_the_spaces_of_the_zoo(model: str, passes: Passes, expected: list[str], request: pytest.FixtureRequest) -> None:
    original, images = of_the_zoo(model, request)
    found = spaces(original, passes)
    assert [str(space) for space in found] == expected
    assert_same_function(original, changed(original, found), images)


def test_an_index_tells_the_channel_of_every_element() -> None:
    """Each channel of the image is 64 features in a row of the linear layer that reads it flattened."""
    (space,) = spaces(built("flatten"), "diagonal")
    weight = next(member for member in space.members if member.tensor == "l.weight")
    np.testing.assert_array_equal(weight.index, np.repeat(np.arange(4), 64)[np.newaxis])
    assert (weight.sign, weight.role) == (-1, "weight")
    bias = next(member for member in space.members if member.tensor == "a.bias")
    np.testing.assert_array_equal(bias.index, np.arange(4))


def test_a_product_ties_its_factors_inversely() -> None:
    """The query's rows are multiplied, the key's divided; both stand in one weight here."""
    space = spaces(built("layer norms"), "diagonal")[1]
    rows = {member.sign: member.index.ravel() for member in space.members if member.role == "weight"}
    np.testing.assert_array_equal(rows[1], [*range(8), *[OUTSIDE] * 16])
    np.testing.assert_array_equal(rows[-1], [*[OUTSIDE] * 8, *range(8), *[OUTSIDE] * 8])


def test_only_a_mean_that_is_taken_away_must_be_kept() -> None:
    flags = {name: [space.keeps_mean for space in spaces(built(name), "orthogonal")] for name in ORTHOGONAL}
    assert flags["layer norms"] == [True, False, False, False, False]
    assert not any(flags["norms by root mean square"])


@pytest.mark.parametrize(
    ("index", "axis"),
    [
        ([[1, 0, 2]], 1),
        ([[1], [0], [2]], 0),
        ([[0, OUTSIDE, 2, 1], [OUTSIDE] * 4], 1),
        ([[0, 1, 2, 2]], None),
        ([[0, 1, OUTSIDE, OUTSIDE]], None),
        ([[0, 1, 2], [0, 1, OUTSIDE]], None),
    ],
)
def test_the_axis_of_channel_vectors(index: list[list[int]], axis: int | None) -> None:
    assert vector_axis(np.array(index), 3) == axis
