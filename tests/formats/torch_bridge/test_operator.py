import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import formats
from formats import BitatlasError, BlockFormat, Family, Format, codebook, registry
from formats.boundaries import ROUNDINGS
from formats.torch_bridge import fake_quantize
from tests.formats.samples import NAMES, assert_same_bits, exactly, normal, random_bits

BLOCKS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "nvfp4")
STANDARD = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu", "bfloat16", "float16", "nf4")
SOME = ("int4", "uint4", "e2m1", "pot4", "post4", "ternary", "binary", "nf4", "ulog2_4", "float8_e4m3fn")


def tensor(*shape, spread=2.0, seed=0):
    return torch.from_numpy(normal(*shape, spread=spread, seed=seed))


def layouts():
    image = tensor(4, 6, 5, 8)
    return {
        "contiguous": image,
        "channels last": image.to(memory_format=torch.channels_last),
        "transposed": tensor(7, 5).T,
        "permuted": image.permute(3, 1, 0, 2),
        "with an axis of one": tensor(8, 1, 5).transpose(0, 2),
        "vector": tensor(11),
        "no elements": tensor(2, 0, 3),
        "strided": image[:, ::2, :, 1::3],
        "sliced channels last": image.to(memory_format=torch.channels_last)[:, 1:3],
        "expanded": tensor(3, 1).expand(3, 5),
        "flipped": image.flip(0),
    }


DENSE = ("contiguous", "channels last", "transposed", "permuted", "with an axis of one", "vector", "no elements")


