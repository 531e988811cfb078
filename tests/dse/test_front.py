from hypothesis import given
from hypothesis import strategies as st

from dse.front import knee, non_dominated
from dse.objectives import Objective

COST = Objective(name="lut", unit="LUT", model="m")
KL = Objective(name="kl", unit="nat")
ACCURACY = Objective(name="accuracy", unit="share", direction="maximize")


def dominates(a: dict[str, float], b: dict[str, float]) -> bool:
    better = [a["lut"] <= b["lut"], a["accuracy"] >= b["accuracy"], a["kl"] <= b["kl"]]
    return all(better) and a != b


points = st.lists(st.fixed_dictionaries({name: st.integers(0, 4).map(float) for name in ("lut", "accuracy", "kl")}), max_size=12)


@given(points)
def test_a_point_is_kept_exactly_if_none_dominates_it_and_no_equal_came_first(points: list[dict[str, float]]) -> None:
    expected = [
        i for i, point in enumerate(points) if point not in points[:i] and not any(dominates(other, point) for other in points)
    ]
    assert non_dominated(points, (COST, ACCURACY, KL)) == expected


def test_the_knee_is_near_the_best_of_both() -> None:
    front = [{"lut": 100, "kl": 1.0}, {"lut": 110, "kl": 0.02}, {"lut": 1000, "kl": 0.01}]
    assert knee(front, (KL, COST)) == 1


def test_a_front_of_one_point_is_its_own_knee() -> None:
    assert knee([{"lut": 1, "kl": 0.0}], (KL, COST)) == 0
