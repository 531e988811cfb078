"""The search against brute force over every choice."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.fpga.dataflow import Option, Stage, undominated
from hwmodels.fpga.devices import Usage
from hwmodels.fpga.fold_search import (
    Design,
    binding,
    fastest_interval,
    highest_rate,
    infeasible,
    least_area,
    weights,
)
from hwmodels.fpga.folding import Folding

DEVICE = Usage(lut=1000, flip_flops=2000, dsp=40, bram=30, uram=0)


def stage(rows: list[tuple[int, int, int, int, int]], name: str = "s") -> Stage:
    options = [Option(c, Usage(lut=lut, dsp=d, bram=b, uram=u), Folding(), "", "", "formula") for c, lut, d, b, u in rows]
    return Stage(layer=name, kind="matrix", options=undominated(options))


ROWS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 400), st.integers(0, 20), st.integers(0, 15), st.sampled_from([0, 0, 0, 2])),
    min_size=1,
    max_size=6,
)
PIPELINES = st.lists(ROWS.map(stage), min_size=1, max_size=4)
LIMITS = st.tuples(st.integers(0, 1000), st.integers(0, 40), st.integers(0, 30)).map(
    lambda t: Usage(lut=t[0], flip_flops=2000, dsp=t[1], bram=t[2], uram=0)
)


def area(design: Design) -> float:
    return float(np.array(design.usage) @ weights(DEVICE))


def every_design(stages: list[Stage], limits: Usage) -> list[Design]:
    """All designs within the limits."""
    designs = [Design(stages=tuple(stages), options=options) for options in itertools.product(*(s.options for s in stages))]
    return [d for d in designs if all(used <= limit for used, limit in zip(d.usage, limits, strict=True))]


@settings(max_examples=150, deadline=None)
@given(stages=PIPELINES, limits=LIMITS, interval=st.integers(1, 9))
def test_no_design_of_the_interval_has_less_area(stages: list[Stage], limits: Usage, interval: int) -> None:
    found = least_area(stages, interval, limits, DEVICE)
    possible = [d for d in every_design(stages, limits) if d.interval <= interval]
    assert (found is None) == (not possible)
    if found is not None:
        assert found.interval <= interval
        assert all(used <= limit for used, limit in zip(found.usage, limits, strict=True))
        assert area(found) == pytest.approx(min(area(d) for d in possible), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(stages=PIPELINES, limits=LIMITS)
def test_no_design_within_the_limits_is_faster(stages: list[Stage], limits: Usage) -> None:
    found = highest_rate(stages, limits, DEVICE)
    possible = every_design(stages, limits)
    assert (found is None) == (not possible)
    if found is not None:
        best = min(d.interval for d in possible)
        assert found.interval == best
        assert area(found) == pytest.approx(min(area(d) for d in possible if d.interval == best), abs=1e-9)


def test_a_shared_budget_is_split_as_no_stage_by_itself_would() -> None:
    """Both stages want the DSP slices; the limit on LUTs decides which of them gets them."""
    small, large = stage([(1, 100, 0, 0, 0), (1, 10, 30, 0, 0)]), stage([(1, 500, 0, 0, 0), (1, 10, 30, 0, 0)])
    found = least_area([small, large], 1, DEVICE._replace(lut=150), DEVICE)
    assert found is not None
    assert [option.usage.lut for option in found.options] == [100, 10]
    assert found.usage.dsp == 30


def test_of_equal_areas_the_fewest_luts_are_taken() -> None:
    device = Usage(lut=100, flip_flops=1, dsp=100, bram=1, uram=0)
    found = least_area([stage([(1, 60, 10, 0, 0), (1, 10, 60, 0, 0)])], 1, device, device)
    assert found is not None
    assert found.usage.lut == 10


def test_the_solver_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        rows = [[tuple(int(v) for v in (1, *generator.integers(1, 300, 3), 0)) for _ in range(8)] for _ in range(8)]
        least_area([stage(each) for each in rows], 1, DEVICE._replace(lut=600, dsp=700, bram=700), DEVICE)
    assert capfd.readouterr().out == ""


def test_the_fastest_interval_is_that_of_the_stage_that_folds_least() -> None:
    interval, slowest = fastest_interval([stage([(3, 1, 0, 0, 0), (9, 0, 0, 0, 0)], "a"), stage([(5, 1, 0, 0, 0)], "b")])
    assert (interval, slowest.layer) == (5, "b")


def test_the_binding_resource_is_the_one_of_the_largest_share_and_finite() -> None:
    limits = Usage(lut=100, flip_flops=100, dsp=10, bram=10, uram=0)
    assert binding(Usage(lut=50, dsp=6), limits) == ("dsp", 0.6)
    assert binding(Usage(lut=50, uram=1), limits) == ("uram", 2.0)


def test_what_does_not_fit_names_the_resource_that_binds() -> None:
    stages = [stage([(1, 300, 0, 8, 0), (1, 280, 5, 8, 0)], name) for name in "ab"]
    error = infeasible(stages, 1, DEVICE._replace(lut=500), DEVICE, "pipeline on x")
    assert str(error) == "pipeline on x must fit in 500 LUT, not need at least 560"
    assert (error.resource, error.needed, error.allowed) == ("lut", 560, 500)


def test_what_fits_in_each_resource_but_not_in_all_says_so() -> None:
    stages = [stage([(1, 300, 0, 0, 0), (1, 10, 30, 0, 0)], name) for name in "ab"]
    limits = DEVICE._replace(lut=300, dsp=20)
    assert least_area(stages, 1, limits, DEVICE) is None
    message = "p must fit in 300 LUT, not need 600 in its least design, with no other that keeps all resources"
    assert re.fullmatch(re.escape(message), str(infeasible(stages, 1, limits, DEVICE, "p")))
