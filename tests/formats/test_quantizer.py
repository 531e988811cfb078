import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats import BitatlasError, Quantizer
from formats.quantizer import Granularity
from formats.scaling import ScaleChoice
from tests.formats.samples import NAMES, assert_same_bits, exactly, normal

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


@pytest.mark.parametrize("text", ["", ":", "int4:", ":tensor", "int4::mse", "int4:tensor:mse:", "int4:tensor:mse:e8m0:x"])
def test_a_text_that_is_not_one_to_four_parts_is_refused(text):
    message = f"quantizer must be FORMAT[:GRANULARITY[:CHOICE[:STORAGE]]], such as int4:channel:mse, not {text!r}"
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
        ("int4:row", "granularity must be a known name, not 'row'; valid: tensor, channel, group32, block8x8"),
        ("int4:tensor:absmx", "scale choice must be a known name, not 'absmx'; nearest: absmax"),
        ("int4:tensor:mse:e8m1", "scale storage must be a known name, not 'e8m1'; nearest: e8m0"),
        ("int4:block8", "granularity must be a known name, not 'block8'; nearest: block8x8"),
        ("tritplane:tensor", "quantizer must be a known name, not 'tritplane'; nearest: tritplanes"),
        ("tanq9", "b of quantizer tanq{b} must be 1 to 8, not 9; nearest: tanq8"),
        ("pcdvq_d16_m2", "d of quantizer pcdvq_d{d}_m{m} must be 1 to 15, not 16; nearest: pcdvq_d15_m2"),
    ],
)
def test_an_unknown_part_names_the_nearest(text, message):
    with pytest.raises(KeyError, match=exactly(message)):
        Quantizer.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "int4:block",
            "granularity block must go with a block format, not int4; nearest: int4:group32, or block{r}x{c} for tiles",
        ),
        ("mxfp4:channel", "quantizer of a block format must be mxfp4:block:absmax, not 'mxfp4:channel'"),
        ("mxfp4:block:mse", "quantizer of a block format must be mxfp4:block:absmax, not 'mxfp4:block:mse'"),
        ("mxfp4:block:absmax:e8m0", "quantizer of a block format must be mxfp4:block:absmax, not 'mxfp4:block:absmax:e8m0'"),
        ("int4:tensor:twn", "choice twn must go with ternary, not int4; nearest: int4:tensor:lsq"),
        ("ternary:channel:xnor", "choice xnor must go with binary, not ternary; nearest: ternary:channel:lsq"),
        (
            "tritplanes:group3:mse",
            "quantizer of a method must be NAME[:GRANULARITY], not 'tritplanes:group3:mse'; nearest: tritplanes:group3",
        ),
        (
            "tanq4:block",
            "granularity of tanq4 must be tensor, channel, group{n} or block{r}x{c}, not block; nearest: tanq4:group32",
        ),
    ],
)
def test_parts_that_do_not_go_together_name_the_nearest_text(text, message):
    with pytest.raises(ValueError, match=exactly(message)) as caught:
        Quantizer.parse(text)
    assert isinstance(caught.value, BitatlasError)


GRANULARITIES = st.one_of(
    st.sampled_from(["tensor", "channel"]),
    st.integers(1, 99999).map("group{}".format),
    st.tuples(st.integers(1, 99999), st.integers(1, 99999)).map(lambda size: f"block{size[0]}x{size[1]}"),
)
CHOICES = st.one_of(
    st.sampled_from(["absmax", "mse", "lsq", "repq", "fpq"]),
    st.floats(1e-6, 100).map(lambda percent: f"percentile{np.format_float_positional(percent, trim='-')}"),
)
STORAGES = st.sampled_from(["", ":power_of_two", ":e8m0", ":float8_e4m3fn", ":double"])
SCALAR = [name for name in NAMES if formats.get(name).bits <= 8]
METHODS = ["tritplanes", "pcdvq_d14_m2", "pcdvq_d1_m8", "lloydfit4", "tanq3", "twinlog8", "llmfp6"]


@settings(deadline=None)
@given(st.sampled_from(SCALAR), GRANULARITIES, CHOICES, STORAGES)
def test_every_combination_round_trips(name, granularity, choice, storage):
    text = f"{name}:{granularity}:{choice}{storage}"
    assert str(Quantizer.parse(text)) == text
    assert Quantizer.parse(text) == Quantizer.parse(str(Quantizer.parse(text)))


@settings(deadline=None)
@given(st.sampled_from(METHODS), GRANULARITIES)
def test_every_method_round_trips(name, granularity):
    quantizer = Quantizer.parse(f"{name}:{granularity}")
    assert str(quantizer) == f"{name}:{granularity}"
    assert quantizer == Quantizer.parse(str(quantizer))
    assert hash(quantizer) == hash(Quantizer.parse(str(quantizer)))


@pytest.mark.parametrize("text", ["ternary:channel:twn", "binary:group4:xnor:double"])
def test_a_choice_for_one_format_round_trips(text):
    assert str(Quantizer.parse(text)) == text


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "nvfp4"])
def test_a_block_format_brings_its_granularity_and_choice(name):
    for text in (name, f"{name}:block", f"{name}:block:absmax"):
        assert str(Quantizer.parse(text, granularity="channel", choice="mse")) == f"{name}:block:absmax"


def test_float32_storage_is_not_spelt_out():
    assert str(Quantizer.parse("int4:channel:mse:float32")) == "int4:channel:mse"


