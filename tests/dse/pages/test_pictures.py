"""Pictures stay readable for any network, and are drawn for any name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.image import imread

from dse.pages import formats_picture, history, sensitivity_picture
from dse.pages.drawing import even
from dse.pages.facts import Sensitivity
from dse.pages.short_names import short
from dse.report import Outcome
from dse.search import Evaluated

MakeSearch = Callable[..., Outcome]


def test_evenly_picked_indices_have_both_ends_and_what_is_kept() -> None:
    assert even(5, 8) == [0, 1, 2, 3, 4]
    assert even(100, 4) == [0, 33, 66, 99]
    assert even(100, 4, frozenset({34})) == [0, 34, 66, 99]
    assert even(100, 4, frozenset({31, 34, 66})) == [31, 34, 66, 99]


def test_columns_are_in_order_of_the_cost_and_hold_the_chosen_point(
    make_trial: Callable[..., Evaluated], make_outcome: Callable[..., Outcome]
) -> None:
    found = make_outcome(*(make_trial(i, "int4/int4", 1 / (i + 1), 10 + i) for i in range(60)))
    for chosen in found.front_trials:
        shown = formats_picture.columns(found, chosen)
        assert (len(shown.points), shown.of) == (12, 60)
        assert shown.chosen is not None
        assert shown.points[shown.chosen] == chosen
        assert [point.figures["lut"] for point in shown.points] == sorted(point.figures["lut"] for point in shown.points)
    assert formats_picture.columns(found, None).chosen is None


def test_options_that_were_chosen_are_shown_where_there_is_no_room_for_all(
    make_search: MakeSearch, make_sensitivity: Callable[..., Sensitivity]
) -> None:
    sensitivity = make_sensitivity(make_search(layers=12), options=90)
    options, of = sensitivity_picture.rows(sensitivity)
    assert (len(options), of) == (40, 90)
    assert set(sensitivity.chosen.values()) <= set(options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int4:channel:mse", "int4"),
        ("uint4:tensor:mse", "uint4"),
        ("mxfp4:block:absmax", "mxfp4"),
        ("nf4:group64:absmax:double", "nf4:group64:absmax:double"),
    ],
)
def test_defaults_are_left_out_of_short_names(text: str, expected: str) -> None:
    assert short(text) == expected


@pytest.mark.parametrize(("layers", "steps"), [(6, False), (40, True)])
def test_pictures_are_no_wider_than_a_page_can_show(
    tmp_path: Path, make_search: MakeSearch, make_sensitivity: Callable[..., Sensitivity], layers: int, steps: bool
) -> None:
    found = make_search(layers=layers, trials=30, name="a${}$_long.name^of.a.layer", steps=steps)
    made = history.history(found, 300)
    assert made is not None
    history.write(tmp_path / "history.png", made, 0.2, "$x$ <b>")
    formats_picture.write(tmp_path / "formats.png", formats_picture.columns(found, found.front_trials[0]), found.objectives, "$x$")
    sensitivity_picture.write(tmp_path / "sensitivity.png", make_sensitivity(found), "$x$")
    for name in ("history.png", "formats.png", "sensitivity.png"):
        height, width = imread(tmp_path / name).shape[:2]
        assert 500 < width < 2400, name
        assert 300 < height < 2400, name
