"""What may be chosen, as parameters of a trial and back."""

from hypothesis import given
from hypothesis import strategies as st

from dse.space import NETWORK, Group, Option, Space

GROUPS = (
    Group(layers=("stem",), stored=True),
    Group(layers=("query", "key"), stored=True),
    Group(layers=("scores",), stored=False),
)
SPACE = Space(
    groups=GROUPS,
    weights=("int4:group32:absmax", "e2m1"),
    activations=("int8", "e2m1"),
    steps=("none", "gptq(damping=0.5,act_order=false)+correct_bias"),
    network_steps=("none", "equalize+smooth(alpha=0.3)"),
)


def test_a_group_without_stored_weights_has_no_steps_to_choose() -> None:
    assert len(SPACE.options(GROUPS[0])) == 8
    assert {option.steps for option in SPACE.options(GROUPS[2])} == {"none"}
    assert set(SPACE.distributions()) == {
        NETWORK,
        *(f"{name}/{part}" for name in ("stem", "query") for part in ("weight", "activation", "steps")),
        *("scores/weight", "scores/activation"),
    }


@given(st.data())
def test_parameters_stand_for_options(data: st.DataObject) -> None:
    chosen = {group.name: data.draw(st.sampled_from(SPACE.options(group))) for group in GROUPS}
    row = data.draw(st.sampled_from(SPACE.network_steps))
    params = SPACE.params(chosen, row)
    assert set(params) == set(SPACE.distributions())
    assert SPACE.chosen(params) == chosen
    assert SPACE.chosen_network_steps(params) == row
    assert all(Option.parse(str(option)) == option for option in chosen.values())


def test_what_is_not_to_be_chosen_is_no_parameter() -> None:
    plain = Space(groups=GROUPS, weights=("int4",), activations=("int8",))
    assert set(plain.distributions()) == {
        f"{name}/{part}" for name in ("stem", "query", "scores") for part in ("weight", "activation")
    }
    assert plain.chosen_network_steps({}) == "none"
    only = Space(groups=GROUPS, weights=("int4",), activations=("int8",), steps=("gptq",))
    assert only.chosen({name: d.choices[0] for name, d in only.distributions().items()})["stem"].steps == "gptq"


def test_uniform_options_begin_without_steps_and_with_one_format_for_both() -> None:
    assert [str(option) for option in SPACE.uniform[:2]] == ["e2m1 e2m1", "int4:group32:absmax int8"]
    assert [option.steps for option in SPACE.uniform] == [SPACE.steps[0]] * 4 + [SPACE.steps[1]] * 4