EVERY_KIND = [
    *(
        "int4:channel:mse",
        "e2m1:group5:lsq:e8m0",
        "int12:tensor:absmax:double",
        "ternary:block2x3:twn",
        "nf4:block4x16:absmax:float8_e4m3fn",
    ),
    *("mxfp4", "nvfp4", "mxint8", "tritplanes:group6", "pcdvq_d8_m2:channel", "pcdvq_d6_m1:group10", "lloydfit3:group7"),
    *("tanq4:tensor", "twinlog4:channel", "llmfp5:block3x3"),
]


@pytest.mark.parametrize("text", EVERY_KIND)
@pytest.mark.parametrize("shape", [(5, 3, 2, 3), (4, 40), (6,), (1, 1), (), (0, 4), (3, 0)])
def test_everything_that_quantizes_keeps_the_shape_and_says_what_it_stores(text, shape):
    quantizer = Quantizer.parse(text)
    encoded = quantizer.encode(normal(*shape))
    decoded = encoded.decode()
    assert encoded.shape == decoded.shape == shape
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    assert encoded.storage_bits == quantizer.storage_bits(shape)


@pytest.mark.parametrize("text", EVERY_KIND)
def test_everything_that_quantizes_reads_a_tensor_in_its_own_order(text):
    x = normal(8, 9, 10)
    for view in (x.transpose(2, 0, 1), x[::2, ::-1], np.asfortranarray(x)):
        assert_same_bits(Quantizer.parse(text).encode(view).decode(), Quantizer.parse(text).encode(view.copy("C")).decode())


@pytest.mark.parametrize("text", EVERY_KIND)
def test_everything_that_quantizes_keeps_a_tensor_of_zeros(text):
    decoded = Quantizer.parse(text).encode(np.zeros((4, 10), np.float32)).decode()
    if text.startswith("pcdvq"):  # no magnitude is zero
        assert np.abs(decoded).max() < 1e-36
    else:
        assert not decoded.any()


@pytest.mark.parametrize("text", EVERY_KIND)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_everything_that_quantizes_refuses_what_is_no_number(text, value):
    x = normal(4, 10)
    x[1, 2] = value
    with pytest.raises(ValueError, match="must be finite, not NaN or Inf in 1 "):
        Quantizer.parse(text).encode(x)


@pytest.mark.parametrize("text", EVERY_KIND)
def test_what_is_static_fits_one_format_and_one_scale(text):
    quantizer, x = Quantizer.parse(text).per_tensor(), normal(4, 50)
    if not quantizer.static:
        with pytest.raises(ValueError, match=r"^quantizer of an activation must come down to one format and one scale, not be "):
            quantizer.fit(x)
        return
    fmt, scale = quantizer.fit(x)
    assert_same_bits(fmt.quantize(x, scale), quantizer.encode(x).decode())


@pytest.mark.parametrize("text", ["mxfp4", "tritplanes", "pcdvq_d8_m2", "lloydfit3"])
def test_what_has_no_format_of_its_own_says_so(text):
    with pytest.raises(
        ValueError, match=r"^(quantizer must write the codes of one format here|format must be one whose codes stand)"
    ):
        _ = Quantizer.parse(text).format


@pytest.mark.parametrize("text", ["int4:channel:mse:e8m0", "e2m1:group8:absmax:double", "nf4:block2x8:lsq:float8_e4m3fn"])
def test_codes_and_values_go_by_the_scales_as_stored(text):
    x = normal(6, 30, spread=0.1)
    tensor = Quantizer.parse(text).encode(x)
    fmt, rows = tensor.quantizer.format, tensor.quantizer.granularity.to_rows(x)
    np.testing.assert_array_equal(tensor.scales, tensor.stored.decode())
    np.testing.assert_array_equal(tensor.rows, fmt.encode(rows, tensor.scales[:, np.newaxis]))
    decoded = fmt.decode(tensor.rows, tensor.scales[:, np.newaxis])
    assert_same_bits(tensor.decode(), tensor.quantizer.granularity.from_rows(decoded, x.shape))


def test_importance_moves_the_scale_to_what_matters():
    x = np.float32([[1.0, 0.9, 0.8, 8.0]])
    for choice in ("mse", "lsq", "fpq"):
        quantizer = Quantizer.parse(f"int3:channel:{choice}")
        small = quantizer.scales(x, importance=[1, 1, 1, 0])
        large = quantizer.scales(x, importance=[0, 0, 0, 1])
        assert small < 1 < 2 < large


def test_importance_of_ones_changes_nothing():
    x = normal(5, 12)
    for choice in ("mse", "lsq", "repq", "fpq"):
        quantizer = Quantizer.parse(f"e2m1:group5:{choice}")
        np.testing.assert_array_equal(quantizer.scales(x, importance=1), quantizer.scales(x))


@pytest.mark.parametrize("importance", [-1.0, np.nan, np.inf])
def test_importance_must_be_usable(importance):
    with pytest.raises(ValueError, match=r"^importance must be finite and not negative, not "):
        Quantizer.parse("int4:channel:mse").encode(normal(2, 3), importance=importance)


def test_importance_is_refused_where_nothing_heeds_it():
    with pytest.raises(ValueError, match=r"^importance must go with a scale chosen by error, such as mse, not with absmax$"):
        Quantizer.parse("int4:channel:absmax").encode(normal(2, 3), importance=2)


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
