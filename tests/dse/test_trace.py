"""A traced network computes what the module computes; batch norm is gone and attention is in pieces."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse import network
from dse.trace import BATCH_NORM, trace
from formats import BitatlasError


def randomise(module: nn.Module) -> nn.Module:
    """Give batch norms statistics that are worth folding."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            if part.affine:
                nn.init.normal_(part.weight, generator=generator)
                nn.init.normal_(part.bias, generator=generator)
    return module.eval()


class Functional(nn.Module):
    """A convolution and a product that are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.mixing = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(functional.conv2d(x, self.kernel, padding="same")).mean((2, 3)) @ self.mixing


class InPlace(nn.Module):
    """Operators that overwrite what another layer still reads, and a view that channels-last tensors do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.first(x))
        y = self.second(x)
        x += y
        return self.last((self.second(x) + y).view(x.shape[0], -1))


class Contractions(nn.Module):
    """Attention written as contractions."""

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.einsum("bih,bjh->bij", x, x).softmax(-1)
        return torch.einsum("bij,bjh->bih", scores, x).mean(1)


class Tokens(nn.Module):
    """Attention by torch's own module and by the function, with masks."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask = mask
        self.first = nn.MultiheadAttention(8, 2, batch_first=True)
        self.allowed = nn.Buffer(torch.ones(5, 5).tril().bool())
        self.added = nn.Buffer(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x, x, x, need_weights=False)[0]
        options: dict[str, object] = {
            "none": {},
            "causal": {"is_causal": True},
            "bool": {"attn_mask": self.allowed},
            "float": {"attn_mask": self.added},
            "scale": {"scale": 0.3},
        }[self.mask]  # type: ignore[assignment]
        return functional.scaled_dot_product_attention(x, x, x, **options).mean(1)  # type: ignore[arg-type]


CASES = {
    "convolution with norm": (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()), (3, 8, 8)),
    "convolution with bias and norm": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 8, 8)),
    "grouped, padded by name": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding="same"), nn.BatchNorm2d(4)), (4, 8, 8)),
    "norm without parameters": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (3, 8, 8)),
    "one dimension": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (3, 8)),
    "linear with norm": (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), (6,)),
    "norm over another axis": (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(5)), (5, 6)),
    "norm first": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), (3, 8, 8)),
    "functional": (Functional(), (3, 8, 8)),
    "weight norm": (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 3)), (6,)),
    "padding by wrapping": (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")), (3, 8, 8)),
    "in place": (InPlace(), (3, 8, 8)),
    "contractions": (Contractions(), (5, 8)),
    **{f"attention, {mask}": (Tokens(mask), (5, 8)) for mask in ("none", "causal", "bool", "float", "scale")},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_traced_network_equals_the_module_for_any_batch(case: str, batch: int) -> None:
    module, shape = CASES[case]
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = randomise(module)(x)
        torch.testing.assert_close(trace(module, x)(x), expected, rtol=1e-4, atol=1e-5)
        assert network.build(case, module, shape).logits(x.numpy()) == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("case", ["convolution with norm", "grouped, padded by name", "one dimension", "linear with norm"])
def test_batch_norm_is_folded(case: str) -> None:
    module, shape = CASES[case]
    targets = {node.target for node in trace(module, torch.zeros(1, *shape)).graph.nodes}
    assert BATCH_NORM not in targets


def test_a_norm_whose_layer_has_another_reader_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return self.norm(y) + y

    module = randomise(Shared())
    x = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(trace(module, x)(x), module(x))


def test_the_users_module_is_left_as_it_was() -> None:
    module = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in module.state_dict().items()}
    network.build("x", module, (3, 8, 8))
    for name, tensor in module.state_dict().items():
        assert torch.equal(before[name][0], tensor)
        assert before[name][1] == tensor.stride()
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_layers_are_named_after_their_weights_and_products_after_their_place() -> None:
    module, shape = CASES["attention, none"]
    names = [layer.name for layer in network.build("x", module, shape).layers]
    assert names == ["first.in_proj", "first.scores", "first.mix", "first.out_proj", "scores", "mix"]
    module, shape = CASES["functional"]
    assert [layer.name for layer in network.build("x", module, shape).layers] == ["kernel", "mixing"]


def test_a_parametrized_weight_is_stored() -> None:
    module, shape = CASES["weight norm"]
    layers = network.build("x", module, shape).layers
    assert [(layer.name, layer.workload.weights) for layer in layers] == [("0", 24), ("1", 12)]
    assert torch.nn.utils.parametrize.is_parametrized(module[0])  # type: ignore[index]


class Parts(nn.Module):
    """Weights that are parts and functions of parameters, and products under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = nn.Parameter(torch.randn(8, 4))
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        query = functional.linear(x, self.joined[:4])
        key = torch.linalg.matmul(x, (self.joined[4:] * 2).T)
        return self.last(torch.tensordot(query * key, torch.tanh(self.joined[:4]), dims=1))


