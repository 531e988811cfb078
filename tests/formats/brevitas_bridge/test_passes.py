"""What Brevitas does to models, done to models quantized with every kind of format."""

import copy
import warnings

import pytest
import torch
from torch import nn

import formats
from formats import BlockFormat
from tests.formats.samples import assert_same_bits, normal

pytest.importorskip("brevitas", reason="Brevitas is not installed")

import brevitas.nn as qnn
from brevitas.core.function_wrapper import LearnedRoundSte
from brevitas.inject.enum import LearnedRoundImplType

with warnings.catch_warnings():
    # both are said of Brevitas' own imports, once, when its graph modules are first imported
    warnings.filterwarnings("ignore", "brevitas.fx is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", "fast_hadamard_transform package not found", UserWarning)
    from brevitas.export.inference import quant_inference_mode
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode, load_quant_model_mode
    from brevitas.graph.gptq import gptq_mode
    from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize, quantize

from formats.brevitas_bridge import activation_quantizer, weight_quantizer

INTEGERS = ("int4", "int8", "uint4", "ternary", "binary")
SCALARS = (*INTEGERS, "e2m1", "e3m2", "e4m3", "pot4", "post4", "nf4", "ulog2_4", "float8_e4m3fn")
BLOCKS = ("mxfp4", "nvfp4", "mxint8")
ALL = (*SCALARS, *BLOCKS)


def tensor(*shape, seed=0):
    return torch.from_numpy(normal(*shape, seed=seed))


IMAGES = tensor(16, 3, 8, 8)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Products this small only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1)
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 4)

    def forward(self, x):
        y = self.act(self.first(x))
        y = y + self.second(y)
        return self.last(torch.flatten(self.pool(y), 1))


def by_layers(name, model=None, **settings):
    """Weights and inputs of every layer quantized in place."""
    quantizers = {"weight_quant": weight_quantizer(name, **settings), "input_quant": activation_quantizer(name)}
    layers = {
        nn.Conv2d: (qnn.QuantConv2d, {**quantizers, "return_quant_tensor": False}),
        nn.Linear: (qnn.QuantLinear, {**quantizers, "return_quant_tensor": False}),
    }
    return layerwise_quantize(network() if model is None else model, layers)


def calibrated(model, x=IMAGES):
    with torch.no_grad(), calibration_mode(model):
        model(x)
    model(x)  # weights choose their scales
    return model


def quantized_layers(model):
    return [module for module in model.modules() if isinstance(module, (qnn.QuantConv2d, qnn.QuantLinear))]


def assert_quantized(name, found, x, axis):
    fmt = formats.get(name)
    x = x.detach().numpy()
    if isinstance(fmt, BlockFormat):
        assert_same_bits(found.value.detach().numpy(), fmt.quantize(x, axis))
    else:
        assert_same_bits(found.value.detach().numpy(), fmt.quantize(x, found.scale.detach().numpy()))


@pytest.mark.parametrize("name", ALL)
def test_calibration_collects_without_quantizing(name):
    model, x = by_layers(name), [IMAGES, tensor(16, 3, 8, 8, seed=1) * 2]
    seen = []
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].abs().max()))
    with torch.no_grad(), calibration_mode(model):
        for batch in x:
            assert torch.equal(model(batch), by_floats()(batch))
    first = model[0]
    if name in SCALARS:
        expected = torch.stack(seen).mean() / formats.get(name).largest
        torch.testing.assert_close(first.input_quant.scale().detach(), expected)
        before = first.input_quant.scale().clone()
        model(IMAGES * 100)
        assert torch.equal(first.input_quant.scale(), before)
    assert_quantized(name, first.input_quant(IMAGES), IMAGES, 1)
    assert not torch.equal(model(IMAGES), by_floats()(IMAGES))


def by_floats():
    return network()


