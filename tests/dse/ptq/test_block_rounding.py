import numpy as np
import pytest
import torch
from torch import nn

from dse.experiment import prepare
from dse.models import loading
from dse.network import build
from dse.ptq.block_rounding import RoundBlock
from dse.ptq.blocks import block_of, blocks, nodes_by_layer, part, run
from dse.ptq.capture import operands
from dse.ptq.rounding import Round
from dse.ptq.step import LayerData, PreparedWeight
from formats import Quantizer
from tests.dse.ptq import layer_samples
from tests.dse.ptq.layer_samples import FORMATS
from tests.formats.samples import assert_same_bits


@pytest.fixture(scope="module")
def mobilenet(_own_cache):
    return prepare(loading.load("mobilenet", "digits"))


def prepared_by(network, quantizer):
    return {
        layer.name: PreparedWeight(encoded=quantizer.encode(layer.weight)) for layer in network.layers if layer.weight is not None
    }


def block_error(network, names, weights, images):
    """Mean squared error of what leaves the block, for the float network's input to it."""
    block = block_of(network, names)
    start = next(node for node in network.graph_module.graph.nodes if node.op == "placeholder")
    entry = images if block.entry is start else run(part(network, start, block.entry), images, 64)
    module = part(network, block.entry, block.exit)
    wanted = run(module, entry, 64)
    fillings = {(name, "weight"): lambda operand, name=name: torch.from_numpy(weights[name].values()) for name in block.layers}
    with network.filled(fillings):
        return np.square(run(module, entry, 64) - wanted).mean()


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("resnet8", ("block2.conv1", "block2.conv2", "block2.shortcut.0")),
        ("mobilenet", ("blocks.2.expand.0", "blocks.2.depthwise.0", "blocks.2.project.0")),
        ("vit", tuple(f"blocks.0.attention.{name}" for name in ("query", "key", "value", "output"))),
        ("vit", ("blocks.0.up", "blocks.0.down")),
    ],
)
@pytest.mark.parametrize("name", FORMATS[:3])
def test_round_block_lowers_the_error_of_the_block(model, names, name, request):
    experiment = request.getfixturevalue(model)
    network, images = experiment.preparation.network, experiment.split("calibration").images
    quantizer = Quantizer.parse(f"{name}:channel:mse")
    prepared = prepared_by(network, quantizer)
    step = RoundBlock(iterations=100, batch=16)
    found = step.apply(network, names, dict.fromkeys(names, quantizer), prepared, images)
    assert set(found) == set(names)
    assert block_error(network, names, found, images) < 0.75 * block_error(network, names, prepared, images)
    assert all(slot.filling is None for slot in network.graph_module.modules() if hasattr(slot, "filling"))


def test_round_block_builds_upon_what_round_found(vit):
    network, images = vit.preparation.network, vit.split("calibration").images
    quantizer, nodes = Quantizer.parse("e2m1:channel:mse"), nodes_by_layer(network)
    ratios = []
    for number in range(3):
        names = (f"blocks.{number}.up", f"blocks.{number}.down")
        inputs, prepared = operands(network, names, images), prepared_by(network, quantizer)
        for name in names:
            layer = network.layer(name)
            data = LayerData(layer=layer, node=nodes[name], bias=np.zeros(len(layer.weight), np.float32), inputs=inputs[name])
            prepared[name] = Round(iterations=100).apply(data, quantizer, prepared[name])
        found = RoundBlock(iterations=200).apply(network, names, {}, prepared, images)
        ratios.append(block_error(network, names, found, images) / block_error(network, names, prepared, images))
    assert max(ratios) <= 1
    assert min(ratios) < 0.98


def test_a_block_that_learning_makes_worse_stays_as_it_was(resnet8):
    network, images = resnet8.preparation.network, resnet8.split("calibration").images[:20]
    quantizer = Quantizer.parse("int8:channel:mse")
    prepared = prepared_by(network, quantizer)
    found = RoundBlock(iterations=2, learning_rate=10.0).apply(network, ("stem",), {}, prepared, images)
    assert found["stem"] is prepared["stem"]


def test_round_block_is_the_same_every_time_and_depends_on_its_seed(resnet8):
    network, images = resnet8.preparation.network, resnet8.split("calibration").images[:40]
    names, quantizer = ("block1.conv1", "block1.conv2"), Quantizer.parse("int3:channel:mse")
    prepared = prepared_by(network, quantizer)

    def found(seed):
        step = RoundBlock(iterations=40, batch=8, seed=seed)
        return step.apply(network, names, {}, prepared, images)["block1.conv2"].values()

    assert_same_bits(found(0), found(0))
    assert (found(0) != found(1)).any()


def test_a_chain_of_linear_layers_on_plain_vectors():
    torch.manual_seed(0)
    network = build("chain", nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), (8,))
    assert blocks(network) == (("0",), ("2",))
    quantizer, images = Quantizer.parse("pot4:channel"), layer_samples.operands((8,), 50)
    prepared = prepared_by(network, quantizer)
    found = RoundBlock(iterations=100).apply(network, ("0",), {}, prepared, images)
    assert block_error(network, ("0",), found, images) < 0.7 * block_error(network, ("0",), prepared, images)
