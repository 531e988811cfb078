import numpy as np
import pytest
import torch
from torch import nn

from dse.network import build
from dse.ptq.capture import operands, stored
from tests.formats.samples import exactly, normal


class Branches(nn.Module):
    """Two layers read one tensor, and a third what one of them makes."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Linear(3, 4)

    def forward(self, x):
        x = x.relu()
        return self.last((self.left(x) + self.right(x)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("branches", Branches(), (2, 6, 6))


IMAGES = normal(20, 2, 6, 6)


def test_operands_are_what_the_layers_read_whatever_the_batch(network):
    whole = operands(network, ["left", "last"], IMAGES)
    np.testing.assert_array_equal(whole["left"], np.maximum(IMAGES, 0))
    assert whole["last"].shape == (20, 3)
    found = operands(network, ["left", "last"], IMAGES, batch=3)
    np.testing.assert_array_equal(found["left"], whole["left"])
    np.testing.assert_allclose(found["last"], whole["last"], rtol=1e-5)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in whole.values())


def test_layers_that_read_one_tensor_share_it(network):
    found = operands(network, ["left", "right"], IMAGES)
    assert found["left"] is found["right"]
    assert not found["left"].flags.writeable


def test_samples_takes_the_first_images(network):
    few = operands(network, ["last"], IMAGES, samples=5)["last"]
    np.testing.assert_array_equal(few, operands(network, ["last"], IMAGES[:5])["last"])
    assert few.shape == (5, 3)


def test_slots_are_empty_afterwards(network):
    before = network.logits(IMAGES)
    operands(network, ["left"], IMAGES)
    np.testing.assert_array_equal(network.logits(IMAGES), before)


def test_no_images_are_refused(network):
    with pytest.raises(ValueError, match=exactly("images to look at operands on must be at least one, not none")):
        operands(network, ["left"], IMAGES[:0])


def test_products_of_activations_are_refused(vit):
    layer = vit.preparation.network.layer("blocks.0.attention.scores")
    message = (
        "layer must have a stored weight to be prepared, not be a product of two activations (layer 'blocks.0.attention.scores')"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        stored(layer)
    with pytest.raises(ValueError, match=exactly(message)):
        operands(vit.preparation.network, [layer.name], IMAGES)