@pytest.mark.parametrize("name", ALL)
def test_every_layer_runs_on_the_formats_values(name):
    model = calibrated(by_layers(name))
    for layer in quantized_layers(model):
        seen = []
        hook = layer.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))  # noqa: B023
        model(IMAGES)
        hook.remove()
        ((x, y),) = seen
        axis = -1 if isinstance(layer, nn.Linear) else 1
        inputs, weight = layer.input_quant(x), layer.quant_weight()
        assert_quantized(name, inputs, x, axis)
        assert_quantized(name, weight, layer.weight, 1)
        function = nn.functional.linear if isinstance(layer, nn.Linear) else lambda *a: nn.functional.conv2d(*a, padding=1)
        assert torch.equal(y, function(inputs.value, weight.value, layer.bias))


@pytest.mark.parametrize("name", ALL)
def test_bias_correction_takes_the_mean_error_away(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    expected = model(IMAGES).mean((0, 2, 3))
    model = calibrated(by_layers(name, model))
    before = (model(IMAGES).mean((0, 2, 3)) - expected).abs().max()
    with torch.no_grad(), bias_correction_mode(model):
        model(IMAGES)
    after = (model(IMAGES).mean((0, 2, 3)) - expected).abs().max()
    assert before > 1e-4
    assert after < 1e-5


@pytest.mark.parametrize("name", [*SCALARS, "mxint8", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_gptq(name, kind):
    """The layer's output comes nearer to that in floats, and the weight that is left quantizes as any other."""
    if formats.get(name).bits == 1 or name.startswith("u"):
        pytest.skip("nothing to gain where most weights saturate")
    torch.manual_seed(0)
    mixed = tensor(200, 64) @ tensor(64, 64, seed=1)  # inputs that depend on each other
    x = mixed if kind == "linear" else mixed.reshape(200, 16, 2, 2)
    layer = nn.Linear(64, 6) if kind == "linear" else nn.Conv2d(16, 6, 2)
    expected = layer(x).detach()
    layers = {
        nn.Linear: (qnn.QuantLinear, {"weight_quant": weight_quantizer(name)}),
        nn.Conv2d: (qnn.QuantConv2d, {"weight_quant": weight_quantizer(name)}),
    }
    model = layerwise_quantize(nn.Sequential(layer).eval(), layers)
    before = (model(x) - expected).square().mean()
    with torch.no_grad(), gptq_mode(model) as gptq:
        for _ in range(gptq.num_layers):
            gptq.model(x)
            gptq.update()
    after = (model(x) - expected).square().mean()
    assert_quantized(name, model[0].quant_weight(), model[0].weight, 1)
    # blocks choose their scales anew while GPTQ moves the weights, which costs the finest what there is to gain
    assert after < before * (1.1 if name == "mxint8" else 0.9)


def graph_maps(name):
    axis = {"axis": 1} if name in BLOCKS else {}
    act = {"act_quant": activation_quantizer(name, **axis), "return_quant_tensor": True}
    # Brevitas tells the format of a sum of products only where the factors are integers
    layer = {"weight_quant": weight_quantizer(name), "return_quant_tensor": name in INTEGERS}
    return {
        "quant_identity_map": {"signed": (qnn.QuantIdentity, act), "unsigned": (qnn.QuantIdentity, act)},
        "compute_layer_map": {nn.Conv2d: (qnn.QuantConv2d, layer), nn.Linear: (qnn.QuantLinear, layer)},
        "quant_act_map": {nn.ReLU: (qnn.QuantReLU, act)},
    }


def tensors_of(output):
    return output if isinstance(output, torch.Tensor) else output.value


# of Brevitas' own tracer
@pytest.mark.filterwarnings("ignore:`treespec.children_specs` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("build", [network, Residual])
def test_graph_quantization(name, build):
    """Traced, equalized, batch norms merged, activations inserted, and the inputs of sums aligned."""
    float_model = build().eval()
    expected = float_model(IMAGES).detach()
    model = preprocess_for_quantize(copy.deepcopy(float_model), equalize_iters=3)
    torch.testing.assert_close(model(IMAGES), expected)
    model = quantize(model, **graph_maps(name))
    calibrated(model)
    with torch.no_grad(), bias_correction_mode(model):
        model(IMAGES)
    inserted = [module for module in model.modules() if isinstance(module, (qnn.QuantIdentity, qnn.QuantReLU))]
    assert len(inserted) >= 3
    seen = []
    for module in inserted:
        module.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs[0], output)))
    found = tensors_of(model(IMAGES))
    assert found.shape == expected.shape
    for module, x, y in seen:
        quantized = module.act_quant(tensors_of(x))
        assert_quantized(name, quantized, tensors_of(x).relu() if isinstance(module, qnn.QuantReLU) else tensors_of(x), 1)
        assert torch.equal(tensors_of(y), quantized.value)
    if formats.get(name).bits == 8:
        torch.testing.assert_close(found, expected, rtol=0.2, atol=0.1)


@pytest.mark.parametrize("name", ALL)
def test_a_state_comes_back(name):
    model = calibrated(by_layers(name))
    with torch.no_grad(), bias_correction_mode(model):
        model(IMAGES)
    other = by_layers(name)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(IMAGES), model(IMAGES))
    assert other.state_dict().keys() == model.state_dict().keys()


