import ml_dtypes
import numpy as np
import pytest

import formats
from formats import BitatlasError, Quantizer
from formats.quantizer import Granularity
from formats.scaling import ScaleChoice
from tests.formats.samples import assert_same_bits, exactly, normal

TEXTS = ["int4:channel:mse", "e2m1:group32:absmax", "uint8:tensor:percentile99.9", "post4:channel:absmax", "binary:group7:mse"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_form_round_trips(text):
    assert str(Quantizer.parse(text)) == text
    assert Quantizer.parse(str(Quantizer.parse(text))) == Quantizer.parse(text)
    assert hash(Quantizer.parse(text)) == hash(Quantizer.parse(text))


def test_parts_left_out_take_the_defaults():
    assert str(Quantizer.parse("int4")) == "int4:tensor:absmax"
    assert str(Quantizer.parse("int4:channel")) == "int4:channel:absmax"
    assert str(Quantizer.parse("int4", granularity="group8", choice="mse")) == "int4:group8:mse"
    assert str(Quantizer.parse("int4:channel", granularity="group8", choice="mse")) == "int4:channel:mse"
    assert str(Quantizer.parse("int4:channel:absmax", granularity="group8", choice="mse")) == "int4:channel:absmax"


def test_the_parts_of_a_quantizer():
    quantizer = Quantizer.parse("e2m1:group32:percentile99.9")
    assert quantizer.format is formats.get("e2m1")
    assert quantizer.granularity == Granularity(name="group", size=32)
    assert quantizer.choice == ScaleChoice(name="percentile", percent=99.9)


@pytest.mark.parametrize("text", ["", ":", "int4:", ":tensor", "int4::mse", "int4:tensor:mse:", "int4:tensor:mse:x"])
def test_a_text_that_is_not_one_to_three_parts_is_refused(text):
    message = f"quantizer must be FORMAT[:GRANULARITY[:CHOICE]], such as int4:channel:mse, not {text!r}"
    with pytest.raises(ValueError, match=exactly(message)) as caught:
        Quantizer.parse(text)
    assert isinstance(caught.value, BitatlasError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int99", "b of format int{b} must be 2 to 16, not 99; nearest: int16"),
        ("int4:chanel", "granularity must be a known name, not 'chanel'; nearest: channel"),
        ("int4:group", "granularity must be a known name, not 'group'; nearest: group32"),
        ("int4:group0", "granularity must be a known name, not 'group0'; nearest: group32"),
        ("int4:group032", "granularity must be a known name, not 'group032'; nearest: group32"),
        ("int4:row", "granularity must be a known name, not 'row'; valid: tensor, channel, group32"),
        ("int4:tensor:absmx", "scale choice must be a known name, not 'absmx'; nearest: absmax"),
    ],
)
def test_an_unknown_part_names_the_nearest(text, message):
    with pytest.raises(KeyError, match=exactly(message)):
        Quantizer.parse(text)


@pytest.mark.parametrize("shape", [(6, 20), (6, 4, 5), (6, 3, 2, 7), (6,), (1, 1), ()])
@pytest.mark.parametrize("choice", ["absmax", "mse", "percentile95"])
def test_one_scale_for_the_tensor(shape, choice):
    x = normal(*shape, spread=3)
    tensor = Quantizer.parse(f"e2m1:tensor:{choice}").encode(x)
    fmt = formats.get("e2m1")
    assert tensor.scales.shape == (1,)
    np.testing.assert_array_equal(tensor.scales, ScaleChoice.parse(choice).scales(fmt, x.reshape(1, -1)))
    np.testing.assert_array_equal(tensor.codes, fmt.encode(x, tensor.scales[0]))
    assert_same_bits(tensor.decode(), fmt.quantize(x, tensor.scales[0]))


@pytest.mark.parametrize("shape", [(6, 20), (6, 4, 5), (6, 3, 2, 7), (6,), (1, 1)])
def test_one_scale_for_each_channel(shape):
    x = normal(*shape, spread=3)
    tensor = Quantizer.parse("int4:channel").encode(x)
    scales = np.abs(x).reshape(len(x), -1).max(axis=1) / np.float32(7)
    np.testing.assert_array_equal(tensor.scales, scales)
    scales = scales.reshape(-1, *[1] * (x.ndim - 1))
    np.testing.assert_array_equal(tensor.codes, formats.get("int4").encode(x, scales))
    assert_same_bits(tensor.decode(), formats.get("int4").quantize(x, scales))


