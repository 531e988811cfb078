"""Models that onnxruntime's own static quantizer makes, as QDQ."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dse.data import Dataset
from dse.imports.model import read
from formats import BitatlasError
from tests.formats.samples import exactly

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnxruntime import quantization
    from onnxruntime.quantization import QuantType


class Residual(nn.Module):
    """Convolutions, an addition, two poolings and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.branch = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.down = nn.Conv2d(6, 8, 3, stride=2)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.branch(x))
        x = nn.functional.max_pool2d(x, 2)
        return 5 * self.classifier(torch.relu(self.down(x)).mean((2, 3)))


class Samples(quantization.CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter([{"images": images}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@pytest.fixture(scope="session")
def float_file(exported: Callable[..., Path]) -> Path:
    return exported(Residual(), opset_version=17)


@pytest.fixture
def quantized(float_file: Path, digits: Dataset, tmp_path: Path) -> Callable[..., Path]:
    def run(**options: Any) -> Path:
        path = tmp_path / "quantized.onnx"
        logging.disable(logging.WARNING)
        try:
            quantization.quantize_static(float_file, path, Samples(digits.calibration.images[:64]), **options)
        finally:
            logging.disable(logging.NOTSET)
        return path

    return run


def output_step(path: Path) -> float:
    """The scale of the last quantizer."""
    model = onnx.load(path)
    last = next(node for node in reversed(model.graph.node) if node.op_type == "DequantizeLinear")
    return float(onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == last.input[1])))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activation", [QuantType.QInt8, QuantType.QUInt8])
def test_static_quantization(
    activation: QuantType, per_channel: bool, quantized: Callable[..., Path], import_file: Callable[..., Any]
) -> None:
    path = quantized(activation_type=activation, weight_type=QuantType.QInt8, per_channel=per_channel)
    found = import_file(path)
    group = "channel" if per_channel else "tensor"
    wanted = (f"int8:{group}", "uint8", "exact")
    assert found.quantizers == dict.fromkeys(("stem", "branch", "down", "classifier"), wanted)
    # before and after the addition's other operand, after pooling the mean, and the output
    assert all(line.startswith("left in the float network: ") for line in found.imported.remarks)
    assert found.imported.exact
    found.assert_same(output_step(path))
    assert found.experiment.measure(found.imported.assignment).kl < 0.01


def test_unsigned_weights_with_a_zero_point(quantized: Callable[..., Path], import_file: Callable[..., Any]) -> None:
    options = {"ActivationSymmetric": False, "WeightSymmetric": False}
    path = quantized(activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8, extra_options=options)
    found = import_file(path)
    formats_found = [weight.removesuffix(":tensor") for weight, _, _ in found.quantizers.values()]
    assert sum(name.startswith("uint8_zero") for name in formats_found) >= 2
    assert {name for name in formats_found if not name.startswith("uint8_zero")} <= {"int8"}  # with the zero in the middle
    found.assert_same(output_step(path))


def test_four_bit_weights(quantized: Callable[..., Path], import_file: Callable[..., Any]) -> None:
    path = quantized(activation_type=QuantType.QInt16, weight_type=QuantType.QInt4, extra_options={"ActivationSymmetric": True})
    found = import_file(path)
    assert {weight for weight, _, _ in found.quantizers.values()} == {"int4:tensor"}
    assert {activation for _, activation, _ in found.quantizers.values()} == {"int16"}
    found.assert_same(output_step(path))


def test_a_relu_that_a_zero_point_stands_for_is_put_back(quantized: Callable[..., Path], import_file: Callable[..., Any]) -> None:
    path = quantized(activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
    assert "Relu" not in {node.op_type for node in onnx.load(path).graph.node}
    found = import_file(path)
    images = torch.from_numpy(found.images)
    with torch.no_grad():
        logits = found.model.module(images).numpy()
        expected = Residual().eval()(images).numpy()
    assert np.abs(logits - expected).max() < 0.2 * np.ptp(expected)


def test_a_float_network_is_searched_but_not_imported(float_file: Path, import_file: Callable[..., Any]) -> None:
    message = f"model must have quantizers to be imported, not none; a float network is for dse search: {float_file}"
    with pytest.raises(BitatlasError, match=exactly(message)):
        import_file(float_file)


def test_dynamic_quantization_is_refused_by_name(float_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_dynamic(float_file, path)
    finally:
        logging.disable(logging.NOTSET)
    start = (
        "quantizers must be static QuantizeLinear and DequantizeLinear, not DynamicQuantizeLinear: its scale is found at run time"
    )
    with pytest.raises(BitatlasError, match=f"^{start} \\(node .+\\): {path}$"):
        read(path)


def test_operators_on_codes_are_refused_by_name(quantized: Callable[..., Path]) -> None:
    path = quantized(quant_format=quantization.QuantFormat.QOperator)
    with pytest.raises(BitatlasError, match=r"^quantizers must be static .+, not QLinear\w+: it takes codes \(node .+\): "):
        read(path)
