import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.granularity import Granularity

SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)
GRANULARITIES = st.sampled_from(
    ["tensor", "channel", "group1", "group4", "group50", "block1x1", "block2x3", "block3x2", "block50x60"]
)


@settings(deadline=None)
@given(GRANULARITIES, SHAPES)
def test_rows_hold_every_value_once_and_give_them_back(text, shape):
    granularity = Granularity.parse(text)
    x = np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
    rows = granularity.to_rows(x)
    assert sorted(rows[rows > 0].tolist()) == x.reshape(-1).tolist()
    np.testing.assert_array_equal(granularity.from_rows(rows, shape), x)
    assert len(rows) == granularity.row_count(shape)
    if len(rows):
        assert rows.shape[1] == granularity.row_length(shape)
    assert granularity.pads(shape) == (rows.size != x.size)


def test_a_tile_is_neighbouring_values_of_neighbouring_channels():
    x = np.arange(24).reshape(4, 6)
    rows = Granularity.parse("block2x3").to_rows(x)
    assert rows.tolist() == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11], [12, 13, 14, 18, 19, 20], [15, 16, 17, 21, 22, 23]]


def test_tiles_at_the_edge_are_filled_up_with_zeros():
    rows = Granularity.parse("block2x2").to_rows(np.arange(1, 10).reshape(3, 3))
    assert rows.tolist() == [[1, 2, 4, 5], [3, 0, 6, 0], [7, 8, 0, 0], [9, 0, 0, 0]]


def test_axes_of_a_channel_are_flattened_for_tiles():
    x = np.arange(16).reshape(2, 2, 4)
    np.testing.assert_array_equal(Granularity.parse("block2x4").to_rows(x), Granularity.parse("block2x4").to_rows(x.reshape(2, 8)))


@pytest.mark.parametrize("text", ["tensor", "channel", "group32", "block8x16", "block"])
def test_the_text_form_round_trips(text):
    assert str(Granularity.parse(text)) == text


@pytest.mark.parametrize("text", ["block0x4", "block4x", "block4x04", "group", "Tensor", "block-1x4", ""])
def test_other_texts_are_refused(text):
    with pytest.raises(KeyError, match=f"^granularity must be a known name, not '{text}'; "):
        Granularity.parse(text)
