"""Networks with other stored tensors: the same graph and layers, another digest, and no memory in common."""

import numpy as np
import pytest
import torch
from torch import nn

from dse import network
from dse.experiment import Experiment
from dse.network import Network
from dse.ptq.rewrite import Change, changed_tensors, factors, rewritten, rounded, stored_tensor, with_tensors
from dse.ptq.spaces import Space, spaces
from formats import BitatlasError, InvalidValueError

IMAGES = np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def original() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(16, 4))
    return network.build("three", module, (3, 6, 6))


def state(given: Network) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in given.graph_module.state_dict().items()}


def test_only_the_tensors_that_are_named_are_other_ones(original: Network) -> None:
    before = state(original)
    weight = torch.full((5, 3, 3, 3), 0.25)
    other = with_tensors(original, {"0.weight": weight})
    after = state(other)
    assert after.keys() == before.keys()
    assert [name for name in after if not np.array_equal(after[name], before[name])] == ["0.weight"]
    np.testing.assert_array_equal(other.layer("0").weight, weight.numpy())
    np.testing.assert_array_equal(other.layer("2").weight, original.layer("2").weight)
    assert other.digest != original.digest
    assert [(layer.name, layer.kind, layer.workload) for layer in other.layers] == [
        (layer.name, layer.kind, layer.workload) for layer in original.layers
    ]


def test_the_network_itself_stays(original: Network) -> None:
    before, logits = state(original), original.logits(IMAGES)
    other = with_tensors(original, {"0.weight": torch.zeros(5, 3, 3, 3)})
    for tensor in other.graph_module.state_dict().values():
        tensor.zero_()
    np.testing.assert_array_equal(original.logits(IMAGES), logits)
    for name, values in state(original).items():
        np.testing.assert_array_equal(values, before[name])


def test_equal_tensors_have_equal_digests(original: Network) -> None:
    weight = stored_tensor(original, "0.weight") + 1
    once, twice = with_tensors(original, {"0.weight": weight}), with_tensors(with_tensors(original, {}), {"0.weight": weight})
    assert once.digest == twice.digest
    assert once.digest != with_tensors(original, {"0.weight": weight + 1}).digest


def test_slots_of_a_copy_are_its_own(original: Network) -> None:
    other = with_tensors(original, {})
    expected = original.logits(IMAGES)
    with other.filled({("0", "activation"): torch.zeros_like}):
        np.testing.assert_array_equal(original.logits(IMAGES), expected)
        assert not np.array_equal(other.logits(IMAGES), expected)


def test_the_graph_reads_the_new_tensors(resnet8: Experiment) -> None:
    given = resnet8.preparation.network
    bias = torch.arange(10, dtype=torch.float32)
    other = with_tensors(given, {"classifier.weight": torch.zeros(10, 48), "classifier.bias": bias})
    np.testing.assert_array_equal(other.logits(resnet8.split("validation").images[:2]), np.stack([bias.numpy()] * 2))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("0.weigth", torch.zeros(1), "tensor must be stored in network 'three', not '0.weigth'"),
        ("0.bias", torch.zeros(4), "tensor '0.bias' must be (5,) torch.float32, not (4,) torch.float32"),
        ("0.bias", torch.zeros(5, dtype=torch.float64), "tensor '0.bias' must be (5,) torch.float32, not (5,) torch.float64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(original: Network, name: str, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        with_tensors(original, {name: tensor})
    assert str(error.value) == message


def test_diagonal_changes_multiply_what_is_written_and_divide_what_is_read(original: Network) -> None:
    first = spaces(original, "diagonal")[0]
    scales = np.array([1.0, 2.0, 0.5, 4.0, 1.0])
    tensors = changed_tensors(original, [Change(space=first, map=scales)])
    np.testing.assert_array_equal(tensors["0.weight"], original.layer("0").weight * scales[:, None, None, None])
    np.testing.assert_array_equal(tensors["0.bias"], stored_tensor(original, "0.bias").numpy() * scales)
    np.testing.assert_array_equal(tensors["2.weight"], original.layer("2").weight / scales[None, :, None, None])
    assert set(tensors) == {"0.weight", "0.bias", "2.weight"}


def test_changes_after_each_other_are_one_change(original: Network) -> None:
    """Tensors stay float64 between changes and are rounded once."""
    space = spaces(original, "diagonal")[0]
    scales = np.array([1.1, 0.7, 1.3, 0.9, 3.3])
    there, back = Change(space=space, map=scales), Change(space=space, map=1 / scales)
    tensors = rounded(changed_tensors(original, [there, back]))
    for name, tensor in tensors.items():
        assert torch.equal(tensor, stored_tensor(original, name)), name


def broken(space: Space) -> Space:
    """The same space without one of its readers."""
    return Space(passes=space.passes, size=space.size, members=tuple(m for m in space.members if m.sign > 0), readings=())


def test_a_changed_function_is_an_error_that_names_the_space(original: Network) -> None:
    """A guard against a wrong rule for an operator: here a space that lacks what reads it."""
    good, bad = spaces(original, "diagonal")
    changes = [Change(space=space, map=np.full(space.size, 1.5)) for space in (good, broken(bad))]
    with pytest.raises(BitatlasError) as error:
        rewritten(original, changes, IMAGES)
    assert str(error.value) == "logits must be the same after a change of channels, not differ (space 2 ->  (4 channels))"


def test_nothing_to_compare_on_is_an_error(original: Network) -> None:
    with pytest.raises(ValueError, match="images to compare networks on must be at least one, not none"):
        rewritten(original, [], IMAGES[:0])


def test_factors_of_what_reads_are_inverse(original: Network) -> None:
    space = spaces(original, "diagonal")[0]
    scales = np.array([2.0, 4.0, 8.0, 16.0, 32.0])
    found = {(member.tensor, member.sign): factors(member, scales).ravel() for member in space.members}
    np.testing.assert_array_equal(found["0.weight", 1], scales)
    np.testing.assert_array_equal(found["2.weight", -1], 1 / scales)
