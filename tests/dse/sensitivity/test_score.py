"""Sensitivities against their plain definitions: the whole network run with one group quantized, gradients of the whole network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from dse.network import Filling, Network, Place, build
from dse.sensitivity import Group, score
from dse.sensitivity import solo as solo_module
from dse.sensitivity.interpreter import all_values
from dse.settings import Fingerprint
from dse.ties import ties
from formats import BitatlasError, InvalidValueError

Fillings = Mapping[tuple[str, Place], Filling]
#: steps of a uniform grid that operands are rounded to, by option
STEPS = {"fine": 2.0**-8, "middle": 2.0**-6, "coarse": 2.0**-4}
OPTIONS = ("none", *STEPS)


class Rounded:
    """Rounds to a grid, and overwrites what it is given, as fillings may."""

    def __init__(self, step: float) -> None:
        self.step = step

    def __call__(self, operand: Tensor) -> Tensor:
        return operand.div_(self.step).round_().mul_(self.step)


class Shifted:
    """Adds to a bias."""

    def __init__(self, change: float) -> None:
        self.change = change

    def __call__(self, operand: Tensor) -> Tensor:
        return operand + self.change


class Stored:
    """A weight prepared beforehand: never written to."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, operand: Tensor) -> Tensor:
        return self.values


class Small(nn.Module):
    """A convolution, a shortcut, a product of two activations and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.branch(y) + self.shortcut(y)).flatten(2)
        return 4 * self.classifier(torch.matmul(y, y.transpose(1, 2)).flatten(1) / 9)


@pytest.fixture(scope="module")
def network() -> Network:
    return build("small", Small(), (1, 3, 3))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 1, 3, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def groups(network: Network) -> list[Group]:
    return [Group(name="+".join(layers), layers=layers, options=OPTIONS) for layers in ties(network)]


def fillings_of(network: Network) -> "FillingsOf":  # noqa: F821
    def made(group: Group, option: str) -> dict[tuple[str, Place], Filling]:
        found: dict[tuple[str, Place], Filling] = {}
        for name in group.layers if option != "none" else ():
            layer, step = network.layer(name), STEPS[option]
            found[name, "activation"] = Rounded(step)
            found[name, "weight"] = (
                Rounded(step) if layer.weight is None else Stored(torch.round(torch.from_numpy(layer.weight) / step) * step)
            )
            if layer.weight is not None:
                found[name, "bias"] = Shifted(0.1 * step)
        return found

    return made


def plain(network: Network, fillings: Fillings, images: np.ndarray) -> np.ndarray:
    """Run the network's own graph with its slots filled; operands are copied, since here fillings get them as they are."""
    copying = {key: lambda operand, filling=filling: filling(operand.clone()) for key, filling in fillings.items()}
    with network.filled(copying):
        return network.logits(images)


def divergence(reference: np.ndarray, found: np.ndarray) -> float:
    p, q = (torch.log_softmax(torch.from_numpy(part).double(), dim=1) for part in (reference, found))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


def test_groups_here_are_tied_layers_single_ones_and_a_product(groups: list[Group], network: Network) -> None:
    assert [group.layers for group in groups] == [("first",), ("branch", "shortcut"), ("product",), ("classifier",)]
    assert [layer.kind for layer in network.layers] == ["convolution", "convolution", "convolution", "product", "linear"]


def test_the_rest_of_the_network_gives_the_logits_of_the_whole(network: Network, groups: list[Group], images: np.ndarray) -> None:
    with torch.inference_mode():
        values, reference = all_values(network, torch.from_numpy(images))
        assert (reference.numpy() == network.logits(images)).all()
        for group in groups:
            start = solo_module.unchanged(network, group, values)
            for option in OPTIONS:
                fillings = fillings_of(network)(group, option)
                found = solo_module.logits(network, fillings, start).numpy()
                assert (found == plain(network, fillings, images)).all(), (group, option)


def test_only_what_a_group_changes_is_run_again(network: Network, groups: list[Group], images: np.ndarray) -> None:
    with torch.inference_mode():
        values, _ = all_values(network, torch.from_numpy(images))
    left = [sum(node not in solo_module.unchanged(network, group, values) for node in values) for group in groups]
    assert left == sorted(left, reverse=True)
    assert left[-1] < left[0] / 3


def test_solo_is_the_divergence_of_the_whole_network(network: Network, groups: list[Group], images: np.ndarray) -> None:
    reference = network.logits(images)
    found = score(network, groups, fillings_of(network), images, method="solo", batch=16)
    for group, losses in zip(groups, found, strict=True):
        wanted = [divergence(reference, plain(network, fillings_of(network)(group, option), images)) for option in OPTIONS]
        assert losses == pytest.approx(wanted, rel=1e-5, abs=1e-9)
        assert losses[0] == 0 < losses[1] < losses[3]


