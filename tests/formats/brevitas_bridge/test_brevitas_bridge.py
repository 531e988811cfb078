import builtins
import importlib
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import formats
from formats import BitatlasError, BlockFormat
from tests.formats.samples import assert_same_bits, exactly, normal

pytest.importorskip("brevitas", reason="Brevitas is not installed")

import brevitas.nn as qnn
from brevitas.core.utils import SingleArgStatelessBuffer
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from brevitas.quant.float_base import (
    Fp4e2m1Mixin,
    Fp6e2m3Mixin,
    Fp6e3m2Mixin,
    Fp8e4m3Mixin,
    Fp8e5m2Mixin,
    ScaledFloatActBase,
    ScaledFloatWeightBase,
)
from brevitas.quant.float_quant_ocp import FpOCPWeightPerTensorFloat
from brevitas.quant_tensor import (
    FloatQuantTensor,
    GroupwiseFloatQuantTensor,
    GroupwiseIntQuantTensor,
    IntQuantTensor,
)

from formats.brevitas_bridge import FormatQuantTensor, activation_quantizer, weight_quantizer

INTEGERS = ("int4", "int8", "int8_narrow", "uint4", "ternary", "binary")
FLOATS = ("e2m1", "e3m2", "e4m3", "ue3m2", "e8m2", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "bfloat16")
OTHERS = ("pot4", "post4", "nf4", "ulog2_4", "ulogsqrt2_5", "float8_e8m0fnu")
SCALARS = (*INTEGERS, *FLOATS, *OTHERS)
BLOCKS = ("mxfp4", "nvfp4", "mxint8", "mxfp8_e4m3")


def tensor(*shape, seed=0, spread=1.0):
    return torch.from_numpy(normal(*shape, seed=seed, spread=spread))


def linear(weight=None, activation=None, *, features=40, **settings):
    torch.manual_seed(0)
    return qnn.QuantLinear(features, 6, weight_quant=weight, input_quant=activation, **settings)


def convolution(weight=None, activation=None, kind=qnn.QuantConv2d, **settings):
    torch.manual_seed(0)
    return kind(8, 6, 3, weight_quant=weight, input_quant=activation, **settings)


def by_numpy(name, x, scale):
    return formats.get(name).quantize(x.detach().numpy(), scale.detach().numpy())


def assert_values(quantized, name, x):
    """What came out is the format's, for the scale that Brevitas reports."""
    assert_same_bits(quantized.value.detach().numpy(), by_numpy(name, x, quantized.scale))