class TestValues:
    @pytest.mark.parametrize("name", [*NAMES, *STANDARD])
    def test_every_format_gives_what_numpy_gives(self, name):
        x = np.concatenate([random_bits(200), normal(200)])
        assert_same_bits(fake_quantize(torch.from_numpy(x), name, 0.7).numpy(), formats.get(name).quantize(x, 0.7))

    @pytest.mark.parametrize("name", BLOCKS)
    @pytest.mark.parametrize("axis", [0, 1, -1, None])
    def test_every_block_format_gives_what_numpy_gives(self, name, axis):
        x = normal(45, 40)
        expected = formats.get(name).quantize(x, -1 if axis is None else axis)
        assert_same_bits(fake_quantize(torch.from_numpy(x), name, axis=axis).numpy(), expected)

    @pytest.mark.parametrize("layout", layouts())
    @pytest.mark.parametrize("name", ["int4", "post4"])
    def test_every_layout(self, name, layout):
        x = layouts()[layout]
        before = x.clone()
        found = fake_quantize(x, name, 0.3)
        assert_same_bits(found.numpy(), formats.get(name).quantize(x.numpy(), 0.3))
        assert found.stride() == torch.empty_like(x).stride()
        assert torch.equal(x, before)

    @pytest.mark.parametrize("layout", [name for name in layouts() if name != "no elements"])
    @pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
    def test_every_layout_in_blocks(self, name, layout):
        x = layouts()[layout]
        for axis in range(-x.ndim, x.ndim):
            found = fake_quantize(x, name, axis=axis)
            assert_same_bits(found.numpy(), formats.get(name).quantize(x.numpy(), axis))
            assert found.stride() == torch.empty_like(x).stride()

    def test_a_scalar(self):
        found = fake_quantize(torch.tensor(1.3), "int4", 0.5)
        assert found.shape == ()
        assert found.item() == 1.5

    @pytest.mark.parametrize("rounding", ROUNDINGS)
    @pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
    def test_every_rounding(self, rounding, layout):
        x = layouts()[layout]
        found = fake_quantize(x, "e3m2", 0.3, rounding=rounding, seed=5)
        assert_same_bits(found.numpy(), formats.get("e3m2").quantize(x.numpy(), 0.3, rounding=rounding, seed=5))
        found = fake_quantize(x, "mxfp4", rounding=rounding, seed=5)
        assert_same_bits(found.numpy(), formats.get("mxfp4").quantize(x.numpy(), rounding=rounding, seed=5))

    @pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1, -1])
    def test_every_seed_of_64_bits(self, seed):
        x = tensor(100)
        found = fake_quantize(x, "int4", rounding="stochastic", seed=seed)
        assert_same_bits(found.numpy(), formats.get("int4").quantize(x.numpy(), rounding="stochastic", seed=seed))

    @pytest.mark.parametrize("name", ["float8_e5m2", "float8_e4m3fn", "bfloat16"])
    def test_overflow(self, name):
        x = torch.tensor([1e9, -1e9, math.inf, 1.0, math.nan, 3.4e38])
        found = fake_quantize(x, name, overflow="ieee")
        assert_same_bits(found.numpy(), formats.get(name).quantize(x.numpy(), overflow="ieee"))

    @pytest.mark.parametrize("layout", ["contiguous", "channels last", "permuted", "strided", "expanded"])
    def test_scales_that_broadcast(self, layout):
        x = layouts()[layout]
        for shape in [(1,), x.shape[1:], x.shape[-1:], (*x.shape[:1], *[1] * (x.ndim - 1)), x.shape]:
            scale = torch.from_numpy(np.abs(normal(*shape)) + np.float32(0.1))
            expected = formats.get("int4").quantize(x.numpy(), scale.numpy())
            assert_same_bits(fake_quantize(x, "int4", scale).numpy(), expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("name", ["int4", "e4m3", "mxfp4", "nvfp4"])
    def test_half_precision_is_widened_exactly_and_stays_wide(self, dtype, name):
        x = tensor(6, 40).T.to(dtype)
        found = fake_quantize(x, name)
        assert_same_bits(found.numpy(), fake_quantize(x.float(), name).numpy())
        assert found.stride() == x.stride()

    def test_a_format_may_be_an_object(self):
        x = tensor(40)
        for name in ("int4", "mxfp4"):
            assert torch.equal(fake_quantize(x, formats.get(name)), fake_quantize(x, name))

    def test_a_format_registered_by_the_user(self):
        family = Family(pattern="thirds", build=lambda: codebook.build("thirds", (-1.0, -1 / 3, 1 / 3, 1.0), "thirds"), ranges=())
        registry.register(family)
        try:
            found = fake_quantize(torch.tensor([0.5, -3.0]), formats.get("thirds"))
        finally:
            registry.FAMILIES.remove(family)
            registry.get.cache_clear()
        assert found.tolist() == [np.float32(1 / 3), -1]

    def test_a_scale_of_another_float_is_converted(self):
        assert fake_quantize(torch.tensor([1.0]), "int8", torch.tensor(0.3, dtype=torch.float64)).item() == np.float32(0.3) * 3

    def test_threads_do_not_disturb_each_other(self):
        inputs = [tensor(1000, seed=seed) for seed in range(40)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda x: fake_quantize(x, "e2m1", 0.3), inputs))
        for x, y in zip(inputs, found, strict=True):
            assert_same_bits(y.numpy(), formats.get("e2m1").quantize(x.numpy(), 0.3))


class TestMemory:
    @pytest.mark.parametrize("layout", [name for name in DENSE if name != "no elements"])
    def test_nothing_is_copied(self, layout, monkeypatch):
        seen = []
        quantize = Format.quantize

        def spy(self, x, scale, out, *args, **kwargs):
            seen.append((x.ctypes.data, out.ctypes.data, x.flags.c_contiguous, out.flags.c_contiguous))
            return quantize(self, x, scale, out, *args, **kwargs)

        monkeypatch.setattr(Format, "quantize", spy)
        x = layouts()[layout]
        found = fake_quantize(x, "int4", 0.3)
        assert seen == [(x.data_ptr(), found.data_ptr(), True, True)]

    @pytest.mark.parametrize("layout", [name for name in DENSE if name != "no elements"])
    def test_nothing_is_copied_in_blocks(self, layout, monkeypatch):
        seen = []
        quantize = BlockFormat.quantize

        def spy(self, x, axis, out, **kwargs):
            seen.append((x.ctypes.data, out.ctypes.data, x.flags.c_contiguous, out.flags.c_contiguous))
            return quantize(self, x, axis, out, **kwargs)

        monkeypatch.setattr(BlockFormat, "quantize", spy)
        x = layouts()[layout]
        found = fake_quantize(x, "mxfp4", axis=0)
        assert seen == [(x.data_ptr(), found.data_ptr(), True, True)]

    @pytest.mark.parametrize("layout", layouts())
    def test_out_is_written_and_returned(self, layout):
        x = layouts()[layout]
        for out in (torch.full_like(x, 7), torch.full(x.shape, 7.0), torch.full(x.shape[::-1], 7.0).permute(*range(x.ndim)[::-1])):
            assert fake_quantize(x, "int4", 0.3, out=out) is out
            assert_same_bits(out.numpy(), formats.get("int4").quantize(x.numpy(), 0.3))

    def test_out_may_be_x_itself(self):
        x = tensor(7, 5).T
        expected = fake_quantize(x.clone(), "int4", 0.3)
        assert torch.equal(fake_quantize(x, "int4", 0.3, out=x), expected)
        assert torch.equal(x, expected)

    def test_out_of_half_precision_input(self):
        x, out = tensor(5).half(), torch.empty(5)
        fake_quantize(x, "int4", out=out)
        assert torch.equal(out, fake_quantize(x, "int4"))


