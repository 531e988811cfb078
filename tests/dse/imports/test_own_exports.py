"""What this project exports comes back: formats, scales, codes and answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dse.assignment import Assignment, LayerAssignment, parse_quantizer
from dse.data import Dataset
from dse.experiment import Experiment, prepare
from dse.export import targets
from dse.imports.model import read
from dse.models.loading import of_module
from formats import BitatlasError, Quantizer

#: weight and activation by layer, in turn
MIXED = {
    "qdq,codebook": ("int4 uint8", "int3:tensor uint5", "e2m1 e4m3", "pot4 int8", "nf4:group16 ue2m2", "uint8_zero100 uint8_zero3"),
    "codebook": ("post4 uint4", "lloydmax3:tensor e3m2", "apot4 int6", "binary:channel:absmax ulog2_4"),
    "qonnx": ("int4 uint8", "e2m1 ue4m4", "ternary int5", "int8_narrow:tensor uint3"),
}


def assignment(experiment: Experiment, pairs: tuple[str, ...]) -> Assignment:
    layers = {}
    for number, layer in enumerate(experiment.preparation.network.layers):
        weight, activation = pairs[number % len(pairs)].split()
        layers[layer.name] = LayerAssignment(
            weight=parse_quantizer(weight, "weight"), activation=parse_quantizer(activation, "activation")
        )
    return Assignment(model="resnet8", data="digits", layers=layers)


@pytest.mark.parametrize("target", MIXED)
def test_an_export_comes_back(target: str, resnet8: Experiment, tmp_path: Path, import_file: Callable[..., Any]) -> None:
    given = assignment(resnet8, MIXED[target])
    path = tmp_path / "model.onnx"
    onnx.save(targets.export(resnet8, given, targets.parse(target)), path)
    found = import_file(path)
    assert found.imported.remarks == ()
    assert list(found.imported.assignment.layers) == list(given.layers)
    stored = resnet8.preparation.stored_weights(given.layers)
    for name, layer in found.imported.assignment.layers.items():
        own = given.layers[name]
        assert str(layer.weight).split(":")[:2] == str(own.weight).split(":")[:2]
        assert str(layer.activation).split(":")[0] == str(own.activation).split(":")[0]
        assert isinstance(layer.weight, Quantizer)
        encoded = layer.weight.encode(found.experiment.preparation.network.layer(name).weight)
        expected: Any = stored[name].encoded
        values = layer.weight.format.values  # those of the two zeros are equal: a type of ONNX may have but one
        np.testing.assert_array_equal(values[encoded.codes], values[expected.codes])
        np.testing.assert_array_equal(encoded.scales, expected.scales)
    found.assert_same()


@pytest.mark.parametrize("weight", ["mxfp4", "tritplanes:group32"])
def test_weights_without_a_format_of_their_own_come_back_by_what_the_file_tells(
    weight: str, resnet8: Experiment, tmp_path: Path, import_file: Callable[..., Any]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(targets.export(resnet8, assignment(resnet8, (f"{weight} uint8",)), ("qdq", "codebook")), path)
    found = import_file(path)
    layers = found.imported.assignment.layers.values()
    same = [str(layer.weight).startswith(weight.split(":")[0]) for layer in layers]
    not_exact = [line for line in found.imported.remarks if line.startswith("not quantized in the model: weight of layer ")]
    assert len(not_exact) == same.count(False)
    if weight == "mxfp4":
        assert all(same)
        found.assert_same()


class Attention(nn.Module):
    """Rows of pixels as tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.squeeze(1)
        return self.classifier((tokens + self.attention(tokens, tokens, tokens)[0]).flatten(1))


def test_products_come_back(tmp_path: Path, digits: Dataset, import_file: Callable[..., Any]) -> None:
    own = prepare(of_module("attention", Attention(), digits))
    given = own.preparation.uniform("attention", "digits", parse_quantizer("int8", "weight"), parse_quantizer("int8", "activation"))
    path = tmp_path / "model.onnx"
    onnx.save(targets.export(own, given, ("qdq",)), path)
    found = import_file(path)
    names = [f"{layer.name}.product" if layer.weight is None else layer.name for layer in own.preparation.network.layers]
    assert sum(name.endswith(".product") for name in names) == 2
    assert list(found.imported.assignment.layers) == names
    assert [str(layer.weight).split(":")[0] for layer in found.imported.assignment.layers.values()] == ["int8"] * len(names)
    assert found.imported.exact
    found.assert_same(step=0.05)


def test_a_broken_assignment_in_the_file_is_named(resnet8: Experiment, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = targets.export(resnet8, assignment(resnet8, ("int4 uint8",)), ("qdq",))
    next(entry for entry in model.metadata_props if entry.key == "bitatlas.assignment").value = "{"
    onnx.save(model, path)
    with pytest.raises(BitatlasError, match=r"^bitatlas\.assignment of an ONNX model must be an assignment, not broken "):
        read(path)
