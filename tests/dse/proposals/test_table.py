"""A table of choices holds what it is given, to the bit, and refuses what no selection could be priced by."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.proposals import ChoiceTable
from formats import InvalidValueError

NUMBERS = st.floats(min_value=0, max_value=1e300, allow_nan=False)


def table(losses: list[list[float]], **costs: list[list[float]]) -> ChoiceTable:
    return ChoiceTable(
        groups=tuple(f"g{g}" for g in range(len(losses))),
        options=tuple(tuple(f"o{o}" for o in range(len(part))) for part in losses),
        losses=tuple(np.array(part) for part in losses),
        costs={name: tuple(np.array(part) for part in column) for name, column in costs.items()},
    )


def test_totals_add_up_over_groups() -> None:
    made = table([[1.0, 2.0], [10.0, 20.0]], lut=[[5.0, 6.0], [7.0, 8.0]])
    assert made.loss((1, 0)) == 12.0
    assert made.cost("lut", (0, 1)) == 13.0
    assert made.totals(made.losses, np.array([[0, 0], [1, 1]])).tolist() == [11.0, 22.0]


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_json_keeps_every_bit(losses: list[list[float]]) -> None:
    made = table(losses, lut=losses)
    read = ChoiceTable.from_json(made.to_json())
    assert (read.groups, read.options) == (made.groups, made.options)
    for before, after in zip([*made.losses, *made.costs["lut"]], [*read.losses, *read.costs["lut"]], strict=True):
        assert before.tobytes() == after.tobytes()


def test_selections_have_names_and_back() -> None:
    made = table([[1.0, 2.0], [3.0]])
    assert made.names((1, 0)) == {"g0": "o1", "g1": "o0"}
    assert made.selection({"g1": "o0", "g0": "o1"}) == (1, 0)
    with pytest.raises(InvalidValueError, match=r"option must be one of the group's, not 'o7' \(group 'g0'\)"):
        made.selection({"g0": "o7", "g1": "o0"})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_figures_must_be_finite_and_not_negative(wrong: float) -> None:
    with pytest.raises(InvalidValueError, match=r"lut must be finite and not negative, not .* \(group 'g1', option 'o1'\)"):
        table([[1.0], [1.0, 2.0]], lut=[[1.0], [1.0, wrong]])


def test_shapes_must_fit_the_options() -> None:
    with pytest.raises(InvalidValueError, match=r"lut must have shape \(1,\), not \(2,\) \(group 'g0'\)"):
        table([[1.0]], lut=[[1.0, 2.0]])
    with pytest.raises(InvalidValueError, match="lut must be given for 1 groups, not for 0"):
        table([[1.0]], lut=[])
    with pytest.raises(InvalidValueError, match=r"options must be different names, at least one, not none \(group 'g0'\)"):
        table([[]])


def test_unknown_costs_and_selections_are_refused() -> None:
    made = table([[1.0]], lut=[[1.0]])
    with pytest.raises(InvalidValueError, match=r"cost must be one of the table's \(lut\), not 'bram'"):
        made.cost("bram", (0,))
    with pytest.raises(InvalidValueError, match=r"index of an option must be from 0 to 0, not 1 \(group 'g0'\)"):
        made.loss((1,))
    with pytest.raises(InvalidValueError, match="selection must have 1 indices, not 2"):
        made.loss((0, 0))


def test_broken_json_is_refused() -> None:
    for text in ("", "[]", "{}", '{"groups": 1}'):
        with pytest.raises(InvalidValueError, match="a table of choices must be JSON as it was written, not broken"):
            ChoiceTable.from_json(text)