def gradients(x, name, scale, upstream, **settings):
    x, scale = x.clone().requires_grad_(), scale.clone().requires_grad_()
    (fake_quantize(x, name, scale, **settings) * upstream).sum().backward()
    return x.grad, scale.grad


class TestGradients:
    @pytest.mark.parametrize("name", SOME)
    def test_it_passes_within_the_range_and_nowhere_else(self, name):
        fmt = formats.get(name)
        low, high = np.float32(fmt.minimum), np.float32(fmt.maximum)
        beyond = [low - 4 * np.spacing(abs(low)), high + 4 * np.spacing(abs(high))]
        x = torch.tensor([low, high, (low + high) / 2, 1e-30, *beyond, math.inf, -math.inf])
        upstream = torch.arange(1.0, 9.0)
        found, _ = gradients(x, name, torch.tensor(1.0), upstream)
        inside = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.float32)
        assert torch.equal(found, upstream * inside)

    @pytest.mark.parametrize("name", SOME)
    def test_the_largest_passes_whatever_its_own_scale_rounds_to(self, name):
        largest = tensor(2000).abs() + 0.01
        found, to_scale = gradients(largest, name, largest / formats.get(name).maximum, torch.ones(2000))
        assert torch.equal(found, torch.ones(2000))
        assert to_scale.abs().max() < 1e-4

    @pytest.mark.parametrize("scale", [0.25, 3.0])
    def test_the_range_is_that_of_x_over_the_scale(self, scale):
        x = torch.tensor([-8.5, -8.0, -7.5, 6.5, 7.0, 7.5]) * scale
        assert gradients(x, "int4", torch.tensor(scale), torch.ones(6))[0].tolist() == [0, 1, 1, 1, 1, 0]

    @pytest.mark.parametrize("name", SOME)
    @pytest.mark.parametrize("rounding", ROUNDINGS)
    def test_the_scale_gets_the_step_sizes_gradient(self, name, rounding):
        fmt, scale = formats.get(name), np.float32(0.37)
        x = normal(60, spread=3)
        upstream = normal(60, seed=1)
        settings = {"rounding": rounding, "seed": 3}
        ratio = (x / scale).astype(np.float32)
        level = fmt.quantize(ratio, **settings).astype(np.float64)
        expected = 0.0
        for i in range(60):
            if ratio[i] < fmt.minimum:
                expected += float(upstream[i]) * fmt.minimum
            elif ratio[i] > fmt.maximum:
                expected += float(upstream[i]) * fmt.maximum
            else:
                expected += float(upstream[i]) * (level[i] - float(ratio[i]))
        _, found = gradients(torch.from_numpy(x), name, torch.tensor(scale), torch.from_numpy(upstream), **settings)
        assert found.shape == ()
        assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)

    @pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (3, 4), (2, 1, 1), (2, 3, 4)])
    def test_the_scales_gradient_is_summed_over_what_shares_it(self, shape):
        x, upstream = tensor(2, 3, 4), tensor(2, 3, 4, seed=1)
        scale = torch.full(shape, 0.3)
        _, one_by_one = gradients(x, "int4", torch.full(x.shape, 0.3), upstream)
        _, found = gradients(x, "int4", scale, upstream)
        assert found.shape == shape
        torch.testing.assert_close(found, one_by_one.sum_to_size(shape))

    def test_a_smaller_scale_follows_the_gradient_downhill(self):
        x, scale = tensor(500, spread=1), torch.tensor(2.0, requires_grad=True)
        losses = []
        for _ in range(60):
            loss = (fake_quantize(x, "int4", scale) - x).square().mean()
            losses.append(loss.item())
            (gradient,) = torch.autograd.grad(loss, scale)
            scale = (scale - gradient).detach().requires_grad_()
        assert losses[-1] < losses[0] / 10

    def test_overflow_to_infinity_passes_nothing(self):
        x = torch.tensor([1.0, 1e9, -1e9, math.nan])
        to_x, _ = gradients(x, "float8_e5m2", torch.tensor(1.0), torch.tensor([1.0, 0, 0, 0]), overflow="ieee")
        assert to_x.tolist() == [1, 0, 0, 0]
        x = torch.tensor([math.nan])
        assert gradients(x, "float8_e5m2", torch.tensor(1.0), torch.ones(1))[1].item() == 0

    @pytest.mark.parametrize("name", BLOCKS)
    @pytest.mark.parametrize("axis", [0, 1])
    def test_blocks_mask_what_saturates(self, name, axis):
        fmt = formats.get(name)
        x = torch.from_numpy(normal(70, 70)).requires_grad_()
        fake_quantize(x, name, axis=axis).sum().backward()
        codes, scales = fmt.encode(x.detach().numpy(), axis)
        ones = fmt.element.encode(np.ones(codes.shape, np.float32))
        unit = np.abs(fmt.decode(ones, scales, axis)).astype(np.float64)  # what an element of 1 is worth in its block
        ratio = x.detach().numpy() / unit
        inside = (ratio <= fmt.element.maximum) & (ratio >= fmt.element.minimum)
        assert 0 < inside.mean() <= 1
        np.testing.assert_array_equal(x.grad.numpy(), inside.astype(np.float32))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_a_half_precision_input_gets_a_gradient_of_its_own_dtype(self, dtype):
        for name in ("int4", "mxfp4"):
            x = tensor(40).to(dtype).requires_grad_()
            fake_quantize(x, name).sum().backward()
            assert x.grad.dtype == dtype
            assert x.grad.sum() > 0

    def test_under_autocast(self):
        x, weight = tensor(4, 8).requires_grad_(), tensor(3, 8).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = torch.nn.functional.linear(fake_quantize(x, "uint4", 0.3), fake_quantize(weight, "e2m1", 0.5))
        assert y.dtype == torch.bfloat16
        y.sum().backward()
        assert weight.grad.shape == (3, 8)

    def test_no_gradient_is_asked_for(self):
        assert not fake_quantize(tensor(5), "int4").requires_grad
        with torch.no_grad():
            assert not fake_quantize(tensor(5).requires_grad_(), "int4").requires_grad


