"""A network on a device: folded for a rate, for a budget, and as a cost model."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from formats import BitatlasError, InvalidValueError
from hwmodels.cost import LayerPlan, NotPricedError, evaluate
from hwmodels.fpga import devices, formula_prices
from hwmodels.fpga.dataflow import Prices, accumulator_bits, matrix_options, requantizer_options
from hwmodels.fpga.dataflow_model import dataflow
from hwmodels.fpga.devices import RESOURCES
from hwmodels.fpga.fold_search import InfeasibleError, weights
from hwmodels.fpga.network_folding import fold, fold_within
from hwmodels.fpga.pipeline import Pipeline, Target, share_needed
from tests.hwmodels.fpga.shapes import convolution, dense, heads, plan

#: of no table, so that a new one changes nothing here
PRICES = Prices(unit=formula_prices.unit_price, requantizer=formula_prices.requantizer_price)
NETWORK = (
    plan(convolution(3, 8, (3, 3), (12, 12), padding=1, name="a"), "int4", "uint8", "uint4"),
    plan(convolution(8, 16, (3, 3), (12, 12), stride=(2, 2), padding=1, name="b"), "e2m1", "uint4", "e2m1"),
    plan(convolution(16, 16, (3, 3), (6, 6), padding=1, groups=16, name="c"), "int8", "e2m1", "uint4", "int8"),
    plan(dense(576, 10, name="d"), "ternary", "uint4"),
)


def target(name: str = "zynq7020", **changes: object) -> Target:
    return Target(device=devices.get(name), **changes)  # type: ignore[arg-type]


def run(plans: Sequence[LayerPlan] = NETWORK, name: str = "zynq7020", **changes: object) -> Pipeline:
    return fold(plans, target(name, **changes), PRICES)


@pytest.mark.parametrize("fps", [100, 5_000, 50_000])
def test_a_rate_is_kept_and_a_higher_one_never_costs_less(fps: float) -> None:
    made = run(fps=fps)
    assert made.fits
    assert made.fps >= fps
    assert made.fps == 100e6 / made.bottleneck.cycles
    faster = run(fps=2 * fps)
    assert sum(faster.usage) >= sum(made.usage) or faster.usage.lut >= made.usage.lut


def test_a_budget_is_used_for_the_highest_rate() -> None:
    small, large = run(budget=0.3), run(budget=0.9)
    for made, budget in ((small, 0.3), (large, 0.9)):
        assert made.fits
        for used, available in zip(made.usage, devices.get("zynq7020").available, strict=True):
            assert used <= budget * available
    assert small.fps < large.fps
    with pytest.raises(BitatlasError):
        fold_within(NETWORK, target(fps=small.fps * 1.01, budget=0.3), PRICES)


def test_layers_add_up_and_the_slowest_sets_the_rate() -> None:
    made = run(fps=10_000)
    for index in range(len(RESOURCES)):
        assert made.usage[index] == sum(layer.usage[index] for layer in made.layers)
    assert made.bottleneck.cycles == max(option.cycles for layer in made.layers for _, option in layer.stages)
    assert [stage.kind for stage, _ in made.layers[2].stages] == ["padding", "matrix", "requantizer", "requantizer"]


def test_limits_lead_the_search() -> None:
    free = run(budget=0.2)
    assert free.usage.dsp + free.usage.bram > 0
    bare = run(budget=0.2, limits={"dsp": 0, "bram": 10})
    assert (bare.usage.dsp, bare.fits) == (0, True)
    assert bare.usage.bram <= 10
    assert bare.fps <= free.fps


def test_a_faster_clock_is_a_higher_rate() -> None:
    assert run(budget=0.5, clock_mhz=200).fps == pytest.approx(2 * run(budget=0.5).fps)


def test_what_a_layer_must_wait_for() -> None:
    assert share_needed(dense(12, 8)) == 1
    assert share_needed(dense(12, 8, vectors=5)) == 1 / 5
    assert share_needed(heads()) == 1
    assert share_needed(convolution(4, 4, (1, 1), (5, 5))) == 1 / 25
    assert share_needed(convolution(4, 4, (3, 3), (5, 5), padding=1)) == 17 / 49


def test_latency_lies_between_the_interval_and_all_cycles_together() -> None:
    made = run(fps=10_000)
    cycles = made.latency_us * 1e-6 * 100e6
    assert made.bottleneck.cycles <= cycles <= sum(option.cycles for layer in made.layers for _, option in layer.stages) + 1e-6
    one = run([plan(dense(12, 8))], fps=1e5)
    assert one.latency_us == pytest.approx(one.bottleneck.cycles / 100e6 * 1e6)


def test_remarks_name_the_bottleneck_and_what_binds() -> None:
    made = run(budget=0.3)
    layer = made.bottleneck.plan.workload.name
    assert re.fullmatch(
        rf"{layer} \((matrix|window|requantizer|padding) stage, {made.bottleneck.cycles} cycles\)", made.remarks["bottleneck"]
    )
    name, share = made.binding
    used, allowed = getattr(made.usage, name), getattr(made.target.allowed, name)
    assert share == used / allowed == max(u / a for u, a in zip(made.usage, made.target.allowed, strict=True) if a)
    assert made.remarks["binding resource"].endswith(f"{used:.0f} of {allowed:.0f} allowed on zynq7020 ({share:.1%})")


def test_a_rate_beyond_every_folding_says_which_layer() -> None:
    message = (
        "frame rate must be at most 505051 at 100 MHz, not 1e+06: the window stage of layer 'a' takes 198 cycles for a sample "
        "whatever its folding"
    )
    with pytest.raises(BitatlasError, match=f"^{re.escape(message)}$"):
        run(fps=1e6)


def test_what_does_not_fit_names_the_resource_the_nearest_rate_and_the_nearest_device() -> None:
    with pytest.raises(InfeasibleError) as caught:
        fold_within(NETWORK, target("xc7a35t", fps=400_000), PRICES)
    found = re.fullmatch(
        r"pipeline on xc7a35t at 400000 frames/s must fit in 20800 LUT, not need at least (\d+); "
        r"the highest rate that fits is (\d+\.?\d*) frames/s; the smallest device that it fits on is (\w+)",
        str(caught.value),
    )
    assert found
    needed, rate, device = int(found[1]), float(found[2]), found[3]
    assert needed > 20800
    assert fold_within(NETWORK, target("xc7a35t", fps=rate * 0.99999), PRICES).fits
    assert fold_within(NETWORK, target(device, fps=400_000, clock_mhz=100), PRICES).fits


def test_what_fits_nowhere_says_so() -> None:
    with pytest.raises(
        InfeasibleError, match=r"must fit in 10 LUT, not need at least \d+; the smallest device that it fits on is xc7a35t$"
    ):
        fold_within(NETWORK, target(limits={"lut": 10}), PRICES)
    with pytest.raises(InfeasibleError, match=r"not need at least \d+; it fits on no device that is known$"):
        fold_within(NETWORK, target(budget=1e-4), PRICES)


def test_where_nothing_fits_the_design_of_least_area_tells_by_how_much() -> None:
    made = run(name="xc7a35t", fps=400_000)
    assert not made.fits
    assert made.fps >= 400_000
    assert made.binding[1] > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0}, "frame rate must be a number above 0, not 0"),
        ({"fps": float("inf")}, "frame rate must be a number above 0, not inf"),
        ({"clock_mhz": -1}, "clock must be a number above 0, not -1"),
        ({"budget": 1.5}, "budget must be a share of the device, above 0 and at most 1, not 1.5"),
        ({"limits": {"brams": 1}}, "resource must be a known name, not 'brams'; nearest: bram"),
    ],
)
def test_targets_that_mean_nothing_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BitatlasError, match=re.escape(message)):
        target(**changes)


def test_the_cost_model_gives_layers_a_network_and_remarks() -> None:
    model = dataflow(target(fps=10_000), PRICES)
    cost, made = evaluate([model], NETWORK), run(fps=10_000)
    assert not model.separable
    total = cost.total
    assert {name: total[name] for name in RESOURCES} == made.usage._asdict()
    assert (total["fps"], total["latency_us"], total["budget_share"]) == (made.fps, made.latency_us, made.binding[1])
    assert total["energy_pj"] == pytest.approx(made.energy_pj)
    assert cost.layers["b"]["cycles"] == made.layers[1].cycles
    assert "fps" not in cost.layers["b"]
    assert "cycles" not in total
    assert dict(cost.remarks) == made.remarks
    assert next(metric for metric in model.metrics if metric.name == "fps").direction == "maximize"


def test_the_cost_model_refuses_what_no_pipeline_computes_with() -> None:
    model = dataflow(target(fps=10), PRICES)
    said = "weights must share a scale by tensor or channel to be summed as codes, not be int4:group4:absmax"
    with pytest.raises(NotPricedError, match=rf"^{said} \(cost model 'dataflow on zynq7020', layer 'dense'\)$"):
        evaluate([model], [plan(dense(), "int4:group4")])
    with pytest.raises(NotPricedError, match=r"\(cost model 'dataflow on zynq7020', layer 'dense'\)$"):
        evaluate([model], [plan(dense(), "mxfp4")])


@pytest.mark.parametrize(("name", "share"), [("xc7a35t", 0.25), ("xc7a35t", 0.1), ("zu7ev", 0.02)])
def test_no_choice_of_foldings_memories_and_recipes_is_faster_or_smaller(name: str, share: float) -> None:
    """Brute force over every option of every stage of two small layers, also those that the search drops unseen."""
    plans = [plan(dense(4, 3, vectors=2, name="a"), "int4", "uint4", "uint2"), plan(dense(3, 2, vectors=2, name="b"))]
    aim = target(name, budget=share)
    uint4, int4 = plans[0].activation.format, plans[0].weight.format
    matrices = [list(matrix_options(each.workload, int4, uint4, PRICES.unit)) for each in plans]
    bits = accumulator_bits(plans[0].workload, int4, uint4)
    output = plans[0].outputs[0].format
    stages = [*matrices, list(requantizer_options(plans[0].workload, bits, False, output, PRICES.requantizer))]
    tables = [np.array([(option.cycles, *option.usage) for option in options]) for options in stages]
    index = np.indices([len(table) for table in tables]).reshape(len(tables), -1)
    chosen = [table[of_stage] for table, of_stage in zip(tables, index, strict=True)]
    cycles, usage = np.max([each[:, 0] for each in chosen], axis=0), np.sum([each[:, 1:] for each in chosen], axis=0)
    possible = (usage <= np.array(aim.allowed)).all(axis=1)
    areas = usage @ weights(aim.device.available)
    made = fold(plans, aim, PRICES)
    assert made.fits == possible.any()
    if made.fits:
        assert made.bottleneck.cycles == cycles[possible].min()
        assert area(made) == pytest.approx(areas[possible & (cycles == made.bottleneck.cycles)].min())
    for fps in (1e6, 1e7):
        made = fold(plans, target(name, budget=share, fps=fps), PRICES)
        kept = possible & (cycles <= aim.clock_hz / fps)
        assert made.fits == kept.any()
        if made.fits:
            assert area(made) == pytest.approx(areas[kept].min())


def area(made: Pipeline) -> float:
    return float(np.array(made.usage) @ weights(made.target.device.available))


def test_no_layers_are_refused() -> None:
    with pytest.raises(BitatlasError, match=r"^a pipeline must have at least one layer, not none$"):
        run([])
    assert issubclass(InvalidValueError, BitatlasError)
