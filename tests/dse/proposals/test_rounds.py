"""Proposals round by round: uniforms, exact fronts, refits and exchanges, never the same twice."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dse.proposals import ChoiceTable, Selection, knapsack, rounds
from dse.proposals.exchange import exchanges
from dse.proposals.frame import Frame
from dse.proposals.pool import pick, predicted
from dse.proposals.rounds import Plan, Proposal, stalled
from formats import BitatlasError, InvalidValueError

GROUPS, OPTIONS = 5, 6
UNIFORM = tuple(Proposal(selection=(option,) * GROUPS, origin=f"uniform {option}") for option in range(OPTIONS))


def plan(table: ChoiceTable, frame: Frame, **options: Any) -> Plan:
    """Return the plan for one table, its index left out of the selections."""
    made = rounds.plan((table,), frame, **options)
    return replace(made, first=tuple(replace(proposal, selection=proposal.selection[1:]) for proposal in made.first))


def propose(table: ChoiceTable, tried: Any, count: int, plan: Plan, cost: Any = None) -> list[Proposal]:
    """Propose from one table, its index left out of the selections."""
    whole = replace(plan, first=tuple(replace(proposal, selection=(0, *proposal.selection)) for proposal in plan.first))
    known = {(0, *selection): figures for selection, figures in tried.items()}
    found = rounds.propose((table,), known, count, whole, cost and (lambda selection: cost(selection[1:])))
    return [replace(proposal, selection=proposal.selection[1:]) for proposal in found]


@pytest.fixture(scope="module")
def table() -> ChoiceTable:
    """Options in order of rising bits: each costs more and loses less."""
    generator = np.random.default_rng(0)
    bits = np.arange(2, 2 + OPTIONS)
    return ChoiceTable(
        groups=tuple(f"g{g}" for g in range(GROUPS)),
        options=tuple(tuple(f"int{b}" for b in bits) for _ in range(GROUPS)),
        losses=tuple(10 ** generator.uniform(-1, 0.5) * 4.0**-bits for _ in range(GROUPS)),
        costs={
            "lut": tuple(generator.uniform(1, 9) * bits**2.0 for _ in range(GROUPS)),
            "memory": tuple(generator.uniform(1, 9) * bits.astype(float) for _ in range(GROUPS)),
        },
    )


def truth(table: ChoiceTable, selection: Selection) -> dict[str, float]:
    """Return what measuring gives: losses that are additive but for another weight of each group and a term of neighbours."""
    weights = np.exp(np.random.default_rng(5).normal(0, 1, GROUPS))
    parts = [float(weight * column[o]) for weight, column, o in zip(weights, table.losses, selection, strict=True)]
    loss = sum(parts) + sum(np.sqrt(a * b) for a, b in itertools.pairwise(parts)) / 4
    return {"kl": loss} | {name: table.cost(name, selection) for name in table.costs}


@pytest.fixture(scope="module")
def frame(table: ChoiceTable) -> Frame:
    return Frame.of(table, "kl", ["lut"])


def searched(
    table: ChoiceTable, plan: Plan, times: int, count: int = 8
) -> tuple[dict[Selection, dict[str, float]], list[str], list[float]]:
    tried: dict[Selection, dict[str, float]] = {}
    origins: list[str] = []
    history: list[float] = []
    for _ in range(times):
        proposals = propose(table, tried, count, plan)
        assert not {proposal.selection for proposal in proposals} & set(tried)
        tried |= {proposal.selection: truth(table, proposal.selection) for proposal in proposals}
        origins += [proposal.origin for proposal in proposals]
        history.append(plan.frame.hypervolume(list(tried.values())))
    return tried, origins, history


def test_promising_uniforms_come_first_then_the_exact_front_then_the_rest(table: ChoiceTable, frame: Frame) -> None:
    whole = plan(table, frame, uniform=UNIFORM, points=10)
    _, origins, _ = searched(table, whole, times=6, count=6)
    assert origins[:OPTIONS] == [f"uniform {option}" for option in range(OPTIONS)]
    opening = len(whole.first)
    assert set(origins[OPTIONS:opening]) == {"front:lut"}
    assert set(origins[opening:]) <= {"refit:lut", "exchange"}
    assert len(origins) > opening


def test_uniforms_that_promise_nothing_come_after_the_exact_front(table: ChoiceTable) -> None:
    costs = tuple(np.append(part[1] + 1, part[1:]) for part in table.column("lut"))  # the first costs more than the second
    dearer = table.with_costs({"lut": costs})
    origins = [proposal.origin for proposal in plan(dearer, Frame.of(dearer, "kl", ["lut"]), uniform=UNIFORM, points=10).first]
    assert origins[: OPTIONS - 1] == [f"uniform {option}" for option in range(1, OPTIONS)]
    assert origins[-1] == "uniform 0"


def test_a_uniform_point_of_the_exact_front_is_called_uniform(table: ChoiceTable, frame: Frame) -> None:
    first = plan(table, frame, uniform=UNIFORM, points=10).first
    assert {p.origin for p in first if p.selection in {u.selection for u in UNIFORM}} == {p.origin for p in UNIFORM}
    assert {p.origin for p in first} == {"front:lut", *(p.origin for p in UNIFORM)}


def test_the_opening_holds_both_ends_of_the_exact_front(table: ChoiceTable, frame: Frame) -> None:
    front = knapsack.front(table, "lut")
    first = [proposal.selection for proposal in plan(table, frame, points=10).first]
    assert first[0] == tuple(front.selections[0].tolist())
    assert first[-1] == tuple(front.selections[-1].tolist())
    assert len(first) == 10
    assert set(first) <= {selection for _, _, selection in front}


def test_proposals_are_a_function_of_what_was_tried_whatever_its_order(table: ChoiceTable, frame: Frame) -> None:
    whole = plan(table, frame, uniform=UNIFORM)
    tried, _, _ = searched(table, whole, times=5)
    again = propose(table, tried, 8, whole)
    assert propose(table, tried, 8, whole) == again
    assert propose(table, dict(reversed(tried.items())), 8, whole) == again


def test_refits_and_exchanges_come_near_the_best_front_there_is(table: ChoiceTable, frame: Frame) -> None:
    every = [truth(table, selection) for selection in itertools.product(range(OPTIONS), repeat=GROUPS)]
    best = frame.hypervolume(every)
    whole = plan(table, frame, uniform=UNIFORM, points=16)
    tried, _, history = searched(table, whole, times=14)
    assert history == sorted(history)
    after_opening = frame.hypervolume([truth(table, proposal.selection) for proposal in whole.first])
    assert len(tried) < 0.02 * len(every)
    assert history[-1] > 0.995 * best > after_opening


def test_what_is_not_known_yet_counts_as_predicted_and_is_not_proposed_again(table: ChoiceTable, frame: Frame) -> None:
    whole = plan(table, frame, uniform=UNIFORM)
    tried, _, _ = searched(table, whole, times=5)
    first = propose(table, tried, 4, whole)
    pending = {proposal.selection: None for proposal in first}
    second = propose(table, {**tried, **pending}, 4, whole)
    assert not {p.selection for p in first} & {p.selection for p in second}
    assert propose(table, tried, 8, whole)[:4] == first


def test_several_costs_have_a_front_each_and_one_together(table: ChoiceTable) -> None:
    both = Frame.of(table, "kl", ["lut", "memory"])
    whole = plan(table, both, uniform=UNIFORM, points=6)
    fronts = [p.origin for p in whole.first if not p.origin.startswith("uniform")]
    assert fronts.count("front:lut") >= 4
    assert set(fronts) == {"front:lut", "front:memory", "front:all"}
    _, origins, history = searched(table, whole, times=6)
    assert set(origins) & {"exchange", "refit:lut", "refit:memory", "refit:all"}
    assert history == sorted(history)


@pytest.mark.parametrize("bounded", [("lut",), ("lut", "memory")])
def test_proposals_keep_budgets(table: ChoiceTable, bounded: tuple[str, ...]) -> None:
    frame = Frame.of(table, "kl", ["lut"])
    budgets = {name: 0.5 * sum(float(part.max()) for part in table.costs[name]) for name in bounded}
    whole = plan(table, frame, budgets=budgets, points=8)
    tried, origins, _ = searched(table, whole, times=4)
    assert {"front:lut"} < set(origins)
    for selection in tried:
        assert all(table.cost(name, selection) <= budget for name, budget in budgets.items())


def test_budgets_out_of_reach_raise(table: ChoiceTable, frame: Frame) -> None:
    with pytest.raises(InvalidValueError, match=r"budget must be at least .*, the least there is, not 1"):
        plan(table, frame, budgets={"lut": 1.0})
    with pytest.raises(BitatlasError, match=r"budgets must be within reach of the options, not memory<=1 \(least"):
        plan(table, frame, budgets={"memory": 1.0})


def test_nothing_is_proposed_where_nothing_is_left() -> None:
    small = ChoiceTable(
        groups=("g",), options=(("a", "b"),), losses=(np.array([1.0, 2.0]),), costs={"lut": (np.array([2.0, 1.0]),)}
    )
    whole = plan(small, Frame.of(small, "kl", ["lut"]))
    tried = {(0,): {"kl": 1.0, "lut": 2.0}, (1,): {"kl": 2.0, "lut": 1.0}}
    assert propose(small, tried, 5, whole) == []


def test_true_costs_decide_where_they_are_given(table: ChoiceTable, frame: Frame) -> None:
    """Costs that come in steps: the table's are a lower bound."""

    def stepped(selection: Selection) -> dict[str, float]:
        return {"lut": 200.0 * np.ceil(table.cost("lut", selection) / 200)}

    budget = 900.0
    whole = plan(table, frame, budgets={"lut": budget})
    tried = {proposal.selection: truth(table, proposal.selection) | stepped(proposal.selection) for proposal in whole.first}
    proposals = propose(table, tried, 10, whole, stepped)
    assert proposals
    assert all(stepped(proposal.selection)["lut"] <= budget for proposal in proposals)
    without = propose(table, tried, 10, whole)
    assert proposals != without


