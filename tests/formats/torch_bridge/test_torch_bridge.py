import numpy as np
import pytest
import torch

import formats
from formats import BitatlasError
from formats.torch_bridge import quantize
from tests.formats.samples import SMALL, assert_same_bits, exactly, normal

INT4 = formats.get("int4")


def tensor(*shape):
    return torch.from_numpy(normal(*shape, spread=2))


def dense_layouts():
    image = tensor(2, 3, 5, 4)
    return {
        "contiguous": image,
        "channels last": image.to(memory_format=torch.channels_last),
        "channels last 3d": tensor(2, 3, 4, 5, 2).to(memory_format=torch.channels_last_3d),
        "transposed": tensor(7, 5).T,
        "permuted": image.permute(3, 1, 0, 2),
        "permuted with an axis of one": tensor(8, 1, 5).transpose(0, 2),
        "one channel, channels last": tensor(2, 1, 4, 4).to(memory_format=torch.channels_last),
        "one pixel, channels last": tensor(2, 6, 1, 1).to(memory_format=torch.channels_last),
        "vector": tensor(11),
        "scalar": torch.tensor(1.3),
        "no elements": tensor(2, 0, 3),
        "large": tensor(300, 400).T,
    }


def sparse_layouts():
    image = tensor(4, 6, 5, 8)
    return {
        "strided": image[:, ::2, :, 1::3],
        "sliced": image[:, 1:-1, 2:],
        "sliced channels last": image.to(memory_format=torch.channels_last)[:, 1:3],
        "expanded": tensor(3, 1).expand(3, 5),
        "flipped": image.flip(0),
    }


@pytest.mark.parametrize("layout", [*dense_layouts(), *sparse_layouts()])
@pytest.mark.parametrize("name", ["int4", "e2m1", "post4"])
def test_every_layout_gives_what_numpy_gives(name, layout):
    fmt, x = formats.get(name), {**dense_layouts(), **sparse_layouts()}[layout]
    before = x.clone()
    found = quantize(fmt, x, 0.3)
    assert found.shape == x.shape
    assert found.dtype == torch.float32
    assert_same_bits(found.numpy(), fmt.quantize(x.numpy(), 0.3))
    assert torch.equal(x, before)


@pytest.mark.parametrize("layout", dense_layouts())
def test_a_dense_tensor_keeps_its_strides(layout):
    x = dense_layouts()[layout]
    assert quantize(INT4, x, 0.3).stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("layout", dense_layouts())
def test_out_is_written_and_returned(layout):
    x = dense_layouts()[layout]
    out = torch.empty_like(x).fill_(77)
    for scale in (0.3, 0.7):
        assert quantize(INT4, x, scale, out=out) is out
        assert_same_bits(out.numpy(), INT4.quantize(x.numpy(), scale))


@pytest.mark.parametrize("layout", dense_layouts())
def test_out_may_be_x_itself(layout):
    x = dense_layouts()[layout]
    expected = INT4.quantize(x.numpy().copy(), 0.3)
    assert quantize(INT4, x, 0.3, out=x) is x
    assert_same_bits(x.numpy(), expected)


@pytest.mark.parametrize("name", SMALL)
def test_every_small_format(name):
    x = tensor(50, 20)
    assert_same_bits(quantize(formats.get(name), x, 0.7).numpy(), formats.get(name).quantize(x.numpy(), 0.7))


def test_gradients_stop_here():
    x = tensor(5).requires_grad_()
    found = quantize(INT4, x, 0.3)
    assert not found.requires_grad
    assert_same_bits(found.numpy(), INT4.quantize(x.detach().numpy(), 0.3))


def test_the_scale_is_rounded_to_float32():
    x = torch.tensor([-37.35000228881836])
    assert quantize(formats.get("int8"), x, 0.3).item() == np.float32(-124) * np.float32(0.3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=exactly(f"x must be a float32 tensor on the CPU, not {dtype} on cpu")) as caught:
        quantize(INT4, torch.zeros(3, dtype=dtype), 1.0)
    assert isinstance(caught.value, BitatlasError)


def test_other_devices_are_refused():
    with pytest.raises(TypeError, match=exactly("x must be a float32 tensor on the CPU, not torch.float32 on meta")):
        quantize(INT4, torch.zeros(3, device="meta"), 1.0)


def test_the_checks_are_those_of_numpy():
    with pytest.raises(ValueError, match="values for int4 must be numbers, not NaN in 1 elements"):
        quantize(INT4, torch.tensor([1, float("nan")]), 1.0)
    with pytest.raises(ValueError, match=exactly("scale must be finite and positive, not -1.0")):
        quantize(INT4, torch.zeros(3), -1.0)


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.T, lambda x: x[:, ::2], lambda x: x.expand(3, 6, 6)[1]])
@pytest.mark.parametrize("order", ["rows", "columns"])
def test_out_is_written_whatever_the_two_layouts(view, order):
    x = view(torch.arange(36.0).reshape(6, 6) / 7)
    out = torch.full(x.shape, -7.0) if order == "rows" else torch.full(x.shape[::-1], -7.0).T
    result = quantize(formats.get("int8"), x, 0.5, out=out)
    assert result is out
    np.testing.assert_array_equal(out.numpy(), formats.get("int8").quantize(x.numpy(), 0.5))