class TestWeights:
    @pytest.mark.parametrize("name", SCALARS)
    @pytest.mark.parametrize("granularity", ["tensor", "channel", "group4"])
    @pytest.mark.parametrize("scaling", ["parameter", "statistics"])
    def test_the_values_are_the_formats(self, name, granularity, scaling):
        quantizer = weight_quantizer(name, granularity=granularity, scaling=scaling)
        for layer in (linear(quantizer), convolution(quantizer), linear(quantizer, features=5)):
            assert_values(layer.quant_weight(), name, layer.weight)

    @pytest.mark.parametrize("name", ["int4", "e2m1", "nf4"])
    def test_the_scales_shape(self, name):
        assert linear(weight_quantizer(name, granularity="tensor")).quant_weight().scale.shape == ()
        assert linear(weight_quantizer(name)).quant_weight().scale.shape == (6, 1)
        assert convolution(weight_quantizer(name)).quant_weight().scale.shape == (6, 1, 1, 1)
        transposed = convolution(weight_quantizer(name), kind=qnn.QuantConvTranspose2d)
        assert transposed.quant_weight().scale.shape == (1, 6, 1, 1)
        assert_values(transposed.quant_weight(), name, transposed.weight)

    @pytest.mark.parametrize("name", SCALARS)
    def test_the_scale_takes_the_largest_magnitude_to_the_largest_level(self, name):
        layer = linear(weight_quantizer(name))
        expected = layer.weight.detach().abs().amax(1, keepdim=True) / torch.tensor(formats.get(name).largest)
        smallest = torch.finfo(torch.float32).tiny
        torch.testing.assert_close(layer.quant_weight().scale.detach(), expected.clamp(min=smallest), rtol=1e-6, atol=0)

    @pytest.mark.parametrize("name", ["int4", "e4m3", "nf4"])
    def test_groups_have_their_own_scales(self, name):
        layer = linear(weight_quantizer(name, granularity="group8"))
        found = layer.quant_weight()
        groups = layer.weight.detach().reshape(6, 5, 8)
        expected = groups.abs().amax(2, keepdim=True) / formats.get(name).largest
        torch.testing.assert_close(found.scale.detach().reshape(6, 5, 8), expected.expand(6, 5, 8))

    @pytest.mark.parametrize("name", ["int4", "e2m1", "pot4"])
    def test_a_percentile(self, name):
        layer = linear(weight_quantizer(name, granularity="tensor", choice="percentile90"))
        magnitudes = layer.weight.detach().abs().flatten().sort().values
        torch.testing.assert_close(
            layer.quant_weight().scale, magnitudes[math.floor(0.9 * 240 + 0.5) - 1] / formats.get(name).largest
        )

    @pytest.mark.parametrize("name", ["int4", "e2m1", "nf4", "post4"])
    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    def test_the_least_squared_error(self, name, granularity):
        errors = {}
        for choice in ("absmax", "mse"):
            layer = linear(weight_quantizer(name, granularity=granularity, choice=choice))
            layer.weight.data.copy_(tensor(6, 40))
            layer.weight_quant.init_tensor_quant()
            found = layer.quant_weight()
            assert_values(found, name, layer.weight)
            errors[choice] = (found.value - layer.weight).square().sum().item()
        assert errors["mse"] < errors["absmax"]

    @pytest.mark.parametrize("rounding", ["nearest_away", "toward_zero"])
    def test_other_roundings(self, rounding):
        layer = linear(weight_quantizer("int4", rounding=rounding))
        found = layer.quant_weight()
        expected = formats.get("int4").quantize(layer.weight.detach().numpy(), found.scale.detach().numpy(), rounding=rounding)
        assert_same_bits(found.value.detach().numpy(), expected)

    @pytest.mark.parametrize("scaling", ["parameter", "statistics"])
    def test_whether_the_scale_follows_the_weight(self, scaling):
        layer = linear(weight_quantizer("int4", scaling=scaling))
        before = layer.quant_weight().scale.clone()
        layer.weight.data.mul_(2)
        follows = scaling == "statistics"
        assert torch.equal(layer.quant_weight().scale, before * 2 if follows else before)
        assert any("scaling_impl" in name for name, _ in layer.named_parameters()) != follows

    @pytest.mark.parametrize("name", BLOCKS)
    def test_blocks_run_along_the_input_channels(self, name):
        for layer, axis in (
            (linear(weight_quantizer(name)), 1),
            (convolution(weight_quantizer(name)), 1),
            (convolution(weight_quantizer(name), kind=qnn.QuantConvTranspose2d), 0),
            (linear(weight_quantizer(name, axis=0)), 0),
        ):
            found = layer.quant_weight()
            assert_same_bits(found.value.detach().numpy(), formats.get(name).quantize(layer.weight.detach().numpy(), axis))

    @pytest.mark.parametrize("name", BLOCKS)
    def test_blocks_report_their_scales(self, name):
        """A value over its block's scale is a level."""
        fmt = formats.get(name)
        found = linear(weight_quantizer(name)).quant_weight()
        assert found.scale.shape == (6, math.ceil(40 / fmt.block))
        levels = found.value / found.scale.repeat_interleave(fmt.block, 1)[:, :40]
        known = torch.tensor(fmt.element.values[np.isfinite(fmt.element.values)], dtype=torch.float32)
        nearest = (levels.unsqueeze(-1) - known).abs().amin(-1)
        torch.testing.assert_close(nearest, torch.zeros_like(nearest), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("name", ["int4", "e2m1", "nf4"])
    def test_a_shared_quantizer_has_one_scale(self, name):
        first = linear(weight_quantizer(name, granularity="tensor"))
        second = qnn.QuantLinear(40, 6, weight_quant=first.weight_quant)
        second.weight.data.mul_(3)
        assert torch.equal(first.quant_weight().scale, second.quant_weight().scale)
        assert_values(second.quant_weight(), name, second.weight)

    @pytest.mark.parametrize("name", ["int4", "e2m1", "nf4"])
    def test_a_weight_of_zeros(self, name):
        layer = linear(weight_quantizer(name))
        layer.weight.data.zero_()
        layer.weight_quant.init_tensor_quant()
        found = layer.quant_weight()
        assert (found.scale > 0).all()
        assert (found.value == 0).all()

    @pytest.mark.parametrize("name", ["int4", "e4m3", "pot4", "mxfp4"])
    def test_a_layer_in_bfloat16_gets_values_rounded_to_it(self, name):
        layer = linear(weight_quantizer(name), activation_quantizer(name)).to(torch.bfloat16)
        found = layer.quant_weight()
        fmt, weight = formats.get(name), layer.weight.detach().float().numpy()
        wide = (
            fmt.quantize(weight, 1) if isinstance(fmt, BlockFormat) else fmt.quantize(weight, found.scale.detach().float().numpy())
        )
        assert torch.equal(found.value, torch.from_numpy(wide).to(torch.bfloat16))
        assert layer(tensor(2, 40).to(torch.bfloat16)).dtype == torch.bfloat16


class TestActivations:
    @pytest.mark.parametrize("name", SCALARS)
    def test_the_values_are_the_formats(self, name):
        layer = qnn.QuantIdentity(act_quant=activation_quantizer(name), return_quant_tensor=True)
        x = tensor(5, 40)
        assert_values(layer(x), name, x)
        layer.eval()
        for scale in (0.5, 2):
            assert_values(layer(x * scale), name, x * scale)

    @pytest.mark.parametrize("name", BLOCKS)
    def test_blocks_run_along_the_layers_input_channels(self, name):
        fmt, flat, image = formats.get(name), tensor(5, 7, 40), tensor(2, 8, 5, 5)
        found = linear(None, activation_quantizer(name)).input_quant(flat)
        assert_same_bits(found.value.numpy(), fmt.quantize(flat.numpy(), -1))
        found = convolution(None, activation_quantizer(name)).input_quant(image)
        assert_same_bits(found.value.numpy(), fmt.quantize(image.numpy(), 1))
        found = qnn.QuantIdentity(act_quant=activation_quantizer(name, axis=2), return_quant_tensor=True)(image)
        assert_same_bits(found.value.numpy(), fmt.quantize(image.numpy(), 2))

    @pytest.mark.parametrize("name", ["uint4", "ue2m2", "ulog2_4", "int8", "nf4"])
    def test_within_a_rectifier(self, name):
        layer = qnn.QuantReLU(act_quant=activation_quantizer(name), return_quant_tensor=True)
        x = tensor(5, 40)
        assert_values(layer(x), name, x.relu())

    @pytest.mark.parametrize("kind", [qnn.QuantSigmoid, qnn.QuantTanh, qnn.QuantHardTanh])
    def test_within_other_activations(self, kind):
        settings = {"min_val": -1.0, "max_val": 1.0} if kind is qnn.QuantHardTanh else {}
        layer = kind(act_quant=activation_quantizer("e3m2"), return_quant_tensor=True, **settings)
        found = layer(tensor(5, 40))
        assert_same_bits(by_numpy("e3m2", found.value, found.scale), found.value.detach().numpy())

    @pytest.mark.parametrize("name", ["int8", "e4m3", "post4"])
    def test_the_scale_averages_what_training_passes_saw(self, name):
        layer = qnn.QuantIdentity(act_quant=activation_quantizer(name, steps=2))
        largest = [layer(tensor(50, seed=seed)) is not None and tensor(50, seed=seed).abs().max() for seed in range(2)]
        layer.eval()
        average = largest[0] + 0.1 * (largest[1] - largest[0])  # Brevitas' momentum
        torch.testing.assert_close(layer.act_quant.scale().detach(), average / formats.get(name).largest)
        layer.train()
        layer(tensor(50) * 100)  # the scale is a parameter by now
        torch.testing.assert_close(layer.act_quant.scale().detach(), average / formats.get(name).largest)

    def test_a_percentile(self):
        layer = qnn.QuantIdentity(act_quant=activation_quantizer("int8", choice="percentile50"), return_quant_tensor=True)
        x = tensor(101)
        torch.testing.assert_close(layer(x).scale, x.abs().median() / 127)

    def test_the_least_squared_error(self):
        x, errors = tensor(1000), {}
        for choice in ("absmax", "mse"):
            layer = qnn.QuantIdentity(act_quant=activation_quantizer("int4", choice=choice), return_quant_tensor=True)
            errors[choice] = (layer(x).value - x).square().sum()
        assert errors["mse"] < errors["absmax"]

    def test_a_scale_for_each_channel_as_brevitas_has_it(self):
        quantizer = activation_quantizer("nf4").let(
            scaling_per_output_type="channel", per_channel_broadcastable_shape=(1, 8, 1, 1), scaling_stats_permute_dims=(1, 0, 2, 3)
        )
        layer = qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=True)
        x = tensor(2, 8, 5, 5)
        found = layer(x)
        assert found.scale.shape == (1, 8, 1, 1)
        assert_values(found, "nf4", x)
        assert layer.eval().act_quant.scale().shape == (1, 8, 1, 1)

    def test_scales_of_powers_of_two_as_brevitas_has_them(self):
        layer = qnn.QuantIdentity(act_quant=activation_quantizer("e2m1").let(restrict_scaling_type="power_of_two"))
        layer(tensor(50))
        mantissa, _ = torch.frexp(layer.act_quant.scale())
        assert mantissa.item() == 0.5

    def test_nan_is_refused(self):
        with pytest.raises(ValueError, match="values for int4 must be numbers, not NaN in 1 elements"):
            qnn.QuantIdentity(act_quant=activation_quantizer("int4").let(scaling_impl_type="const", scaling_init=1.0))(
                torch.tensor([1.0, math.nan])
            )