def test_exchanges_are_one_to_three_options_away_and_corrected_by_what_they_start_from(table: ChoiceTable, frame: Frame) -> None:
    base = (2,) * GROUPS
    measured = {base: {"kl": 3 * table.loss(base), "lut": table.cost("lut", base)}}
    pool = exchanges(table, frame, measured)
    changed = (pool.selections != np.array(base)).sum(axis=1)
    assert set(changed.tolist()) == {1, 2, 3}
    assert (changed == 1).sum() == GROUPS * (OPTIONS - 1)
    for row, selection in enumerate(map(tuple, pool.selections.tolist())):
        assert pool.figures[row] == pytest.approx([3 * table.loss(selection), table.cost("lut", selection)])


def test_only_selections_on_the_front_are_exchanged_from(table: ChoiceTable, frame: Frame) -> None:
    good, bad = (1,) * GROUPS, (3,) * GROUPS
    figures = {good: {"kl": 1.0, "lut": 10.0}, bad: {"kl": 2.0, "lut": 20.0}}
    alone = exchanges(table, frame, {good: figures[good]})
    assert exchanges(table, frame, figures).selections.tolist() == alone.selections.tolist()


def test_picking_is_greedy_in_hypervolume(table: ChoiceTable, frame: Frame) -> None:
    rows = np.array(list(itertools.product(range(OPTIONS), repeat=GROUPS)))[::97]
    pool = predicted(table, frame, rows, "x")
    picked = pick(pool, 5, frame=frame, known=np.zeros((0, 2)))
    taken: list[list[float]] = []
    for row in range(5):
        totals = [frame.hypervolume([dict(zip(frame.names, p, strict=True)) for p in [*taken, q]]) for q in pool.figures.tolist()]
        assert picked.figures[row].tolist() == pool.figures[int(np.argmax(totals))].tolist()
        taken.append(picked.figures[row].tolist())


def test_a_search_stalls_after_two_rounds_without_gain() -> None:
    assert stalled([0.5, 0.6, 0.6005, 0.62]) is None
    assert stalled([0.5, 0.6, 0.6005]) is None
    found = stalled([0.5, 0.6, 0.6005, 0.6005], epsilon=1e-3)
    assert str(found) == "stalled at hypervolume 0.6005: the last 2 rounds added 0.0005, 0, all below 0.001"
    assert stalled([]) is None


def test_a_frame_spans_the_table_s_totals(table: ChoiceTable, frame: Frame) -> None:
    corners = [{"kl": frame.ideals[0], "lut": frame.ideals[1]}, {"kl": frame.references[0], "lut": frame.references[1]}]
    assert frame.place(corners).tolist() == [[0, 0], [1, 1]]
    assert frame.ideals[1] == table.cost("lut", (0,) * GROUPS)
    assert frame.hypervolume(corners[:1]) == 1.0
    assert frame.hypervolume([]) == 0.0
    with pytest.raises(InvalidValueError, match="figures must hold every objective, not lack 'lut'"):
        frame.place([{"kl": 1.0}])
