"""Models that Brevitas exports, as QONNX and as QCDQ."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dse.imports.model import read
from formats import BitatlasError

pytest.importorskip("brevitas")
pytest.importorskip("qonnx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from brevitas import nn as qnn
    from brevitas import quant
    from brevitas.export import export_onnx_qcdq, export_qonnx
    from brevitas.quant import float_quant_ocp

EXPORTS = {"qonnx": export_qonnx, "qcdq": export_onnx_qcdq}
Exporter = Callable[..., Path]


@pytest.fixture
def from_brevitas(tmp_path: Path) -> Exporter:
    def run(network: nn.Module, kind: str) -> Path:
        path = tmp_path / f"{kind}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.train()
            for seed in range(3):
                network(torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))
            network.eval()
            EXPORTS[kind](network, torch.rand(1, 1, 8, 8), str(path), dynamo=False)
        return path

    return run


class Convolutions(nn.Module):
    """Scales by tensor and by channel, a bias on the grid of products and one that is not, pooling after a quantizer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.first = qnn.QuantConv2d(1, 4, 3, padding=1, bias=True, weight_bit_width=4, bias_quant=quant.Int32Bias, **options)
        self.relu = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.second = qnn.QuantConv2d(
            4, 8, 3, bias=True, weight_bit_width=3, weight_quant=quant.Int8WeightPerChannelFloat, **options
        )
        self.rounded = qnn.QuantReLU(bit_width=5)
        self.last = qnn.QuantLinear(32, 10, bias=True, weight_bit_width=4)
        with torch.no_grad():
            self.last.weight *= 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first(self.input(x))))
        return self.last(self.rounded(self.second(x)).flatten(1))


@pytest.mark.parametrize("kind", EXPORTS)
def test_integers(kind: str, from_brevitas: Exporter, import_file: Callable[..., Any]) -> None:
    found = import_file(from_brevitas(Convolutions(), kind))
    assert found.quantizers == {
        "first": ("int4_narrow:tensor", "int8", "exact"),
        "second": ("int3_narrow:channel", "uint4", "float32"),
        "last": ("int4_narrow:tensor", "uint5", "float32"),
    }
    assert found.imported.remarks == ()
    assert found.imported.exact
    found.assert_same()


class Residual(nn.Module):
    """An addition of two quantized tensors; zero points; an input that is not quantized."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        shifted = quant.ShiftedUint8ActPerTensorFloat
        self.stem = qnn.QuantConv2d(1, 6, 3, padding=1, bias=False, weight_bit_width=8)
        self.common = qnn.QuantIdentity(act_quant=shifted, return_quant_tensor=True)
        self.branch = qnn.QuantConv2d(6, 6, 3, padding=1, bias=False, weight_bit_width=2)
        self.head = qnn.QuantLinear(6 * 64, 10, bias=False, weight_bit_width=8)
        self.after = qnn.QuantIdentity(act_quant=shifted, return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.common(self.stem(x))
        return self.head(self.after(x + self.common(self.branch(x))).flatten(1))


@pytest.mark.parametrize("kind", EXPORTS)
def test_zero_points_and_a_quantizer_before_an_addition(
    kind: str, from_brevitas: Exporter, import_file: Callable[..., Any]
) -> None:
    found = import_file(from_brevitas(Residual(), kind))
    formats_found = {name: (weight, activation) for name, (weight, activation, _) in found.quantizers.items()}
    assert formats_found["stem"] == ("int8_narrow:tensor", "float16")
    assert formats_found["branch"][0] == "ternary:tensor"
    assert formats_found["branch"][1].startswith("uint8_zero")
    assert formats_found["head"][1].startswith("uint8_zero")
    kept, not_exact = found.imported.remarks[:-1], found.imported.remarks[-1]
    assert len(kept) == 2  # the branch's and the stem's, which the addition reads
    assert all(line.startswith("left in the float network: uint8_zero") for line in kept)
    assert not_exact == "not quantized in the model: activation of layer 'stem'; float16 stands in, and is not exact"
    assert not found.imported.exact
    assert (found.logits().argmax(axis=1) == found.own_logits().argmax(axis=1)).mean() > 0.9


def test_minifloats(from_brevitas: Exporter, import_file: Callable[..., Any]) -> None:
    class Minifloats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            small = {"bit_width": 4, "exponent_bit_width": 2, "mantissa_bit_width": 1}
            self.input = qnn.QuantIdentity(act_quant=float_quant_ocp.Fp8e4m3OCPActPerTensorFloat, return_quant_tensor=True)
            weight = float_quant_ocp.FpOCPWeightPerTensorFloat
            self.first = qnn.QuantLinear(64, 32, bias=True, weight_quant=weight, **{f"weight_{k}": v for k, v in small.items()})
            self.relu = qnn.QuantReLU(act_quant=float_quant_ocp.FpOCPActPerTensorFloat, **small)
            self.last = qnn.QuantLinear(32, 10, bias=True, weight_quant=float_quant_ocp.Fp8e5m2OCPWeightPerTensorFloat)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.relu(self.first(self.input(x.flatten(1)))))

    found = import_file(from_brevitas(Minifloats(), "qonnx"))
    assert found.quantizers == {
        "first": ("e2m1:tensor", "float8_e4m3fn", "float32"),
        "last": ("float8_e5m2:tensor", "e2m1", "float32"),
    }
    found.assert_same()


def test_signs(from_brevitas: Exporter, import_file: Callable[..., Any]) -> None:
    class Signs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.input = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
            self.first = qnn.QuantLinear(64, 32, bias=True, weight_quant=quant.SignedBinaryWeightPerTensorConst)
            self.sign = qnn.QuantIdentity(act_quant=quant.SignedBinaryActPerTensorConst, return_quant_tensor=True)
            self.last = qnn.QuantLinear(32, 10, bias=True, weight_quant=quant.SignedTernaryWeightPerTensorConst)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.sign(self.first(self.input(x.flatten(1)))))

    found = import_file(from_brevitas(Signs(), "qonnx"))
    assert found.quantizers == {
        "first": ("binary:tensor", "int8", "float32"),
        "last": ("ternary:tensor", "binary", "float32"),
    }
    found.assert_same()


def test_codes_come_back_as_they_are(from_brevitas: Exporter, import_file: Callable[..., Any]) -> None:
    network = Convolutions()
    found = import_file(from_brevitas(network, "qcdq"))
    for name in ("first", "second", "last"):
        weight = found.imported.assignment.layers[name].weight
        encoded = weight.encode(found.experiment.preparation.network.layer(name).weight)
        own = getattr(network, name).quant_weight()
        np.testing.assert_array_equal(weight.format.values[encoded.codes], own.int().numpy())
        np.testing.assert_array_equal(encoded.scales, own.scale.detach().numpy().reshape(-1))


def test_a_trunc_is_refused_by_name(from_brevitas: Exporter) -> None:
    class Truncated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
            self.pool = qnn.TruncAvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.input(x)).value

    path = from_brevitas(Truncated(), "qonnx")
    with pytest.raises(BitatlasError, match=r"^quantizers must be Quant, BipolarQuant or FloatQuant, not Trunc: it drops bits of "):
        read(path)
