"""Targets by name, what they refuse, and what the model says of itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest

import formats
from dse.assignment import Assignment, read
from dse.experiment import Experiment
from dse.export import codebook, metadata, qdq, runtime, targets
from dse.ptq.weights import WeightPreparer
from formats import BitatlasError, Quantizer

Uniform = Callable[[Experiment, str, str], Assignment]
HELD = "integers, binary or minifloats that a type of ONNX holds (INT2 to INT16, FLOAT8…)"
ROUNDED = "a format that QuantizeLinear rounds to (INT2 to UINT16, FLOAT8…)"


def refusal(experiment: Experiment, assignment: Assignment, *names: str) -> str:
    with pytest.raises(BitatlasError) as caught:
        targets.export(experiment, assignment, names)
    return str(caught.value)


def test_targets_are_read_in_the_order_in_which_they_are_tried() -> None:
    assert targets.parse("codebook,qdq,codebook") == ("codebook", "qdq")
    assert targets.parse("integer") == ("integer",)
    assert set(targets.NAMES) == {"qdq", "qonnx", "codebook", "fp4", "integer"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qdk", "target must be a known name, not 'qdk'; nearest: qdq"),
        ("", "target must be a known name, not ''; valid: qdq, qonnx, codebook, fp4, integer"),
        ("qdq,integer", "target integer must be given alone, not with qdq"),
    ],
)
def test_other_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        targets.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("mxfp4:block:absmax", "codebook"),
        ("tritplanes:group32", "codebook"),
        ("post4:channel:mse", "codebook"),
        ("nf4:channel:mse", "codebook"),
        ("pot4:tensor:mse", "qonnx, codebook"),
    ],
)
def test_a_weight_that_a_target_cannot_hold_is_refused_before_any_is_prepared(
    resnet8: Experiment, uniform: Uniform, monkeypatch: pytest.MonkeyPatch, text: str, others: str
) -> None:
    monkeypatch.delattr(WeightPreparer, "prepare")
    found = refusal(resnet8, uniform(resnet8, text, "int8"), "qdq")
    assert found == f"weight exported by qdq must be {HELD}, not {text} (layer 'stem'); targets that can: {others}"


@pytest.mark.parametrize("names", [("qdq",), ("codebook",), ("qonnx",)])
def test_scales_that_are_given_for_each_channel_are_written(resnet8: Experiment, uniform: Uniform, names: tuple[str, ...]) -> None:
    given = uniform(resnet8, "int8:channel:mse", "int8")
    weight = resnet8.preparation.network.layer("stem").weight
    assert weight is not None
    scales = ",".join(str(0.01 + number / 1024) for number in range(len(weight)))
    layer = replace(given.layers["stem"], weight=Quantizer.parse(f"int8:channel:at{scales}"))
    targets.export(resnet8, replace(given, layers={**given.layers, "stem": layer}), names)


def test_an_activation_that_a_target_does_not_round_to_is_refused_before_any_weight_is_prepared(
    resnet8: Experiment, uniform: Uniform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(WeightPreparer, "prepare")
    found = refusal(resnet8, uniform(resnet8, "int4", "post4"), "qdq")
    assert found == f"activation exported by qdq must be {ROUNDED}, not ulogsqrt2_4 (layer 'stem'); targets that can: codebook"


def test_a_method_that_looks_for_a_format_is_refused_once_it_has_found_one(resnet8: Experiment, uniform: Uniform) -> None:
    found = refusal(resnet8, uniform(resnet8, "int4", "tanq4"), "qdq")
    assert found.startswith(f"activation exported by qdq must be {ROUNDED}, not tanq4_")
    assert "targets that can: codebook" in found


def test_where_several_targets_cannot_all_say_why(resnet8: Experiment, uniform: Uniform) -> None:
    found = refusal(resnet8, uniform(resnet8, "e4m3", "int8"), "fp4")
    said = "weight exported by fp4 must be e2m1 or a part of it, not"
    assert found == f"{said} e4m3:channel:mse (layer 'stem'); targets that can: qdq, qonnx, codebook"
    found = refusal(resnet8, uniform(resnet8, "mxfp4", "int8"), "fp4", "qdq")
    assert found.startswith(f"{said} mxfp4:block:absmax, and exported by qdq must be ")


def test_the_first_target_that_can_writes_an_operand(resnet8: Experiment, uniform: Uniform) -> None:
    assignment = uniform(resnet8, "int4", "int8")
    for names, operators in ((("qdq", "codebook"), {"DequantizeLinear"}), (("codebook", "qdq"), {"decode_int4", "quantize_uint8"})):
        model = targets.export(resnet8, assignment, names)
        assert operators <= {node.op_type for node in model.graph.node}


def test_a_model_says_where_it_comes_from(resnet8: Experiment, uniform: Uniform, tmp_path: Path) -> None:
    assignment = uniform(resnet8, "int4:channel:mse:power_of_two", "int4")
    model = targets.export(resnet8, assignment)
    found = {item.key: item.value for item in model.metadata_props}
    (tmp_path / "a.json").write_text(found["bitatlas.assignment"])
    assert read(tmp_path / "a.json", list(assignment.layers)) == assignment
    costs = json.loads(found["bitatlas.costs"])
    assert {name: row["value"] for name, row in costs.items()} == resnet8.cost(assignment).total
    assert costs["weight_bits"]["unit"] == "bit"
    assert json.loads(found["bitatlas.versions"])["onnx"] == onnx.__version__
    assert set(json.loads(found["bitatlas.versions"])) == {"bitatlas", "onnx", "torch"}
    assert found["bitatlas.calibration"] == resnet8.preparation.calibration.digest
    assert found["bitatlas.network"] == resnet8.preparation.network.digest
    assert found["bitatlas.targets"] == "qdq,codebook"


def test_costs_that_are_not_known_are_left_out_with_the_reason(resnet8: Experiment, uniform: Uniform) -> None:
    found = metadata.properties(resnet8, uniform(resnet8, "tritplanes:group32", "int8"), ("codebook",))
    assert "lut" not in json.loads(found["bitatlas.costs"])
    assert "quantizer must write the codes of one format here" in json.loads(found["bitatlas.not_priced"])[0]


def test_fp4_is_written_for_the_record_and_not_run(resnet8: Experiment, uniform: Uniform) -> None:
    model = targets.export(resnet8, uniform(resnet8, "e2m1", "int8"), ("fp4", "qdq"))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert stored["stem/weight/codes"].data_type == onnx.TensorProto.FLOAT4E2M1
    assert len(stored["stem/weight/codes"].raw_data) == 108 // 2
    assert {imported.domain: imported.version for imported in model.opset_import} == {"": 23}
    assert runtime.obstacle(model) == "onnxruntime has no kernels for FLOAT4E2M1"
    assert runtime.obstacle(targets.export(resnet8, uniform(resnet8, "e2m1", "post4"))) == ""


def test_fp4_stands_for_the_emulators_values(
    start: Callable[..., object], make_model: Callable[..., onnx.ModelProto], same_bits: Callable[..., bool]
) -> None:
    """By the slow reference of the onnx package."""
    x = np.random.default_rng(0).normal(size=200).astype(np.float32) * 4
    x = np.concatenate([x, np.float32([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, 100, -0.25, -2.5])])
    operands, encoded = start(qdq.FP4), Quantizer.parse("e2m1:channel").encode(x.reshape(1, -1))
    operands.weight("w", encoded)
    operands.activation("a", formats.scalar("e2m1"), 0.5)
    model = make_model(operands.parts, {"w": 2, "a": 1})
    weight, activation = onnx.reference.ReferenceEvaluator(model).run(["w", "a"], {"x": x})
    assert same_bits(weight, encoded.decode())
    assert same_bits(activation, formats.scalar("e2m1").quantize(x, 0.5))


def test_a_method_without_a_decoder_is_refused(make_quantizer: Callable[..., object]) -> None:
    class Unknown:
        quantizer = "mine:tensor"

    stored = type("Stored", (), {"prepared": type("Prepared", (), {"encoded": Unknown(), "low_rank": None})()})()
    said = "exported by codebook must be a format, a block format or a method with a decoder, not mine:tensor"
    assert codebook.LOWERING.weight_refusal(stored) == said
    assert codebook.LOWERING.activation_refusal(make_quantizer(formats.scalar("nf4"), 1.0)) == ""


def test_what_targets_do_is_said_in_a_line() -> None:
    assert all(targets.lowering(name).name == name and targets.lowering(name).summary for name in ("qdq", "codebook", "fp4"))