def test_a_state_with_a_bias_that_correction_made_comes_back():
    def build():
        torch.manual_seed(0)
        return by_layers("e2m1", nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)).eval())

    model, other = calibrated(build()), build()
    with torch.no_grad(), bias_correction_mode(model):
        model(IMAGES)
    with load_quant_model_mode(other):
        other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(IMAGES), model(IMAGES))


@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4", "mxfp4"])
def test_a_copy_is_the_same_and_its_own(name):
    model = calibrated(by_layers(name))
    other = copy.deepcopy(model)
    assert torch.equal(other(IMAGES), model(IMAGES))
    before = model(IMAGES)
    for parameter in other.parameters():
        parameter.data.mul_(1.7)
    assert torch.equal(model(IMAGES), before)


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in ALL), *((name, {"scaling": "statistics"}) for name in ("int4", "e2m1", "nf4"))],
)
def test_training_lowers_the_loss(name, settings):
    torch.manual_seed(0)
    x, build = tensor(64, 16), nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    target = build(x).detach() + 0.5
    model = calibrated(by_layers(name, build.eval(), **settings), x)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    model.train()
    for _ in range(25):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    learned = [name for name, parameter in model.named_parameters() if "scaling_impl.value" in name and parameter.grad is not None]
    assert len(learned) == (0 if name in BLOCKS else 2 if settings else 4)


@pytest.mark.parametrize("name", ALL)
def test_inference_mode_changes_nothing(name):
    model = calibrated(by_layers(name))
    expected = model(IMAGES)
    with torch.no_grad(), quant_inference_mode(model):
        model(IMAGES)
        assert torch.equal(model(IMAGES), expected)


