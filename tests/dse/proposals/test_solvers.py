"""Solvers against exhaustive search: the front of one cost, and the optimum within budgets on several."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from dse.proposals import ChoiceTable, Selection, knapsack, milp
from formats import BitatlasError, InvalidValueError

#: few different values, so that ties and zeros abound
FIGURE = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e-6, 7.25])


@st.composite
def tables(draw: st.DrawFn) -> ChoiceTable:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))

    def column() -> tuple[np.ndarray, ...]:
        return tuple(np.array(draw(st.lists(FIGURE, min_size=size, max_size=size))) for size in sizes)

    return ChoiceTable(
        groups=tuple(f"g{g}" for g in range(len(sizes))),
        options=tuple(tuple(f"o{o}" for o in range(size)) for size in sizes),
        losses=column(),
        costs={"a": column(), "b": column()},
    )


def random_table(groups: int, options: int, seed: int = 0) -> ChoiceTable:
    generator = np.random.default_rng(seed)
    return ChoiceTable(
        groups=tuple(f"g{g}" for g in range(groups)),
        options=tuple(tuple(f"o{o}" for o in range(options)) for _ in range(groups)),
        losses=tuple(10 ** generator.uniform(-6, 0, options) for _ in range(groups)),
        costs={name: tuple(generator.uniform(1, 100, options) for _ in range(groups)) for name in ("a", "b")},
    )


def trading_table(groups: int, options: int) -> ChoiceTable:
    """Options that cost more lose less, as formats do: long fronts."""
    generator = np.random.default_rng(0)
    costs = [np.sort(generator.uniform(1, 100, options)) for _ in range(groups)]
    return ChoiceTable(
        groups=tuple(f"g{g}" for g in range(groups)),
        options=tuple(tuple(f"o{o}" for o in range(options)) for _ in range(groups)),
        losses=tuple(generator.uniform(0.5, 2, options) * np.exp(-part / 20) for part in costs),
        costs={"a": tuple(costs)},
    )


def every(table: ChoiceTable) -> list[Selection]:
    return list(itertools.product(*(range(size) for size in table.sizes)))


def exhaustive_front(table: ChoiceTable) -> list[tuple[float, float]]:
    points = {(table.loss(selection), table.cost("a", selection)) for selection in every(table)}
    kept = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    return sorted(kept, key=lambda point: point[1])


@settings(deadline=None)
@given(tables())
def test_the_front_is_that_of_exhaustive_search(table: ChoiceTable) -> None:
    front = knapsack.front(table, "a", limit=None)
    assert [(loss, cost) for loss, cost, _ in front] == exhaustive_front(table)
    assert [(table.loss(s), table.cost("a", s)) for _, _, s in front] == [(loss, cost) for loss, cost, _ in front]
    assert front.factor == 1.0


@settings(deadline=None)
@given(tables(), st.integers(2, 6))
def test_a_thinned_front_keeps_the_bound_that_it_states(table: ChoiceTable, limit: int) -> None:
    front = knapsack.front(table, "a", limit=limit)
    for loss, cost in exhaustive_front(table):
        assert any(a <= loss and b <= cost * front.factor * (1 + 1e-12) for a, b, _ in front)


def test_thinning_is_stated_and_moves_little() -> None:
    table = trading_table(10, 8)
    exact, thin = knapsack.front(table, "a", limit=None), knapsack.front(table, "a", limit=200)
    assert len(exact) > 200 >= len(thin)
    assert 1 < thin.factor < 1.2
    assert knapsack.front(table, "a", limit=len(exact)).factor == 1.0


def test_the_best_within_a_budget() -> None:
    table = random_table(4, 3)
    front = knapsack.front(table, "a")
    budget = float(np.median(front.costs)) + 1
    best = min(table.loss(s) for s in every(table) if table.cost("a", s) <= budget)
    assert table.loss(front.best(budget)) == best
    with pytest.raises(InvalidValueError, match=r"budget must be at least .*, the least there is, not 0"):
        front.best(0.0)


def test_spread_takes_both_ends_and_even_steps_of_the_logarithm() -> None:
    costs = np.geomspace(1, 1e4, 401)
    assert costs[knapsack.spread(costs, 5)] == pytest.approx([1, 10, 100, 1e3, 1e4])
    with_zero = np.concatenate([[0.0], costs])
    assert {0, 401} <= set(knapsack.spread(with_zero, 5).tolist())
    assert knapsack.spread(costs[:3], 5).tolist() == [0, 1, 2]


@settings(max_examples=40, deadline=None)
@given(tables(), st.floats(0, 1), st.floats(0, 1))
def test_the_optimum_within_budgets_is_that_of_exhaustive_search(table: ChoiceTable, low: float, high: float) -> None:
    budgets = {}
    for name, share in (("a", low), ("b", high)):
        costs = sorted(table.cost(name, selection) for selection in every(table))
        budgets[name] = costs[int(share * (len(costs) - 1))]
    within = [s for s in every(table) if all(table.cost(name, s) <= budget for name, budget in budgets.items())]
    if not within:
        with pytest.raises(BitatlasError, match=r"budgets must be within reach together, not a<=.* within the others"):
            milp.solve(table, budgets)
        return
    found = milp.solve(table, budgets)
    assert found.selection in within
    assert found.loss == table.loss(found.selection) == pytest.approx(min(map(table.loss, within)), rel=1e-8)
    assert found.proved
    assert found.bound <= found.loss
    assert found.costs == {name: table.cost(name, found.selection) for name in table.costs}


def test_what_lies_on_a_budget_to_the_last_bit_is_found() -> None:
    losses = (np.zeros(1), np.zeros(2), np.zeros(4), np.array([0.0, 0.5]))
    costs = (np.zeros(1), np.zeros(2), np.array([0.0, 0.0, 0.5, 1e-6]), np.array([1.0, 0.0]))
    options = tuple(tuple(f"o{i}" for i in range(len(part))) for part in losses)
    table = ChoiceTable(groups=("g0", "g1", "g2", "g3"), options=options, losses=losses, costs={"a": costs, "b": losses})
    assert milp.solve(table, {"a": 1.0, "b": 1.0}).loss == 0.0


def test_losses_that_span_orders_of_magnitude_are_solved_exactly() -> None:
    table = random_table(5, 4, seed=3)
    budgets = {"a": 300.0, "b": 350.0}
    within = [s for s in every(table) if all(table.cost(name, s) <= budget for name, budget in budgets.items())]
    assert milp.solve(table, budgets).selection == min(within, key=table.loss)


def test_one_budget_gives_what_the_front_gives() -> None:
    table = random_table(12, 24)
    front = knapsack.front(table, "a")
    for budget in (200.0, 400.0):
        assert milp.solve(table, {"a": budget}).loss == pytest.approx(table.loss(front.best(budget)), rel=1e-8)


def test_budgets_out_of_reach_are_named_with_the_least_there_is() -> None:
    table = random_table(3, 3)
    least = {name: milp.least(table, name) for name in ("a", "b")}
    with pytest.raises(BitatlasError) as raised:
        milp.solve(table, {"a": 1.0, "b": 1e6})
    wanted = f"not a<=1 (least {least['a']:.12g}), b<=1000000 (least {least['b']:.12g})"
    assert str(raised.value) == f"budgets must be within reach of the options, {wanted}"


def test_budgets_out_of_reach_together_are_named_with_the_least_within_the_others() -> None:
    table = ChoiceTable(
        groups=("g",),
        options=(("x", "y"),),
        losses=(np.array([1.0, 1.0]),),
        costs={"a": (np.array([1.0, 5.0]),), "b": (np.array([5.0, 1.0]),)},
    )
    with pytest.raises(BitatlasError) as raised:
        milp.solve(table, {"a": 2.0, "b": 3.0})
    wanted = "a<=2 (least 5 within the others), b<=3 (least 5 within the others)"
    assert str(raised.value) == f"budgets must be within reach together, not {wanted}"


def test_an_optimum_within_a_gap_alone_is_bounded_by_it() -> None:
    table = random_table(26, 24, seed=1)
    found = milp.solve(table, {"a": 700.0, "b": 800.0}, relative_gap=0.5)
    best = milp.solve(table, {"a": 700.0, "b": 800.0})
    assert best.proved
    assert found.bound <= best.loss <= found.loss <= 2.01 * best.loss


def test_what_time_cut_short_is_not_called_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(3, 3)
    x = np.tile([1.0, 0.0, 0.0], 3)
    stopped = OptimizeResult(status=1, x=x, mip_dual_bound=0.0, message="Time limit reached")
    monkeypatch.setattr(milp, "milp", lambda *arguments, **options: stopped)
    found = milp.solve(table, {"a": 1e9}, time_limit=1.0)
    assert (found.selection, found.proved, found.bound) == ((0, 0, 0), False, 0.0)
    stopped.x = None
    with pytest.raises(BitatlasError, match=r"find a selection within its time limit, not stop without one \(Time limit reached\)"):
        milp.solve(table, {"a": 1e9}, time_limit=1.0)


def test_a_bound_that_does_not_meet_the_loss_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = random_table(3, 3)
    claimed = OptimizeResult(status=0, x=np.tile([1.0, 0.0, 0.0], 3), mip_dual_bound=0.0, message="Optimal")
    monkeypatch.setattr(milp, "milp", lambda *arguments, **options: claimed)
    assert not milp.solve(table, {"a": 1e9}).proved


def test_selections_outside_a_budget_by_less_than_the_solver_s_tolerance_are_cut_off() -> None:
    costs = (np.array([1.0 + 1e-9, 1.0]), np.array([1.0, 1.0]))
    table = ChoiceTable(
        groups=("g", "h"), options=(("x", "y"),) * 2, losses=(np.array([1.0, 2.0]), np.array([1.0, 1.0])), costs={"a": costs}
    )
    assert milp.solve(table, {"a": 2.0}).selection[0] == 1