def test_weights_computed_from_parameters_are_stored_weights() -> None:
    x = torch.randn(3, 4)
    built = network.build("x", Parts(), (4,))
    assert [(layer.name, layer.kind, layer.workload.weights) for layer in built.layers] == [
        ("joined", "linear", 16),
        ("joined_2", "linear", 16),
        ("joined_3", "linear", 16),
        ("last", "linear", 12),
    ]
    module = Parts()
    with torch.no_grad():
        torch.testing.assert_close(trace(module, x)(x), module(x))


def test_cross_attention_has_stored_projections() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, x.flip(1)).mean(1)

    module = Decoder().eval()
    built = network.build("x", module, (5, 8))
    assert [layer.workload.weights for layer in built.layers if layer.kind == "linear"] == [192, 64, 64, 128, 64, 128, 128]
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        assert built.logits(x.numpy()) == pytest.approx(module(x).numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda self, x: torch.matmul(self.weight, x), "first factor of a product must be computed, not stored"),
        (
            lambda self, x: torch.matmul(x, self.weight[0]),
            "second factor of a product must have two axes, or more where computed",
        ),
        (lambda self, x: nn.GRUCell(4, 4)(x[:, 0]) @ self.weight, "layers must be convolutions, linear or matrix products, not "),
    ],
)
def test_products_that_no_layer_stands_for_are_refused(forward: Callable[[nn.Module, Tensor], Tensor], message: str) -> None:
    module = nn.Linear(4, 4)
    module.forward = forward.__get__(module)  # type: ignore[method-assign]
    with pytest.raises(BitatlasError, match=message):
        network.build("x", module, (4, 4))


def test_a_computed_weight_is_refused() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Parameter(torch.ones(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.base * x.mean())

    with pytest.raises(BitatlasError, match=r"^weight of a linear must be stored, not computed by the network \(in the model\)$"):
        network.build("x", Computed(), (3,))


def test_contractions_are_products() -> None:
    module, shape = CASES["contractions"]
    assert [layer.kind for layer in network.build("x", module, shape).layers] == ["product", "product"]


def test_an_unsupported_layer_is_named() -> None:
    with pytest.raises(
        BitatlasError, match=r"^layers must be convolutions, linear or matrix products, not .*conv_transpose2d.* \(in 0\)$"
    ):
        trace(nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))


def test_a_model_that_cannot_be_traced_is_told_so() -> None:
    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.sum())

    with pytest.raises(BitatlasError, match=r"^model must be traceable by torch.export for any batch size, not fail: "):
        trace(Untraceable(), torch.zeros(1, 3))


def test_a_model_of_one_batch_size_is_told_so() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), -1)

    message = r"not be fixed to one: the batch axis must be read as x\.shape\[0\], not by len\(x\) or as a number$"
    with pytest.raises(BitatlasError, match=message):
        trace(Fixed(), torch.zeros(1, 3))


def test_a_model_without_layers_is_refused() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    with pytest.raises(
        BitatlasError, match=r"^model must have at least one convolution, linear layer or matrix product, not none: x$"
    ):
        network.build("x", Doubling(), (3,))
