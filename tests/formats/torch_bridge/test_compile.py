"""The operators within ``torch.compile`` and ``torch.export``."""

import shutil

import pytest
import torch
from torch.library import opcheck

import formats
from formats.torch_bridge import fake_quantize
from tests.formats.torch_bridge.test_operator import layouts, tensor

SCALARS = ("int4", "uint4", "e2m1", "post4", "nf4", "ulog2_4", "float8_e4m3fn")
BLOCKS = ("mxfp4", "nvfp4", "mxint8")


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch._dynamo.reset()


def used(x, scale, name):
    """What a layer does: something before, something after."""
    return (fake_quantize(x * 2, name, scale) * 3).square().mean()


def used_blocks(x, name):
    return (fake_quantize(x * 2, name, axis=0) * 3).square().mean()


def compiled(function, backend="aot_eager", **settings):
    return torch.compile(function, fullgraph=True, backend=backend, **settings)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def value_and_gradients(function, *arguments):
    leaves = [x.clone().requires_grad_() if isinstance(x, torch.Tensor) else x for x in arguments]
    value = function(*leaves)
    return value.detach(), *torch.autograd.grad(value, [x for x in leaves if isinstance(x, torch.Tensor)])


@pytest.mark.parametrize("name", SCALARS)
def test_the_same_bits_and_gradients(name):
    arguments = tensor(6, 5), torch.tensor([0.3, 0.2, 0.5, 1.0, 2.0]), name
    assert_same(value_and_gradients(compiled(used), *arguments), value_and_gradients(used, *arguments))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_same_bits_and_gradients_in_blocks(name):
    arguments = tensor(70, 5), name
    assert_same(value_and_gradients(compiled(used_blocks), *arguments), value_and_gradients(used_blocks, *arguments))


@pytest.mark.parametrize("layout", layouts())
def test_every_layout(layout):
    x = layouts()[layout]
    found = compiled(lambda x: fake_quantize(x, "int4", 0.3))(x)
    assert torch.equal(found, fake_quantize(x, "int4", 0.3))
    assert found.stride() == torch.empty_like(x).stride()
    if "no elements" not in layout:
        found = compiled(lambda x: fake_quantize(x, "mxfp4", axis=0))(x)
        assert torch.equal(found, fake_quantize(x, "mxfp4", axis=0))
        assert found.stride() == torch.empty_like(x).stride()


def test_one_graph_for_all_lengths():
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    function = torch.compile(lambda x: (fake_quantize(x, "int4", 0.3), fake_quantize(x, "mxfp4")), backend=count, dynamic=True)
    for length in (33, 64, 7, 200):
        x = tensor(length, 3)
        assert_same(function(x), (fake_quantize(x, "int4", 0.3), fake_quantize(x, "mxfp4")))
    assert len(graphs) == 1


def test_gradients_of_any_length():
    function = compiled(used_blocks, dynamic=True)
    for length in (33, 64, 7, 200):
        arguments = tensor(length, 3), "mxfp4"
        assert_same(value_and_gradients(function, *arguments), value_and_gradients(used_blocks, *arguments))


def test_the_format_given_decides_each_time():
    """What was compiled for one format is not run for another, be it named or given as an object."""
    function = compiled(lambda x, f: fake_quantize(x, f))
    x = tensor(64)
    for name in ("int4", "e2m1", "mxfp4", "nvfp4"):
        expected = fake_quantize(x, name)
        assert torch.equal(function(x, name), expected)
        assert torch.equal(function(x, formats.get(name)), expected)


def test_settings_are_kept():
    x = tensor(100)
    for settings in ({"rounding": "toward_zero"}, {"rounding": "stochastic", "seed": 2**64 - 3}):
        assert torch.equal(compiled(lambda x, s=settings: fake_quantize(x, "int4", **s))(x), fake_quantize(x, "int4", **settings))


def test_out_is_written():
    x, out = tensor(5), torch.empty(5)
    assert compiled(lambda x, out: fake_quantize(x, "int4", 0.3, out=out) + 1)(x, out).tolist() == (out + 1).tolist()
    assert torch.equal(out, fake_quantize(x, "int4", 0.3))


def test_x_is_overwritten():
    x = tensor(5)
    expected = fake_quantize(x, "int4", 0.3)
    compiled(lambda x: fake_quantize(x, "int4", 0.3, out=x))(x)
    assert torch.equal(x, expected)


def test_errors_are_the_same():
    for _ in range(2):  # while compiling, and when compiled
        with pytest.raises(Exception, match="values for int4 must be numbers, not NaN in 1 elements"):
            compiled(lambda x: fake_quantize(x, "int4"))(torch.tensor([float("nan")]))


# imported by the backend itself, before it compiles anything
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for the inductor backend")
def test_the_same_bits_from_the_compiler_that_fuses(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # else it may run what an older version left there

    def both(x, scale):
        return used(x, scale, "e2m1") + used_blocks(x, "mxfp4")

    function = compiled(both, "inductor")
    arguments = tensor(70, 6), torch.tensor(0.3)
    (value, *found), (expected, *gradients) = value_and_gradients(function, *arguments), value_and_gradients(both, *arguments)
    assert_same(found[:1], gradients[:1])
    # means are summed in the compiler's own order
    torch.testing.assert_close((value, found[1]), (expected, gradients[1]))


@pytest.mark.parametrize("name", ["int4", "nf4", "post4"])
@pytest.mark.parametrize("rounding", ["nearest_even", "stochastic"])
def test_torchs_own_checks(name, rounding):
    for x in (tensor(3, 4), tensor(4, 3).T, tensor(2, 3, 4, 5).to(memory_format=torch.channels_last)[:, 1:]):
        scale = torch.rand(x.shape[-1]) + 0.2
        opcheck(torch.ops.bitatlas.quantize, (x.clone().requires_grad_(), scale.clone().requires_grad_(), name, rounding))
        opcheck(torch.ops.bitatlas.quantize_out, (x, scale, torch.empty(x.shape), name, rounding))


@pytest.mark.parametrize("name", BLOCKS)
def test_torchs_own_checks_in_blocks(name):
    for x in (tensor(3, 40), tensor(40, 3).T, tensor(2, 33, 4, 5).to(memory_format=torch.channels_last)):
        opcheck(torch.ops.bitatlas.quantize_blocks, (x.clone().requires_grad_(), name, 1))
        opcheck(torch.ops.bitatlas.block_scales, (x, name, 1))
        opcheck(torch.ops.bitatlas.block_gradient, (torch.ones_like(x), x, name, 1))


def test_torchs_own_checks_of_the_scales_gradient():
    arguments = torch.ones(3, 4), tensor(3, 4), torch.rand(4) + 0.2, "int4", "nearest_even", "saturate", 0
    opcheck(torch.ops.bitatlas.scale_gradient, arguments)


class Layer(torch.nn.Module):
    def forward(self, x):
        return fake_quantize(fake_quantize(x, "e3m2", 0.5), "nvfp4")


def test_export():
    x = tensor(4, 40)
    exported = torch.export.export(Layer(), (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    operators = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert "bitatlas.quantize.default" in operators
    assert "bitatlas.quantize_blocks.default" in operators
    for batch in (4, 9):
        x = tensor(batch, 40)
        assert torch.equal(exported.module()(x), Layer()(x))
