import numpy as np
import pytest

import formats
from formats import BitatlasError, Family, Format, Quantizer, registry
from formats.boundaries import ROUNDINGS
from tests.formats.samples import NAMES, assert_same_bits, exactly, normal


def test_names_lists_every_pattern():
    assert {"int{b}", "int{b}_narrow", "uint{b}", "e{E}m{M}", "ue{E}m{M}", "pot{b}", "post{b}"} <= set(formats.names())
    assert {"ulog2_{b}", "ulogsqrt2_{b}", "ternary", "binary"} <= set(formats.names())
    assert len(set(formats.names())) == len(formats.names())


def test_every_valid_name_gives_the_format_of_that_name():
    assert len(NAMES) == len(set(NAMES))
    assert [formats.get(name).name for name in NAMES] == list(NAMES)


def test_a_format_is_made_once():
    assert formats.get("int4") is formats.get("int4")


def test_names_handed_out_are_a_copy():
    formats.names().clear()
    assert "int{b}" in formats.names()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int17", "b of format int{b} must be 2 to 16, not 17; nearest: int16"),
        ("int1", "b of format int{b} must be 2 to 16, not 1; nearest: int2"),
        ("int1_narrow", "b of format int{b}_narrow must be 2 to 16, not 1; nearest: int2_narrow"),
        ("uint0", "b of format uint{b} must be 1 to 16, not 0; nearest: uint1"),
        ("uint32", "b of format uint{b} must be 1 to 16, not 32; nearest: uint16"),
        ("e11m2", "E of format e{E}m{M} must be 1 to 10, not 11; nearest: e10m2"),
        ("e0m3", "E of format e{E}m{M} must be 1 to 10, not 0; nearest: e1m3"),
        ("e1m20", "M of format e{E}m{M} must be 0 to 14, not 20; nearest: e1m14"),
        ("ue0m3", "E of format ue{E}m{M} must be 1 to 10, not 0; nearest: ue1m3"),
        ("ue1m16", "M of format ue{E}m{M} must be 0 to 15, not 16; nearest: ue1m15"),
        ("pot9", "b of format pot{b} must be 2 to 8, not 9; nearest: pot8"),
        ("post10", "b of format post{b} must be 2 to 9, not 10; nearest: post9"),
        ("ulog2_9", "b of format ulog2_{b} must be 1 to 8, not 9; nearest: ulog2_8"),
        ("ulogsqrt2_0", "b of format ulogsqrt2_{b} must be 1 to 9, not 0; nearest: ulogsqrt2_1"),
    ],
)
def test_a_number_out_of_range_names_the_range_and_the_nearest(name, message):
    with pytest.raises(KeyError, match=exactly(message)) as caught:
        formats.get(name)
    assert isinstance(caught.value, BitatlasError)
    formats.get(message.rsplit(" ", 1)[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e8m9", "width of format e{E}m{M} must be 2 to 16 bits, not 18"),
        ("ue10m7", "width of format ue{E}m{M} must be 2 to 16 bits, not 17"),
        ("ue1m0", "width of format ue{E}m{M} must be 2 to 16 bits, not 1"),
    ],
)
def test_a_width_out_of_range_names_the_range(name, message):
    with pytest.raises(KeyError) as caught:
        formats.get(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("intt4", "nearest: int4, uint4, int14"),
        ("int04", "nearest: int4, uint4, int14"),
        ("int8_narow", "nearest: int8_narrow, int9_narrow, int7_narrow"),
        ("e2m01", "nearest: e2m1, e2m0, ue2m1"),
        ("e2m1 ", "nearest: e2m1, ue2m1, e6m1"),
        ("turnary", "nearest: ternary, binary"),
        ("", "for example: int2, int3, int4, int5, int6, int7"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_patterns(name, choice):
    patterns = ", ".join(formats.names())
    with pytest.raises(KeyError, match=exactly(f"format must be a known name, not {name!r}; {choice}; patterns: {patterns}")):
        formats.get(name)


@pytest.mark.parametrize("name", ["int4x", "xint4", "int-4", "int+4", "int4.0", "int 4", "int٤", "int4\n", "e2m", "em1", "INT4"])
def test_a_name_is_matched_as_a_whole(name):
    with pytest.raises(KeyError, match="format must be a known name, not "):
        formats.get(name)


# ---------------------------------------------------------------- a family from outside


def codebook(bits: int) -> Format:
    """-4, -1, -1/4, 0, 1/4, 1, 4 with the codes 1 to 7 and the code 0 unused; wider ones leave more codes unused."""
    fill = [0] * (2**bits - 8)
    nothing = np.zeros(2**bits, np.int64)
    return Format(
        name=f"quarters{bits}",
        bits=bits,
        significand=np.array([0, -4, -1, -1, 0, 1, 1, 4, *fill]),
        exponent=np.array([0, 0, 0, -2, 0, -2, 0, 0, *fill]),
        root=nothing,
        unused=frozenset({0, *range(8, 2**bits)}),
    )


@pytest.fixture
def quarters():
    family = Family(pattern="quarters{b}", build=codebook, ranges=((3, 4),), examples=("quarters3", "quarters4"))
    registry.register(family)
    yield
    registry.FAMILIES.remove(family)
    registry.get.cache_clear()


@pytest.mark.usefixtures("quarters")
def test_a_registered_family_is_known_by_name():
    assert formats.names()[-1] == "quarters{b}"
    assert formats.get("quarters3").bits == 3
    assert formats.get("quarters3") is formats.get("quarters3")
    with pytest.raises(KeyError, match=exactly("b of format quarters{b} must be 3 to 4, not 5; nearest: quarters4")):
        formats.get("quarters5")
    with pytest.raises(KeyError, match=r"'quarter3'; nearest: quarters3, quarters4, uapot3; patterns: .*, quarters\{b\}$"):
        formats.get("quarter3")


@pytest.mark.usefixtures("quarters")
@pytest.mark.parametrize("name", ["quarters3", "quarters4"])
def test_a_registered_family_encodes_by_its_table(name):
    fmt = formats.get(name)
    np.testing.assert_array_equal(fmt.values[:8], [np.nan, -4, -1, -0.25, 0, 0.25, 1, 4])
    levels = fmt.float32_values[1:8]
    x = np.concatenate([normal(5000, spread=2), np.float32([-np.inf, np.inf, -100, 100, 2.4999998, 2.5000002, -0.0])])
    nearest = levels[np.abs(np.clip(x, -9, 9)[:, np.newaxis] - levels.astype(np.float64)).argmin(axis=1)]
    assert_same_bits(fmt.quantize(x), nearest)
    for rounding in ROUNDINGS:
        codes = fmt.encode(x, rounding=rounding)
        assert codes.min() == 1
        assert codes.max() == 7
        assert_same_bits(fmt.quantize(x, rounding=rounding), fmt.decode(codes))
        assert_same_bits(fmt.quantize(levels, rounding=rounding), levels)
    assert_same_bits(fmt.quantize(np.float32([0.9, -3.9]), rounding="toward_zero"), np.float32([0.25, -1]))


@pytest.mark.usefixtures("quarters")
def test_a_registered_family_serves_in_quantizers():
    quantizer = Quantizer.parse("quarters3:channel:mse")
    assert str(quantizer) == "quarters3:channel:mse"
    x = normal(4, 100)
    decoded = quantizer.encode(x).decode()
    assert decoded.shape == x.shape
    assert np.mean((decoded - x) ** 2) < 0.2
    assert Quantizer.parse("quarters3").scales(np.float32([2, -3])) == np.float32(3) / np.float32(4)


def test_a_family_that_was_taken_away_is_unknown():
    with pytest.raises(KeyError):
        formats.get("quarters3")


@pytest.mark.usefixtures("quarters")
def test_a_pattern_is_registered_once():
    for pattern in ("quarters{b}", "int{b}", "ternary"):
        before = formats.names()
        message = f"pattern of a format family must be new, not already registered: {pattern}"
        with pytest.raises(ValueError, match=exactly(message)) as caught:
            formats.register(Family(pattern=pattern, build=codebook))
        assert isinstance(caught.value, BitatlasError)
        assert formats.names() == before


@pytest.mark.parametrize(
    ("name", "nearest"), [("e11m8", "e10m5"), ("e15m15", "e10m5"), ("e8m9", "e8m7"), ("ue10m7", "ue10m6"), ("ue1m0", "ue1m1")]
)
def test_the_nearest_name_offered_is_valid(name, nearest):
    with pytest.raises(KeyError, match=rf"; nearest: {nearest}$"):
        formats.get(name)
    assert formats.get(nearest).name == nearest


def test_a_name_in_capitals_finds_its_own():
    with pytest.raises(KeyError, match=r"^format must be a known name, not 'INT8'; nearest: int8"):
        formats.get("INT8")


def test_a_name_is_a_string():
    with pytest.raises(TypeError, match=r"^name of a format must be a string, not NoneType$"):
        formats.get(None)
