import numpy as np
import pytest
from torch import nn

from dse.experiment import prepare
from dse.models import loading
from dse.network import build
from dse.ptq.blocks import block_of, blocks, nodes_by_layer, part, run
from tests.formats.samples import exactly


@pytest.fixture(scope="module")
def mobilenet(_own_cache):
    return prepare(loading.load("mobilenet", "digits"))


def test_blocks_of_resnet8(resnet8):
    assert blocks(resnet8.preparation.network) == (
        ("stem",),
        ("block1.conv1", "block1.conv2"),
        ("block2.conv1", "block2.conv2", "block2.shortcut.0"),
        ("block3.conv1", "block3.conv2", "block3.shortcut.0"),
        ("classifier",),
    )


def test_blocks_of_mobilenet(mobilenet):
    """Only two of its inverted bottlenecks have a residual sum: the others are chains."""
    assert blocks(mobilenet.preparation.network) == (
        ("stem.0",),
        ("blocks.0.depthwise.0", "blocks.0.project.0"),
        ("blocks.1.expand.0",),
        ("blocks.1.depthwise.0",),
        ("blocks.1.project.0",),
        ("blocks.2.expand.0", "blocks.2.depthwise.0", "blocks.2.project.0"),
        ("blocks.3.expand.0",),
        ("blocks.3.depthwise.0",),
        ("blocks.3.project.0",),
        ("head.0",),
        ("classifier",),
    )


def test_blocks_of_vit(vit):
    """Attention, whose two products have no stored weight, and the perceptron, in turn."""
    found = blocks(vit.preparation.network)
    expected = [("embed",)]
    for number in range(3):
        attention = tuple(f"blocks.{number}.attention.{name}" for name in ("query", "key", "value", "output"))
        expected += [attention, (f"blocks.{number}.up", f"blocks.{number}.down")]
    assert found == (*expected, ("classifier",))


@pytest.mark.parametrize("name", ["resnet8", "mobilenet", "vit"])
def test_blocks_one_after_the_other_are_the_network(name, request):
    experiment = request.getfixturevalue(name)
    network, images = experiment.preparation.network, experiment.split("calibration").images[:40]
    values = images
    for names in blocks(network):
        block = block_of(network, names)
        values = run(part(network, block.entry, block.exit), values, 16)
    np.testing.assert_allclose(values, network.logits(images), rtol=1e-4, atol=1e-4)
    assert [node.target.__name__ for node in nodes_by_layer(network).values()][-1] == "linear.default"


def test_other_layers_are_refused(resnet8):
    message = "layers must be those of one block, not block1.conv1; nearest: block1.conv1, block1.conv2"
    with pytest.raises(ValueError, match=exactly(message)):
        block_of(resnet8.preparation.network, ["block1.conv1"])
    with pytest.raises(ValueError, match=r"nearest: block2\.conv1, block2\.conv2, block2\.shortcut\.0$"):
        block_of(resnet8.preparation.network, ["block1.conv1", "block2.conv1", "block2.conv2", "block2.shortcut.0"])


class Skipping(nn.Module):
    """Two layers whose outputs each lead past the other's end: no cut point between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        a = self.first(x).relu()
        b = self.second(a).relu()
        return self.last((self.third(b) + a).relu() * b)


def test_what_leads_past_a_tensor_joins_what_lies_on_both_sides():
    network = build("skipping", Skipping(), (6,))
    assert blocks(network) == (("first",), ("second", "third"), ("last",))
