"""Files that cannot be imported: one line each, which names the file and, where it is one's fault, the node."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dse.imports.model import read
from dse.models import loading
from formats import BitatlasError
from tests.formats.samples import exactly, normal

ByHand = Callable[..., Path]


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"the {operator}", **attributes)


FLAT = node("Flatten", ["images"], "flat")
LAST = node("MatMul", ["flat", "weight"], "logits")
STORED = {"weight": normal(64, 10)}


def refused(path: Path) -> str:
    with pytest.raises(BitatlasError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(f": {path}")
    return text.removesuffix(f": {path}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.onnx") == "file must be readable, not fail (No such file or directory)"


def test_a_file_of_another_kind_or_cut_short(tmp_path: Path, by_hand: ByHand) -> None:
    whole = by_hand([FLAT, LAST], STORED).read_bytes()
    for content in (b"Not a model at all.\n", whole[:-300], whole[: len(whole) // 2], b"\x89PNG\r\n\x1a\n" + bytes(100)):
        (tmp_path / "model.onnx").write_bytes(content)
        assert refused(tmp_path / "model.onnx") == "file must be a whole ONNX model, not another kind of file or one cut short"
    for content in (b"", whole[:10]):
        (tmp_path / "model.onnx").write_bytes(content)
        assert refused(tmp_path / "model.onnx").startswith("file must ")


def test_a_tensor_cut_short(by_hand: ByHand) -> None:
    path = by_hand([FLAT, LAST], STORED)
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    path.write_bytes(model.SerializeToString())
    assert refused(path).startswith("tensor of an ONNX model must be whole, not broken (")


def test_a_missing_file_of_tensors(by_hand: ByHand) -> None:
    path = by_hand([FLAT, LAST], STORED)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="tensors.bin", size_threshold=0)
    assert read(path).layers
    (path.parent / "tensors.bin").unlink()
    assert refused(path).startswith("tensors beside an ONNX model must be readable, not fail (")


def test_an_operator_set_ahead_of_what_is_known(by_hand: ByHand) -> None:
    newest = onnx.defs.onnx_opset_version()
    for opset in (12, newest + 1):
        assert refused(by_hand([FLAT, LAST], STORED, opset)) == f"opset of an ONNX model must be 13 to {newest}, not {opset}"


def test_an_operator_that_is_not_known(by_hand: ByHand) -> None:
    path = by_hand([FLAT, node("Sigmoidal", ["flat"], "s"), node("MatMul", ["s", "weight"], "logits")], STORED)
    known = "operator of an ONNX model must be a known name, not 'Sigmoidal'; nearest: Sigmoid"
    assert refused(path).startswith(known)
    assert refused(path).endswith("(node 'the Sigmoidal')")
    custom = helper.make_node("Fancy", ["flat"], ["s"], name="mine", domain="some.one")
    path = by_hand([FLAT, custom, node("MatMul", ["s", "weight"], "logits")], STORED, 21, "some.one")
    assert "not 'some.one.Fancy'" in refused(path)


def test_a_transposed_convolution(by_hand: ByHand) -> None:
    nodes = [node("ConvTranspose", ["images", "kernel"], "c"), node("Flatten", ["c"], "flat"), LAST]
    assert "not 'ConvTranspose'" in refused(by_hand(nodes, STORED | {"kernel": normal(1, 1, 1, 1)}))


def test_computed_weights(by_hand: ByHand) -> None:
    path = by_hand([FLAT, node("Gemm", ["flat", "flat"], "logits", transB=1)], {})
    assert refused(path) == "Gemm must take computed activations, and stored weights and biases, not otherwise (node 'the Gemm')"


def test_a_gemm_that_is_no_linear_layer(by_hand: ByHand) -> None:
    path = by_hand([FLAT, node("Gemm", ["flat", "weight"], "logits", alpha=0.5)], STORED)
    found = "alpha 0.5, beta 1, transA 0"
    assert refused(path) == (
        f"Gemm must multiply by its second factor alone, alpha 1, beta 1, transA 0, not {found} (node 'the Gemm')"
    )


def quantized(scale: Any, zero: Any, *after: onnx.NodeProto) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    nodes = [
        FLAT,
        node("QuantizeLinear", ["flat", "scale", "zero"], "codes"),
        *(after or (node("DequantizeLinear", ["codes", "scale", "zero"], "rounded"),)),
        node("MatMul", ["rounded", "weight"], "logits"),
    ]
    return nodes, STORED | {"scale": np.asarray(scale, np.float32), "zero": np.asarray(zero)}


def test_a_scale_for_each_value_of_an_activation(by_hand: ByHand) -> None:
    path = by_hand(*quantized(np.ones(64), np.zeros(64, np.uint8)))
    assert refused(path) == "scale of QuantizeLinear must be one number, not 64 (node 'the QuantizeLinear')"


def test_codes_that_are_read_as_such(by_hand: ByHand) -> None:
    path = by_hand(*quantized(0.1, np.uint8(0), node("Relu", ["codes"], "rounded")))
    assert refused(path) == "operators must read dequantized values, not codes as Relu does (node 'the Relu')"


def test_codes_dequantized_by_another_scale(by_hand: ByHand) -> None:
    other = node("DequantizeLinear", ["codes", "half", "zero"], "rounded")
    nodes, stored = quantized(0.1, np.uint8(0), other)
    path = by_hand(nodes, stored | {"half": np.float32(0.5)})
    message = "codes must be dequantized as they were quantized, not by another scale or zero point (node 'the DequantizeLinear')"
    assert refused(path) == message


def test_a_clip_to_what_no_integers_are(by_hand: ByHand) -> None:
    nodes, stored = quantized(
        0.1, np.int8(0), node("Clip", ["codes", "low", "high"], "c"), node("DequantizeLinear", ["c", "scale", "zero"], "rounded")
    )
    path = by_hand(nodes, stored | {"low": np.int8(-5), "high": np.int8(12)})
    limits = "all of 1 to 16 bits, or all but the lowest of signed ones"
    assert refused(path) == f"codes of an integer quantizer must be {limits}, not -5 to 12 (node 'the QuantizeLinear')"


def test_zero_points_that_differ_by_channel(by_hand: ByHand) -> None:
    weight = node("DequantizeLinear", ["codes", "scales", "zeros"], "weight", axis=1)
    stored = {"codes": np.ones((64, 10), np.uint8), "scales": np.full(10, 0.1, np.float32), "zeros": np.arange(10, dtype=np.uint8)}
    path = by_hand([weight, FLAT, LAST], stored)
    assert refused(path) == "zero points of a stored tensor must be all the same, not 0 and 1 (node 'the DequantizeLinear')"


def quant(source: str, output: str, **attributes: Any) -> onnx.NodeProto:
    given = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"} | attributes
    inputs = [source, "scale", "zero", "bits"]
    return helper.make_node("Quant", inputs, [output], name="the Quant", domain="qonnx.custom_op.general", **given)


@pytest.mark.parametrize(
    ("attributes", "stored", "message"),
    [
        ({"rounding_mode": "FLOOR"}, {}, "rounding of Quant must be ROUND, not FLOOR (node 'the Quant')"),
        ({}, {"bits": 3.5}, "bit width and zero point of Quant must be whole, not 3.5 and 0 (node 'the Quant')"),
        ({}, {"scale": np.ones(64)}, "an activation must be quantized by one scale and at most 16 bits (node 'the Quant')"),
        ({}, {"bits": 20.0}, "an activation must be quantized by one scale and at most 16 bits (node 'the Quant')"),
        (
            {"signed": 0, "narrow": 1},
            {},
            "codes of an integer quantizer must be all of 1 to 16 bits, or all but the lowest of signed ones, not 0 to 14 "
            "(node 'the Quant')",
        ),
    ],
)
def test_quantizers_of_qonnx(attributes: dict[str, Any], stored: dict[str, Any], message: str, by_hand: ByHand) -> None:
    given = {name: np.float32(value) for name, value in ({"scale": 0.1, "zero": 0.0, "bits": 4.0} | stored).items()}
    nodes = [FLAT, quant("flat", "rounded", **attributes), node("MatMul", ["rounded", "weight"], "logits")]
    assert refused(by_hand(nodes, STORED | given, 21, "qonnx.custom_op.general")) == message


def test_a_model_of_other_samples(by_hand: ByHand) -> None:
    path = by_hand([FLAT, LAST], {"weight": normal(32, 10)})
    with pytest.raises(
        BitatlasError, match=r"^model must run on samples of shape \(1, 8, 8\), not fail \(RuntimeError: "
    ) as caught:
        loading.load(str(path), "digits")
    assert str(caught.value).endswith(f": {path}")


def test_more_than_one_input(by_hand: ByHand) -> None:
    path = by_hand([FLAT, LAST], {})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [64, 10]))
    onnx.save(model, path)
    assert refused(path) == "model must have one input and one output, not 2 and 1"


def test_the_file_is_named_once(by_hand: ByHand) -> None:
    path = by_hand([FLAT, node("Gemm", ["flat", "flat"], "logits")], {})
    with pytest.raises(BitatlasError, match=exactly(refused(path) + f": {path}")):
        loading.load(str(path), "digits")
    assert len(re.findall(re.escape(str(path)), refused(path))) == 0
