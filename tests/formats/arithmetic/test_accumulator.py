import pickle

import numpy as np
import pytest

from formats.arithmetic.accumulator import Accumulator
from formats.errors import InvalidTypeError, InvalidValueError, UnknownNameError

TEXTS = {
    "exact": Accumulator.exact(),
    "fixed:20": Accumulator.fixed(),
    "fixed:2:wrap": Accumulator.fixed(2, "wrap"),
    "fixed:48": Accumulator.fixed(bits=48, overflow="saturate"),
    "fixed:200:wrap": Accumulator.fixed(bits=200, overflow="wrap"),
    "float32": Accumulator.floating(),
    "float16": Accumulator.floating("float16", order="sequential"),
    "bfloat16:pairwise": Accumulator.floating("bfloat16", "pairwise"),
    "float32:pairwise": Accumulator.floating("float32", order="pairwise"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_form_goes_both_ways(text):
    assert str(TEXTS[text]) == text
    assert Accumulator.parse(text) == TEXTS[text]
    assert hash(Accumulator.parse(text)) == hash(TEXTS[text])
    assert pickle.loads(pickle.dumps(TEXTS[text])) == TEXTS[text]


def test_defaults_may_be_spelled_out():
    assert Accumulator.parse("fixed:20:saturate") == Accumulator.parse("fixed:20")
    assert Accumulator.parse("float16:sequential") == Accumulator.parse("float16")
    assert Accumulator.fixed(np.int64(12)) == Accumulator.fixed(12)
    assert str(Accumulator.fixed(np.int64(12))) == "fixed:12"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exakt", "accumulator must be a known name, not 'exakt'; nearest: exact"),
        ("float61", "accumulator must be a known name, not 'float61'; nearest: float16, bfloat16, float32"),
        ("fixed", "accumulator must be a known name, not 'fixed'; nearest: fixed:20, fixed:20:wrap"),
        ("exact:3", "accumulator must be a known name, not 'exact:3'; nearest: exact"),
        ("fixed:20:clip", "overflow of an accumulator must be a known name, not 'clip'; valid: saturate, wrap"),
        ("float16:pairs", "order of an accumulator must be a known name, not 'pairs'; nearest: pairwise"),
    ],
)
def test_unknown_names_get_suggestions(text, message):
    with pytest.raises(KeyError) as caught:
        Accumulator.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Accumulator.fixed(1), InvalidValueError, "width of a fixed accumulator must be at least 2 bits, not 1"),
        (lambda: Accumulator.fixed(True), InvalidValueError, "width of a fixed accumulator must be at least 2 bits, not True"),
        (lambda: Accumulator.fixed(2.5), InvalidTypeError, "width of a fixed accumulator must be a whole number, not float"),
        (
            lambda: Accumulator.parse("fixed:-3"),
            InvalidValueError,
            "width of a fixed accumulator must be a whole number of bits, not '-3'",
        ),
        (lambda: Accumulator.parse(20), InvalidTypeError, "text of an accumulator must be a string, not int"),
        (
            lambda: Accumulator.floating("float64"),
            UnknownNameError,
            "type of an accumulator must be a known name, not 'float64'; nearest: float16, bfloat16, float32",
        ),
        (
            lambda: Accumulator(kind="exact", bits=3),
            InvalidValueError,
            "fields of the accumulator kind exact must be none, not bits",
        ),
        (
            lambda: Accumulator(kind="fixed"),
            InvalidValueError,
            "fields of the accumulator kind fixed must be bits and overflow, not none",
        ),
        (
            lambda: Accumulator(kind="floats"),
            UnknownNameError,
            "kind of an accumulator must be a known name, not 'floats'; nearest: floating",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message