class TestQuantTensors:
    @pytest.mark.parametrize("name", INTEGERS)
    def test_integers(self, name):
        fmt, layer = formats.get(name), linear(weight_quantizer(name))
        found = layer.quant_weight()
        assert isinstance(found, IntQuantTensor)
        assert (found.bit_width.item(), found.signed, found.zero_point.item()) == (fmt.bits, fmt.signed, 0)
        codes = fmt.encode(layer.weight.detach().numpy(), found.scale.detach().numpy())
        np.testing.assert_array_equal(found.int().numpy(), fmt.values[codes])

    @pytest.mark.parametrize("name", FLOATS)
    def test_minifloats(self, name):
        layer = linear(weight_quantizer(name))
        found = layer.quant_weight()
        assert isinstance(found, FloatQuantTensor)
        fmt = formats.get(name)
        assert found.exponent_bit_width + found.mantissa_bit_width + fmt.signed == fmt.bits
        smallest = 2.0 ** (1 - found.exponent_bias - found.mantissa_bit_width).item()
        assert smallest == fmt.values[fmt.values > 0].min()
        assert found.signed == fmt.signed
        if not name.startswith("e8"):  # its numbers over their scale leave what Brevitas computes with
            codes = fmt.encode(layer.weight.detach().numpy(), found.scale.detach().numpy())
            np.testing.assert_array_equal(found.minifloat().detach().numpy(), fmt.values[codes].astype(np.float32))

    @pytest.mark.parametrize(
        ("name", "kind"), [("float8_e4m3fn", "is_ocp_e4m3"), ("float8_e5m2", "is_ocp_e5m2"), ("float8_e4m3fnuz", "is_fnuz_e4m3")]
    )
    def test_brevitas_recognizes_the_standard_ones(self, name, kind):
        assert getattr(linear(weight_quantizer(name)).weight_quant, kind)

    @pytest.mark.parametrize("name", [*OTHERS, *BLOCKS])
    def test_all_others(self, name):
        fmt = formats.get(name)
        found = linear(weight_quantizer(name)).quant_weight()
        assert isinstance(found, FormatQuantTensor)
        assert (found.format_name, found.bit_width.item(), found.zero_point.item()) == (name, fmt.bits, 0)
        assert found.signed == (fmt.element.signed if isinstance(fmt, BlockFormat) else fmt.signed)
        assert found.training

    def test_groups(self):
        for name, kind in (("int4", GroupwiseIntQuantTensor), ("e2m1", GroupwiseFloatQuantTensor), ("nf4", FormatQuantTensor)):
            assert isinstance(linear(weight_quantizer(name, granularity="group8")).quant_weight(), kind)

    def test_what_only_moves_values_keeps_one_scale(self):
        x = qnn.QuantIdentity(act_quant=activation_quantizer("pot4"), return_quant_tensor=True)(tensor(2, 8, 4, 4))
        for moved in (
            torch.flatten(x, 1),
            torch.reshape(x, (2, -1)),
            torch.transpose(x, 0, 1),
            nn.functional.max_pool2d(x, 2),
            x.view(2, -1),
            x.permute(0, 2, 3, 1),
            x.detach(),
        ):
            assert isinstance(moved, FormatQuantTensor)
            assert torch.equal(moved.scale, x.scale)
        assert torch.equal(torch.flatten(x, 1).value, x.value.flatten(1))
        assert torch.equal(nn.functional.max_pool2d(x, 2).value, nn.functional.max_pool2d(x.value, 2))

    def test_what_moves_values_away_from_their_scales_gives_a_plain_tensor(self):
        x = linear(weight_quantizer("nf4")).quant_weight()
        for moved in (torch.flatten(x), x.reshape(-1), x.transpose(0, 1), torch.transpose(x, 0, 1)):
            assert type(moved) is torch.Tensor
        assert torch.equal(x.transpose(0, 1), x.value.T)

    def test_arithmetic_gives_a_plain_tensor(self):
        x = linear(weight_quantizer("nf4")).quant_weight()
        for found, expected in (
            (x + x, x.value * 2),
            (x - 1, x.value - 1),
            (x * 2, x.value * 2),
            (2 * x, x.value * 2),
            (x / 2, x.value / 2),
            (-x, -x.value),
            (x + linear(weight_quantizer("int4")).quant_weight(), x.value + linear(weight_quantizer("int4")).quant_weight().value),
            (torch.exp(x), x.value.exp()),
        ):
            assert type(found) is torch.Tensor
            assert torch.equal(found, expected)

    @pytest.mark.parametrize("name", ["int4", "e2m1", "pot4", "mxfp4"])
    def test_a_layer_takes_and_gives_them(self, name):
        axis = {"axis": 1} if name in BLOCKS else {}
        first = qnn.QuantIdentity(act_quant=activation_quantizer(name, **axis), return_quant_tensor=True)
        layer = linear(weight_quantizer(name), output_quant=activation_quantizer(name, **axis), return_quant_tensor=True)
        x = tensor(3, 40)
        quantized = first(x)
        found = layer(quantized)
        weight = layer.quant_weight().value
        sums = nn.functional.linear(quantized.value, weight, layer.bias)
        fmt = formats.get(name)
        expected = fmt.quantize(sums.detach().numpy(), 1) if axis else by_numpy(name, sums, found.scale)
        assert_same_bits(found.value.detach().numpy(), expected)

    @pytest.mark.parametrize("name", ["int4", "e2m1", "pot4", "mxfp4"])
    def test_inference_caches(self, name):
        layer = linear(weight_quantizer(name), activation_quantizer(name))
        layer(tensor(3, 40))
        layer.eval()
        expected = layer(tensor(3, 40))
        layer.weight_quant.cache_inference_quant_weight = True
        layer.input_quant.cache_inference_quant_act = True
        for _ in range(2):
            assert torch.equal(layer(tensor(3, 40)), expected)
        assert torch.equal(layer.weight_quant.scale(), layer.quant_weight().scale)
        if name not in BLOCKS:
            assert layer.input_quant.scale().numel() == 1
        assert layer.weight_quant.bit_width() == 4
        if name != "e2m1":  # a minifloat activation tells Brevitas two widths
            assert layer.input_quant.bit_width() == 4

    def test_the_scale_of_a_block_activation_is_no_single_one(self):
        proxy = linear(None, activation_quantizer("mxfp4")).input_quant
        with pytest.raises(RuntimeError, match=exactly("scale of mxfp4 must be read off a quantized activation: it has no other")):
            proxy.scale()
        assert (proxy.zero_point().item(), proxy.bit_width().item(), proxy.is_groupwise) == (0, 4, True)