# torch's own compiler on Brevitas' own scaling
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4", "mxfp4"])
def test_quantizers_compile(name):
    torch._dynamo.reset()
    layer = calibrated(by_layers(name, nn.Sequential(nn.Linear(40, 6)).eval()), tensor(5, 40))[0]
    for quantizer, x in (
        (layer.weight_quant.tensor_quant, layer.weight),
        (layer.input_quant.fused_activation_quant_proxy.tensor_quant, tensor(5, 40)),
    ):
        found = torch.compile(quantizer, fullgraph=True, backend="aot_eager")(x)
        for one, other in zip(found, quantizer(x), strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def learned(name, layer, kind):
    """Set as Brevitas' own tools set it: a parameter for each weight says whether to round up."""
    layer.weight_quant.quant_injector = layer.weight_quant.quant_injector.let(
        float_to_int_impl_type="learned_round", learned_round_impl_type=kind, learned_round_init=torch.zeros_like(layer.weight)
    )
    layer.weight_quant.init_tensor_quant(preserve_state_dict=True)
    (rounding,) = {module for module in layer.modules() if isinstance(module, LearnedRoundSte)}
    return rounding


@pytest.mark.parametrize("name", SCALARS)
class TestLearnedRounding:
    def layer(self, name):
        torch.manual_seed(0)
        layer = qnn.QuantLinear(24, 6, weight_quant=weight_quantizer(name)).eval()
        layer.quant_weight()
        return layer

    @pytest.mark.parametrize("up", [False, True])
    def test_it_chooses_the_level_above_or_below(self, name, up):
        layer = self.layer(name)
        scale = layer.quant_weight().scale.detach()
        rounding = learned(name, layer.eval(), LearnedRoundImplType.SIGMOID)
        rounding.value.data.fill_(1.0 if up else -1.0)
        layer.eval()
        found = layer.quant_weight()
        assert torch.equal(found.scale, scale)
        fmt = formats.get(name)
        levels = torch.unique(torch.tensor(fmt.float32_values[torch.isfinite(torch.tensor(fmt.float32_values)).numpy()]))
        ratio = (layer.weight / scale).detach().clamp(levels[0], levels[-1])
        below = torch.searchsorted(levels, ratio, right=True) - 1
        expected = levels[(below + up).clamp(max=len(levels) - 1)]
        # where the weight is a level itself, Brevitas' rounding goes one up all the same
        assert_same_bits(found.value.detach().numpy(), (expected * scale).numpy())

    def test_training_it_lowers_the_error_of_the_output(self, name):
        layer, x = self.layer(name), tensor(200, 24) @ tensor(24, 24, seed=1)
        expected = nn.functional.linear(x, layer.weight, layer.bias).detach()
        rounding = learned(name, layer, LearnedRoundImplType.HARD_SIGMOID)
        optimizer = torch.optim.Adam([rounding.value], lr=0.05)
        layer.train()
        losses = []
        for _ in range(30):
            loss = (layer(x) - expected).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        layer.eval()
        assert_quantized(name, layer.quant_weight(), layer.quant_weight().value, 1)

    def test_weights_get_a_straight_through_gradient(self, name):
        layer = self.layer(name)
        learned(name, layer, LearnedRoundImplType.HARD_SIGMOID)
        layer.train()
        layer.quant_weight().value.sum().backward()
        fmt, ratio = formats.get(name), (layer.weight / layer.quant_weight().scale).detach()
        slack = 1 + 1e-6  # what rounding adds to the largest
        inside = (ratio >= fmt.minimum * slack) & (ratio <= fmt.maximum * slack)
        assert torch.equal(layer.weight.grad, inside.float())


def test_learned_rounding_is_brevitas_own_for_integers():
    from brevitas.quant import Int8WeightPerChannelFloat

    layers = []
    for quantizer in (weight_quantizer("int8_narrow"), Int8WeightPerChannelFloat.let(scaling_impl_type="parameter_from_stats")):
        torch.manual_seed(0)
        layer = qnn.QuantLinear(24, 6, weight_quant=quantizer)
        layer.quant_weight()
        rounding = learned("int8", layer, LearnedRoundImplType.HARD_SIGMOID)
        rounding.value.data.copy_(tensor(6, 24))
        for mode in (layer.train, layer.eval):
            mode()
            layers.append((layer.quant_weight().value, layer.quant_weight().scale))
        layer.train()
        layer.quant_weight().value.square().sum().backward()
        layers.append((rounding.value.grad, layer.weight.grad))
    inside = (layer.weight / layer.quant_weight().scale).abs() < 127 * (1 - 1e-5)  # at the end rounding up saturates there
    for ours, theirs in zip(layers[:3], layers[3:], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one * inside, other * inside)