@pytest.mark.parametrize("size", [1, 4, 7, 12, 20, 64])
@pytest.mark.parametrize("shape", [(3, 20), (3, 4, 5), (3, 1), (3,)])
def test_one_scale_for_each_group_of_neighbours_the_last_of_which_may_be_shorter(shape, size):
    x, fmt = normal(*shape, spread=3), formats.get("int4")
    tensor = Quantizer.parse(f"int4:group{size}").encode(x)
    scales, values = [], []
    for channel in x.reshape(len(x), -1):
        for start in range(0, len(channel), size):
            group = channel[start : start + size]
            scales.append(np.abs(group).max() / np.float32(7))
            values.append(fmt.quantize(group, scales[-1]))
    assert tensor.scales.tolist() == scales
    assert_same_bits(tensor.decode(), np.concatenate(values).reshape(shape))
    assert tensor.codes.shape == shape
    assert tensor.rows.shape == (len(scales), size)


def test_the_filling_of_a_short_group_is_zero_and_does_not_come_back():
    tensor = Quantizer.parse("binary:group4").encode(np.full((2, 5), 3, np.float32))
    assert tensor.codes.tolist() == [[1] * 5] * 2
    assert tensor.scales.tolist() == [3, 3, 3, 3]
    assert tensor.decode().tolist() == [[3] * 5] * 2


def test_a_quantized_tensor_keeps_what_hardware_stores():
    x = normal(4, 6, 3)
    tensor = Quantizer.parse("int12:group6").encode(x)
    assert tensor.shape == tensor.codes.shape == tensor.decode().shape == x.shape
    assert tensor.codes.dtype == tensor.rows.dtype == np.uint16
    assert tensor.scales.dtype == tensor.decode().dtype == np.float32
    assert tensor.rows.shape == (12, 6)
    np.testing.assert_array_equal(tensor.scales, tensor.quantizer.scales(x))
    assert_same_bits(tensor.decode(), formats.get("int12").decode(tensor.rows, tensor.scales[:, np.newaxis]).reshape(x.shape))


@pytest.mark.parametrize("text", TEXTS)
def test_a_tensor_that_is_not_contiguous_is_read_in_its_own_order(text):
    x = np.abs(normal(8, 9, 10))
    for view in (x.transpose(2, 0, 1), x[::2, ::-1], np.asfortranarray(x)):
        found, expected = Quantizer.parse(text).encode(view), Quantizer.parse(text).encode(view.copy("C"))
        assert_same_bits(found.decode(), expected.decode())
        np.testing.assert_array_equal(found.codes, expected.codes)


@pytest.mark.parametrize("text", TEXTS)
def test_a_tensor_of_zeros_stays_one(text):
    tensor = Quantizer.parse(text).encode(np.zeros((4, 10), np.float32))
    assert (tensor.scales == 1).all()
    assert (np.abs(tensor.decode()) == (1 if text.startswith("binary") else 0)).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_float16_and_bfloat16_are_widened(dtype):
    x = normal(4, 50).astype(dtype)
    for text in ("int4:channel:absmax", "int4:channel:mse"):
        found, expected = Quantizer.parse(text).encode(x), Quantizer.parse(text).encode(x.astype(np.float32))
        assert_same_bits(found.decode(), expected.decode())


@pytest.mark.parametrize("text", ["int4", "int4:channel:mse"])
def test_float64_is_refused(text):
    with pytest.raises(TypeError, match="x must be float32, float16 or bfloat16, not float64"):
        Quantizer.parse(text).encode(np.ones((2, 3)))


def test_no_elements():
    for text in ("int4:tensor", "int4:channel", "int4:group4", "int4:tensor:mse", "int4:channel:percentile99"):
        tensor = Quantizer.parse(text).encode(np.zeros((3, 0), np.float32))
        assert tensor.decode().shape == tensor.codes.shape == (3, 0)
    assert Quantizer.parse("int4:tensor").encode(np.zeros((0, 3), np.float32)).decode().shape == (0, 3)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group4"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_nothing_is_encoded_to_nothing(granularity, shape):
    encoded = Quantizer.parse(f"int4:{granularity}").encode(np.zeros(shape, np.float32))
    assert encoded.codes.shape == encoded.decode().shape == shape
