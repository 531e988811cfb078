"""Layers that read one tensor share their formats, and so do those that a pattern names."""

import pytest
import torch
from torch import Tensor, nn

from dse.experiment import Experiment
from dse.network import Network, build
from dse.ties import ties
from formats import InvalidValueError


def test_first_convolution_and_shortcut_of_a_block_are_tied(resnet8: Experiment) -> None:
    groups = ties(resnet8.preparation.network)
    assert groups == (
        ("stem",),
        ("block1.conv1",),
        ("block1.conv2",),
        ("block2.conv1", "block2.shortcut.0"),
        ("block2.conv2",),
        ("block3.conv1", "block3.shortcut.0"),
        ("block3.conv2",),
        ("classifier",),
    )


def test_query_key_and_value_are_tied_and_products_are_not(vit: Experiment) -> None:
    groups = ties(vit.preparation.network)
    first = "blocks.0.attention"
    assert (f"{first}.query", f"{first}.key", f"{first}.value") in groups
    assert {(f"{first}.scores",), (f"{first}.mix",), (f"{first}.output",)} <= set(groups)


def test_without_automatic_ties_every_layer_stands_alone(resnet8: Experiment) -> None:
    network = resnet8.preparation.network
    assert ties(network, automatic=False) == tuple((layer.name,) for layer in network.layers)


class Moved(nn.Module):
    """Two linear layers that read one tensor in two shapes, and one that reads its rectified values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        moved = x.reshape(-1, 2, 2).transpose(1, 2).reshape(-1, 4)
        return self.first(x) + self.second(moved) + self.third(torch.relu(x))


@pytest.fixture(scope="module")
def moved() -> Network:
    return build("moved", Moved(), (4,))


def test_moving_values_keeps_a_tie_and_changing_them_does_not(moved: Network) -> None:
    assert ties(moved) == (("first", "second"), ("third",))


def test_patterns_tie_what_captures_equal_text(vit: Experiment) -> None:
    groups = ties(vit.preparation.network, [r"blocks\.(\d+)\.(?:up|down)"], automatic=False)
    tied = [group for group in groups if len(group) > 1]
    assert tied == [(f"blocks.{block}.up", f"blocks.{block}.down") for block in range(3)]


def test_ties_are_united_across_patterns_and_with_automatic_ones(moved: Network) -> None:
    assert ties(moved, ["second|third"]) == (("first", "second", "third"),)
    assert ties(moved, ["first|third", "second|third"], automatic=False) == (("first", "second", "third"),)


def test_a_pattern_that_matches_nothing_names_the_nearest_layers(vit: Experiment) -> None:
    with pytest.raises(InvalidValueError) as raised:
        ties(vit.preparation.network, ["blocks.0.attention.querry"])
    message = "pattern of ties must match a layer's whole name, not 'blocks.0.attention.querry'; nearest: blocks.0.attention.query"
    assert str(raised.value).startswith(message)


def test_a_pattern_must_be_a_regular_expression(moved: Network) -> None:
    with pytest.raises(InvalidValueError, match=r"pattern of ties must be a regular expression, not '\(' \(missing \)"):
        ties(moved, ["("])
