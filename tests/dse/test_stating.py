"""From settings to a problem: what a coordinator and its workers must agree on."""

from dataclasses import replace

import pytest

from dse.settings import SearchSettings, from_toml
from dse.stating import state
from formats import BitatlasError

SETTINGS = SearchSettings(model="vit", data="digits", formats=("int8", "int4"), out="-")


def test_layers_that_read_one_tensor_share_their_formats_unless_told_otherwise() -> None:
    tied = {group.name: group.layers for group in state(SETTINGS).problem.space.groups}
    assert tied["blocks.0.attention.query"] == tuple(f"blocks.0.attention.{name}" for name in ("query", "key", "value"))
    free = state(replace(SETTINGS, ties="none")).problem.space.groups
    assert all(len(group.layers) == 1 for group in free)
    pattern = state(replace(SETTINGS, ties="none", tie=(r"blocks\.\d+\.up",))).problem.space.groups
    assert [group.layers for group in pattern if len(group.layers) > 1] == [("blocks.0.up", "blocks.1.up", "blocks.2.up")]


def test_steps_are_written_as_they_are_always_written() -> None:
    stated = state(replace(SETTINGS, layer_steps=("none", "gptq( damping = 0.01 )+correct_bias"), network_steps=("equalize",)))
    assert stated.settings.layer_steps == ("none", "gptq+correct_bias")
    assert stated.problem.space.network_steps == ("equalize",)


def test_a_worker_states_the_same_problem_from_what_the_ledger_keeps() -> None:
    stated = state(replace(SETTINGS, constraint=("lut<=90000",), layer_steps=("none", "gptq")))
    again = state(from_toml(stated.settings.to_toml()))
    assert again.fingerprint == stated.fingerprint
    assert again.settings == stated.settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_steps": ("equalize",)}, "step equalize must stand with those of the network, not of layers or blocks"),
        ({"network_steps": ("gptq",)}, "step gptq must stand with those of layers, not of the network"),
        ({"layer_steps": ("gptq", "gptq(damping=0.01)")}, "rows of steps must be different from each other, not gptq,gptq"),
        ({"tie": ("blocks.9",)}, "blocks.9"),
    ],
)
def test_what_cannot_be_stated_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        state(replace(SETTINGS, **changes))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_cheap_rungs_are_for_the_sampler_front_alone_unless_asked_for() -> None:
    def samples(**changes: object) -> list[tuple[int, float]]:
        return [(rung.samples, rung.margin) for rung in state(replace(SETTINGS, **changes)).rungs.rungs]  # type: ignore[arg-type]

    assert samples() == [(16, 4.0), (64, 2.0)]
    assert samples(sampler="tpe") == []
    assert samples(sampler="tpe", rungs=("32",)) == [(32, 2.0)]
    assert samples(rungs=("none",)) == []