class TestAgainstBrevitas:
    """Brevitas' own quantizers, bit for bit."""

    @pytest.mark.parametrize(
        ("granularity", "theirs"), [("tensor", Int8WeightPerTensorFloat), ("channel", Int8WeightPerChannelFloat)]
    )
    def test_narrow_int8_weights(self, granularity, theirs):
        x = tensor(3, 40)
        ours = linear(weight_quantizer("int8_narrow", granularity=granularity, scaling="statistics"))
        other = linear(theirs)
        assert torch.equal(ours.weight, other.weight)
        assert torch.equal(ours.quant_weight().scale, other.quant_weight().scale)
        assert torch.equal(ours.quant_weight().value, other.quant_weight().value)
        assert torch.equal(ours.quant_weight().int(), other.quant_weight().int())
        assert torch.equal(ours(x), other(x))

    @pytest.mark.parametrize(("name", "theirs"), [("int8", Int8ActPerTensorFloat), ("uint8", Uint8ActPerTensorFloat)])
    @pytest.mark.parametrize("scale", [0.01, 0.02, 1.0])
    def test_int8_activations(self, name, theirs, scale):
        """Of one scale: Brevitas divides the statistic by 128, this project by the largest level."""
        settings = {"scaling_impl_type": "const", "scaling_init": scale, "int_scaling_impl": SingleArgStatelessBuffer(1.0)}
        ours = qnn.QuantIdentity(act_quant=activation_quantizer(name).let(**settings), return_quant_tensor=True)
        other = qnn.QuantIdentity(act_quant=theirs.let(**settings), return_quant_tensor=True)
        x = torch.cat([tensor(2000, spread=3), torch.arange(-300, 300) * 0.5 * scale])
        found, expected = ours(x), other(x)
        assert torch.equal(found.scale, expected.scale)
        assert torch.equal(found.value, expected.value)
        assert torch.equal(found.int(), expected.int())

    @pytest.mark.parametrize(
        ("name", "mixin"),
        [("e2m1", Fp4e2m1Mixin), ("e3m2", Fp6e3m2Mixin), ("e2m3", Fp6e2m3Mixin), ("e4m3", Fp8e4m3Mixin), ("e5m2", Fp8e5m2Mixin)],
    )
    def test_minifloats(self, name, mixin):
        """Every finite number; Inf saturates here and there, NaN is refused here and passes there."""

        class Weight(mixin, ScaledFloatWeightBase):
            scaling_per_output_type = "channel"

        class Activation(mixin, ScaledFloatActBase):
            scaling_per_output_type = "tensor"

        ours = linear(weight_quantizer(name, scaling="statistics"), activation_quantizer(name))
        other = linear(Weight, Activation)
        assert torch.equal(ours.quant_weight().scale, other.quant_weight().scale)
        assert torch.equal(ours.quant_weight().value, other.quant_weight().value)
        x = tensor(500, 40)
        for layer in (ours, other):
            layer(x)
            layer.eval()
        assert torch.equal(ours(x * 2), other(x * 2))

    @pytest.mark.parametrize(("name", "mixin"), [("float8_e4m3fn", Fp8e4m3Mixin), ("float8_e5m2", Fp8e5m2Mixin)])
    def test_the_ocp_types(self, name, mixin):
        class Weight(mixin, FpOCPWeightPerTensorFloat):
            pass

        ours, other = linear(weight_quantizer(name, granularity="tensor", scaling="statistics")), linear(Weight)
        assert torch.equal(ours.quant_weight().scale, other.quant_weight().scale)
        assert torch.equal(ours.quant_weight().value, other.quant_weight().value)

    def test_gradients(self):
        theirs = Int8WeightPerTensorFloat.let(scaling_impl_type="parameter_from_stats", scaling_init=None)
        ours, other = linear(weight_quantizer("int8_narrow", granularity="tensor")), linear(theirs)
        for layer in (ours, other):
            layer(tensor(3, 40))
            layer.weight.data.mul_(1.5)  # some beyond the scale
            layer(tensor(3, 40)).sum().backward()
        assert (other.weight.grad == 0).any()
        torch.testing.assert_close(ours.weight.grad, other.weight.grad)
        (ours_scale,) = [p.grad for name, p in ours.named_parameters() if "scaling" in name]
        (other_scale,) = [p.grad for name, p in other.named_parameters() if "scaling" in name]
        torch.testing.assert_close(ours_scale, other_scale)


