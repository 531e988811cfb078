"""Steps by name: their text form, their options, their order."""

import pytest

from dse.ptq import steps
from dse.ptq.gptq import Gptq
from formats import BitatlasError


def test_every_step_is_known_once_and_reads_back_from_its_text() -> None:
    assert (
        *("rotate", "equalize", "smooth", "awq"),
        *("gptq", "round", "flexround", "round_block", "lorc", "correct_bias"),
    ) == steps.ORDER
    for name, kind in steps.kinds("network", "layer", "block").items():
        step = steps.parse(name)
        assert (type(step), steps.text(step)) == (kind, name)
        assert step.summary


def test_options_are_part_of_the_text_where_they_are_not_as_by_default() -> None:
    step = steps.parse("gptq( damping = 0.5 , act_order=false)")
    assert step == Gptq(damping=0.5, act_order=False)
    assert steps.parse(steps.text(step)) == step
    assert steps.text(steps.parse(f"gptq(damping={Gptq().damping})")) == "gptq"


def test_rows_keep_their_order() -> None:
    assert steps.parse_row("correct_bias + gptq(damping=0.5)", "layer") == ("correct_bias", "gptq(damping=0.5)")
    assert steps.parse_row("none") == ()
    assert steps.row(()) == "none"
    assert steps.row(("gptq", "correct_bias")) == "gptq+correct_bias"
    assert steps.split("a(b+c,d)+e", "+") == ["a(b+c,d)", "e"]


@pytest.mark.parametrize(
    ("text", "scopes", "message"),
    [
        ("gtpq", ("layer",), "step must be a known name, not 'gtpq'; nearest: gptq"),
        ("equalize", ("layer", "block"), "step equalize must stand with those of the network, not of layers or blocks"),
        ("gptq", ("network",), "step gptq must stand with those of layers, not of the network"),
        ("gptq(dumping=1)", (), "option of gptq must be a known name, not 'dumping'; nearest: damping"),
        ("gptq(damping=much)", (), "option damping of gptq must be a number, not 'much'"),
        ("gptq(act_order=1)", (), "option act_order of gptq must be true or false, not '1'"),
        ("gptq(damping)", (), "option damping of gptq must be a number, not ''"),
        ("gptq damping", (), "step must be NAME or NAME(OPTION=VALUE,…), such as gptq(damping=0.02), not 'gptq damping'"),
        ("gptq+correct_bias+gptq", (), "step must be given once, not 2 times: gptq"),
    ],
)
def test_bad_rows_are_refused(text: str, scopes: tuple[steps.Scope, ...], message: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        steps.parse_row(text, *scopes)
    assert str(caught.value).startswith(message)
