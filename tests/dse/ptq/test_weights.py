"""Weights prepared by rows of steps: looked up where they were made before, and made anew where anything differs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.assignment import parse_quantizer
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.ptq import archive
from dse.ptq.bias_correction import CorrectBias
from dse.ptq.gptq import Gptq
from dse.ptq.weights import Recipe, WeightPreparer
from formats import BitatlasError


@pytest.fixture
def preparer(resnet8: Experiment, tmp_path: Path) -> WeightPreparer:
    return replace(resnet8.preparation.preparer, folder=tmp_path, _known={})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def counted(kind: type) -> None:
        original = kind.apply  # type: ignore[attr-defined]

        def apply(self: object, data: object, *rest: object) -> object:
            made.append(f"{kind.name} {data.layer.name}")  # type: ignore[attr-defined]
            return original(self, data, *rest)

        monkeypatch.setattr(kind, "apply", apply)

    counted(Gptq)
    counted(CorrectBias)
    return made


def recipe(weight: str = "int4", *steps: str) -> Recipe:
    return Recipe(quantizer=parse_quantizer(weight, "weight"), steps=steps)


def test_without_steps_a_weight_is_rounded_to_the_nearest_and_nothing_is_stored(preparer: WeightPreparer) -> None:
    (made,) = preparer.prepare({"stem": recipe()}).values()
    layer = preparer.network.layer("stem")
    assert layer.weight is not None
    np.testing.assert_array_equal(made.weight.values(), parse_quantizer("int4", "weight").encode(layer.weight).decode())
    assert not list(preparer.folder.iterdir())


def test_steps_run_in_the_order_of_the_row(preparer: WeightPreparer, calls: list[str]) -> None:
    preparer.prepare({"stem": recipe("int4", "gptq", "correct_bias"), "classifier": recipe("int4", "correct_bias")})
    assert calls == ["gptq stem", "correct_bias stem", "correct_bias classifier"]


def test_what_was_made_is_looked_up_in_this_run_and_the_next(preparer: WeightPreparer, calls: list[str]) -> None:
    first = preparer.prepare({"stem": recipe("int4", "gptq")})["stem"]
    assert preparer.prepare({"stem": recipe("int4", "gptq")})["stem"] is first
    next_run = replace(preparer, _known={})
    np.testing.assert_array_equal(next_run.prepare({"stem": recipe("int4", "gptq")})["stem"].weight.values(), first.weight.values())
    assert calls == ["gptq stem"]


@pytest.mark.parametrize(
    "other",
    [recipe("int3", "gptq"), recipe("int4:tensor", "gptq"), recipe("int4", "gptq(damping=0.5)"), recipe("int4", "correct_bias")],
)
def test_anything_else_is_made_anew(other: Recipe, preparer: WeightPreparer, calls: list[str]) -> None:
    preparer.prepare({"stem": recipe("int4", "gptq")})
    replace(preparer, _known={}).prepare({"stem": other})
    assert len(calls) == 2


def test_other_samples_or_another_network_are_something_else(preparer: WeightPreparer, calls: list[str]) -> None:
    preparer.prepare({"stem": recipe("int4", "gptq")})
    replace(preparer, digest="other", _known={}).prepare({"stem": recipe("int4", "gptq")})
    other_network = replace(preparer.network, digest="other")
    replace(preparer, network=other_network, _known={}).prepare({"stem": recipe("int4", "gptq")})
    assert len(calls) == 3


def test_a_block_is_prepared_together(preparer: WeightPreparer) -> None:
    row = recipe("int3", "round_block(iterations=20)")
    block = next(names for names in preparer.blocks if "block1.conv1" in names)
    assert "block1.conv2" in block
    made = preparer.prepare(dict.fromkeys(block, row))
    other = preparer.prepare({name: row if name == "block1.conv1" else recipe("int8", *row.steps) for name in block})
    assert made["block1.conv1"].history != other["block1.conv1"].history
    again = replace(preparer, _known={}).prepare(dict.fromkeys(block, row))
    for name in block:
        np.testing.assert_array_equal(again[name].weight.values(), made[name].weight.values())


def test_errors_name_the_layer(preparer: WeightPreparer) -> None:
    with pytest.raises(BitatlasError, match=r"layer 'stem'"):
        preparer.prepare({"stem": recipe("tritplanes", "gptq")})


def test_a_broken_file_is_named(preparer: WeightPreparer) -> None:
    preparer.prepare({"stem": recipe("int4", "gptq")})
    (path,) = preparer.folder.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BitatlasError, match="prepared weight must be a whole file"):
        replace(preparer, _known={}).prepare({"stem": recipe("int4", "gptq")})
    assert archive.PACKAGES


def test_a_prepared_weight_and_its_bias_enter_the_network(resnet8: Experiment) -> None:
    preparation, images = resnet8.preparation, resnet8.split("validation").images[:50]
    quantizers = parse_quantizer("int3", "weight"), parse_quantizer("int8", "activation")
    plain = preparation.uniform("m", "d", *quantizers)
    prepared = preparation.uniform("m", "d", *quantizers, ("gptq", "correct_bias"))
    exact = preparation.network.logits(images)
    errors = [float(np.square(quantized_logits(preparation, a, images) - exact).mean()) for a in (plain, prepared)]
    assert errors[1] < 0.5 * errors[0]
    assert ("stem", "bias") in preparation.fillings(prepared)
    assert ("stem", "bias") not in preparation.fillings(plain)