@pytest.mark.parametrize(("method", "within"), [("gradient", 2.0), ("gradient-diagonal", 6.0)])
def test_gradients_predict_the_divergence_of_small_errors(
    network: Network, groups: list[Group], method: str, within: float
) -> None:
    """The normalisation: half the Fisher form, in nats for each sample."""
    images = np.random.default_rng(1).normal(size=(2000, 1, 3, 3)).astype(np.float32)
    solo, found = (score(network, groups, fillings_of(network), images, method=name) for name in ("solo", method))
    for exact, estimate in zip(solo, found, strict=True):
        assert estimate[0] == 0
        assert exact[1] / within < estimate[1] < exact[1] * within
        assert spearmanr(exact, estimate).statistic == 1


def test_the_full_form_is_the_fisher_information_by_definition(network: Network, images: np.ndarray) -> None:
    """One layer at the output, where the gradient of the loss is softmax less the label: the mean over labels has a closed form."""
    group = Group(name="classifier", layers=("classifier",), options=("coarse",))
    many = np.repeat(images[:4], 4000, axis=0)
    found = score(network, [group], fillings_of(network), many, method="gradient")[0][0]
    change = torch.from_numpy(
        plain(network, fillings_of(network)(group, "coarse"), images[:4]) - network.logits(images[:4])
    ).double()
    p = torch.softmax(torch.from_numpy(network.logits(images[:4])).double(), dim=1)
    variance = (p * change**2).sum(dim=1) - (p * change).sum(dim=1) ** 2
    assert found == pytest.approx(0.5 * float(variance.mean()), rel=0.05)


@pytest.mark.parametrize("method", ["gradient", "solo"])
def test_scores_do_not_depend_on_threads_and_repeat(
    network: Network, groups: list[Group], images: np.ndarray, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for threads in ("1", "3", "3"):
        monkeypatch.setenv("BITATLAS_THREADS", threads)
        scores = score(network, groups, fillings_of(network), images, method=method, batch=8)
        found.append([part.tolist() for part in scores])
    assert found[0] == found[1] == found[2]


def test_labels_are_drawn_by_the_seed(network: Network, groups: list[Group], images: np.ndarray) -> None:
    first, same, other = (score(network, groups, fillings_of(network), images, seed=seed)[0].tolist() for seed in (0, 0, 1))
    assert first == same != other


def test_the_network_and_its_slots_stay_as_they_were(network: Network, groups: list[Group], images: np.ndarray) -> None:
    before = network.logits(images)
    for method in ("gradient", "solo"):
        score(network, groups, fillings_of(network), images, method=method)
    assert (network.logits(images) == before).all()


def test_an_interrupted_scoring_goes_on_where_it_was(
    network: Network, groups: list[Group], images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITATLAS_THREADS", "1")
    path, fingerprint = tmp_path / "partial.json", Fingerprint(parts={"network": network.digest})
    whole = score(network, groups, fillings_of(network), images, method="solo", batch=10)
    run, done = solo_module.batch_scores, list[object]()

    def interrupted(*arguments: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments)
        return run(*arguments)  # type: ignore[arg-type]

    def again(**changes: object) -> object:
        options = {"method": "solo", "batch": 10, "partial_file": path, "fingerprint": fingerprint, **changes}
        return score(network, groups, fillings_of(network), images, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(solo_module, "batch_scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again()
    with pytest.raises(BitatlasError, match=r"not stale .*batch was 10, is 25"):
        again(batch=25)
    calls: list[object] = []
    monkeypatch.setattr(solo_module, "batch_scores", lambda *arguments: calls.append(arguments) or run(*arguments))
    found = again()
    assert len(calls) == 2  # of five batches three were done before
    assert [part.tolist() for part in found] == [part.tolist() for part in whole]  # type: ignore[attr-defined]
    assert not path.exists()


def test_what_cannot_be_scored_is_refused(network: Network, groups: list[Group], images: np.ndarray) -> None:
    fill = fillings_of(network)
    with pytest.raises(KeyError, match="method of sensitivities must be a known name, not 'solos'; nearest: solo"):
        score(network, groups, fill, images, method="solos")
    with pytest.raises(InvalidValueError, match=r"layers of groups must be in the network, not 'third' \(group 'x'\)"):
        score(network, [Group(name="x", layers=("third",), options=("fine",))], fill, images)
    with pytest.raises(InvalidValueError, match=r"layers of groups must be in one group, not 'first' \(group 'first'\)"):
        score(network, [groups[0], groups[0]], fill, images)
    with pytest.raises(InvalidValueError, match=r"a group must have layers and options, not lack them \(group 'x'\)"):
        score(network, [Group(name="x", layers=("first",), options=())], fill, images)
    with pytest.raises(InvalidValueError, match=r"fillings must be for the group's layers, not for 'first' \(group 'classifier'"):
        score(network, groups[-1:], lambda group, option: fill(groups[0], "fine"), images)
    with pytest.raises(InvalidValueError, match="samples must be at least one, not none"):
        score(network, groups, fill, images[:0])
    with pytest.raises(InvalidValueError, match="fingerprint must be given with a file for what is done"):
        score(network, groups, fill, images, partial_file=Path("x"))
    with pytest.raises(BitatlasError, match="logits must be finite, not NaN or Inf in"):
        score(
            network,
            groups[-1:],
            lambda group, option: {("classifier", "bias"): Stored(torch.full((5,), np.nan))},
            images,
            method="solo",
        )