class TestErrors:
    def test_without_brevitas(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "formats.brevitas_bridge")
        for module in [name for name in sys.modules if name.split(".")[0] == "brevitas"]:
            monkeypatch.delitem(sys.modules, module)
        real = builtins.__import__

        def refuse(name, *arguments, **named):
            if name.split(".")[0] == "brevitas":
                raise ModuleNotFoundError("No module named 'brevitas'", name="brevitas")
            return real(name, *arguments, **named)

        monkeypatch.setattr(builtins, "__import__", refuse)
        message = "brevitas must be installed for formats.brevitas_bridge: pip install bitatlas[brevitas]"
        with pytest.raises(ImportError, match=exactly(message)) as caught:
            importlib.import_module("formats.brevitas_bridge")
        assert isinstance(caught.value, BitatlasError)

    def test_under_torchscript(self, monkeypatch):
        monkeypatch.setattr("brevitas.config.JIT_ENABLED", True)
        with pytest.raises(ValueError, match="BREVITAS_JIT must be 0 for"):
            weight_quantizer("int4")
        with pytest.raises(ValueError, match="BREVITAS_JIT must be 0 for"):
            activation_quantizer("int4")

    def test_names(self):
        with pytest.raises(KeyError, match="format must be a known name, not 'int4x'; nearest: int4"):
            weight_quantizer("int4x")
        with pytest.raises(KeyError, match="granularity must be a known name, not 'row'"):
            weight_quantizer("int4", granularity="row")
        with pytest.raises(KeyError, match="granularity must be a known name, not 'group0'"):
            weight_quantizer("int4", granularity="group0")
        with pytest.raises(KeyError, match="scale choice must be a known name, not 'max'"):
            weight_quantizer("int4", choice="max")
        with pytest.raises(KeyError, match="scaling must be a known name, not 'stats'"):
            weight_quantizer("int4", scaling="stats")
        with pytest.raises(KeyError, match="rounding must be a known name, not 'stochastic'"):
            activation_quantizer("int4", rounding="stochastic")

    def test_values(self):
        with pytest.raises(ValueError, match=exactly("percentile must be above 0 and at most 100, not 100.5")):
            weight_quantizer("int4", choice="percentile100.5")
        with pytest.raises(ValueError, match=exactly("steps must be at least 1, not 0")):
            activation_quantizer("int4", steps=0)
        with pytest.raises(ValueError, match=exactly("scaling must be parameter where choice is mse, not statistics")):
            weight_quantizer("int4", choice="mse", scaling="statistics")
        with pytest.raises(ValueError, match=exactly("axis must be left out for int4, whose codes stand alone, not 1")):
            activation_quantizer("int4", axis=1)

    @pytest.mark.parametrize(
        ("what", "value"), [("granularity", "tensor"), ("choice", "mse"), ("scaling", "statistics"), ("rounding", "toward_zero")]
    )
    def test_what_blocks_bring_themselves(self, what, value):
        with pytest.raises(ValueError, match=exactly(f"{what} must be left out for the block format mxfp4, not {value}")):
            weight_quantizer("mxfp4", **{what: value})

    def test_an_axis_that_only_the_user_knows(self):
        message = "axis of mxfp4 must be given for QuantIdentity, which has no weight to tell it"
        with pytest.raises(ValueError, match=exactly(message)):
            qnn.QuantIdentity(act_quant=activation_quantizer("mxfp4"))

    def test_a_zero_point(self):
        from brevitas.core.zero_point import ParameterZeroPoint

        with pytest.raises(ValueError, match=exactly("zero_point_impl must be ZeroZeroPoint, not ParameterZeroPoint")):
            linear(
                weight_quantizer("int4").let(
                    zero_point_impl=ParameterZeroPoint, zero_point_init=0, zero_point_shape=(), quantize_zero_point=False
                )
            )

    def test_another_rounding_of_brevitas(self):
        message = "float_to_int_impl_type must be round or learned_round, not that of FloorSte; see rounding="
        with pytest.raises(ValueError, match=exactly(message)):
            linear(weight_quantizer("e2m1").let(float_to_int_impl_type="floor"))

    def test_parts_of_a_weight_whose_scale_follows_them(self):
        layer = linear(weight_quantizer("int4", scaling="statistics"))
        message = "scale of a weight that is quantized in parts must be a parameter, not follow the part; see scaling='parameter'"
        with pytest.raises(ValueError, match=exactly(message)):
            layer.quant_weight(subtensor_slice_list=[None, (0, 1)])
        layer.quant_weight()