class TestErrors:
    def test_nan_without_a_code(self):
        with pytest.raises(ValueError, match="values for int4 must be numbers, not NaN in 2 elements"):
            fake_quantize(torch.tensor([1.0, math.nan, math.nan]), "int4")

    def test_blocks_name_the_block_as_the_caller_counts(self):
        x = torch.zeros(3, 64, 5)
        x[2, 40, 1] = math.inf
        for layout in (x, x.permute(0, 2, 1).contiguous().permute(0, 2, 1)):
            with pytest.raises(ValueError, match="mxfp4") as found:
                fake_quantize(layout, "mxfp4", axis=1)
            with pytest.raises(ValueError, match="mxfp4") as expected:
                formats.get("mxfp4").quantize(x.numpy(), 1)
            assert str(found.value) == str(expected.value)

    @pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
    def test_a_scale_that_is_none(self, scale):
        with pytest.raises(ValueError, match=exactly(f"scale must be finite and positive, not {scale}")):
            fake_quantize(tensor(3), "int4", scale)

    @pytest.mark.parametrize("shape", [(2,), (3, 1, 1), (1, 1, 1)])
    def test_a_scale_that_does_not_broadcast(self, shape):
        for x in (tensor(3, 4), tensor(4, 3).T):
            message = f"scale must broadcast against the shape (3, 4), not have the shape {shape}"
            with pytest.raises(ValueError, match=exactly(message)):
                fake_quantize(x, "int4", torch.ones(shape))

    def test_other_dtypes(self):
        with pytest.raises(TypeError, match=exactly("x must be float32, float16 or bfloat16, not torch.int32")) as caught:
            fake_quantize(torch.zeros(3, dtype=torch.int32), "int4")
        assert isinstance(caught.value, BitatlasError)
        for name in ("int4", "mxfp4"):
            with pytest.raises(TypeError, match="narrowing it first would round twice"):
                fake_quantize(torch.zeros(3, dtype=torch.float64), name)

    def test_the_operators_own_scale_is_float32(self):
        with pytest.raises(TypeError, match=exactly("scale must be a float32 tensor on the CPU, not torch.float64 on cpu")):
            torch.ops.bitatlas.quantize(tensor(3), torch.ones((), dtype=torch.float64), "int4")

    def test_a_tensor_elsewhere(self):
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True):
            elsewhere = torch.zeros(3, device="cuda")
            with pytest.raises(TypeError, match=exactly("x must be a tensor on the CPU, not on cuda:0")):
                fake_quantize(elsewhere, "int4")
            with pytest.raises(TypeError, match=exactly("x must be a tensor on the CPU, not on cuda:0")):
                fake_quantize(elsewhere, "mxfp4")

    def test_a_name_that_is_none(self):
        with pytest.raises(KeyError, match="format must be a known name, not 'int4x'; nearest: int4"):
            fake_quantize(tensor(3), "int4x")
        with pytest.raises(KeyError, match="rounding must be a known name, not 'up'"):
            fake_quantize(tensor(3), "int4", rounding="up")
        with pytest.raises(ValueError, match=exactly("format must be a block format here, not int4, whose codes stand alone")):
            torch.ops.bitatlas.quantize_blocks(tensor(3), "int4")

    def test_a_format_that_is_not_the_registered_one(self):
        for name in ("int4", "no_such_name"):
            other = replace(formats.get("int4"), name=name)
            message = f"format must be the registered one of its name, not another that is called {name}"
            with pytest.raises(ValueError, match=exactly(message)):
                fake_quantize(tensor(3), other)

    def test_an_axis_where_there_are_no_blocks(self):
        with pytest.raises(ValueError, match=exactly("axis must be left out for int4, whose codes stand alone, not 1")):
            fake_quantize(tensor(3, 3), "int4", axis=1)

    def test_an_axis_that_is_none(self):
        with pytest.raises(ValueError, match=exactly("axis for mxfp4 must be -2 to 1, not 2")):
            fake_quantize(tensor(3, 3), "mxfp4", axis=2)
        with pytest.raises(ValueError, match=exactly("x for mxfp4 must have at least one axis, not none")):
            fake_quantize(torch.tensor(1.0), "mxfp4")

    @pytest.mark.parametrize(
        "settings", [{"scale": 0.5}, {"scale": torch.tensor(1.0)}, {"overflow": "ieee"}, {"out": torch.empty(3)}]
    )
    def test_what_blocks_bring_themselves(self, settings):
        message = "scale, overflow and out must be left out for mxfp4, whose blocks bring their scales"
        with pytest.raises(ValueError, match=exactly(message)):
            fake_quantize(tensor(3), "mxfp4", **settings)

    def test_out_where_a_gradient_must_pass(self):
        with pytest.raises(ValueError, match=exactly("out must be left out where x or scale requires a gradient")):
            fake_quantize(tensor(3).requires_grad_(), "int4", out=torch.empty(3))
        with torch.no_grad():
            fake_quantize(tensor(3).requires_grad_(), "int4", out=torch.empty(3))

    @pytest.mark.parametrize("out", [torch.empty(4), torch.empty(3, dtype=torch.float64)])
    def test_an_out_that_does_not_fit(self, out):
        message = f"out must be a float32 tensor of shape (3,) on the CPU, not {out.dtype} of shape {tuple(out.shape)} on cpu"
        with pytest.raises(TypeError, match=exactly(message)):
            fake_quantize(tensor(3), "int4", out=out)
