"""Calibration of a GPU, on a bench that keeps time by a formula and kernels that are plain torch."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton")
import torch

from formats import BitatlasError
from formats.format import Format
from formats.registry import scalar
from hwmodels.gpu import calibration, calibration_cases, devices, timings
from hwmodels.gpu.calibration import calibrate, copied
from hwmodels.gpu.calibration_cases import Case
from hwmodels.gpu.devices import recognised
from hwmodels.gpu.kernels import environment, registry
from hwmodels.gpu.kernels.kernel import Kernel, Product
from hwmodels.gpu.timing import Ceilings, Device, median_and_spread


class Clock:
    """Stands still but for what the bench lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FormulaBench:
    """Launches take 5 us; each timing takes a second of the clock."""

    def __init__(self, clock: Clock, name: str = "NVIDIA H100 80GB HBM3") -> None:
        self.device = Device(name=name, driver="12", torch="2", triton="3", multiprocessors=132)
        self.clock = clock
        self.dead = False

    def cold(self, run: Callable[[], object]) -> list[float]:
        run()
        self.clock.now += 1
        return [6e-6, 5e-6, 7e-6]

    def steady(self, runs: Sequence[Callable[[], object]]) -> Callable[[], list[float]]:
        for run in runs:
            run()
        return lambda: [5e-6]

    def settle(self) -> None:
        if self.dead:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def ceilings(self) -> Ceilings:
        return Ceilings(bytes_per_second=3e12, operations_per_second={"bfloat16": 7e14, "float8": 1.3e15, "int8": 1.4e15})


def kernel(name: str = "matmul", *, off_by: float = 0.0, refuses: int = 0) -> Kernel:
    def operands(p: Product, seed: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if p.rows == refuses:
            raise RuntimeError("CUDA out of memory\nmore")
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(p.rows, 8, generator=generator), torch.randn(8, max(p.columns, 1), generator=generator)

    def reference(given: tuple[torch.Tensor, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        expected = given[0].double().numpy() @ given[1].double().numpy()
        return expected, np.full(expected.shape, 1e-4)

    return Kernel(
        name=name,
        family="bfloat16",
        summary="",
        arithmetic="bfloat16",
        takes=lambda p: None if p.weight == "bfloat16" else "weight must be bfloat16",
        operands=operands,
        run=lambda given: given[0] @ given[1] + off_by,
        reference=reference,
        bytes_moved=lambda p: 2.0 * (p.rows * p.depth + p.columns * p.depth + p.rows * p.columns),
        operations=lambda p: 2.0 * p.rows * p.columns * p.depth,
    )


@pytest.fixture(autouse=True)
def _on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(calibration, "MOST_COPIES", 3)


def cases(*kernels: Kernel, rows: Sequence[int] = (1, 16, 256)) -> list[Case]:
    shapes = [(256, 512), (512, 512), (1024, 512)]
    products = [
        Product(rows=r, columns=columns, depth=depth, weight="bfloat16", activation="bfloat16")
        for r, (columns, depth) in itertools.product(rows, shapes)
    ]
    return [Case(kernel=each, product=p) for p in products for each in kernels]


def test_every_case_is_timed_cold_and_steady_and_read_back(tmp_path: Path) -> None:
    clock = Clock()
    outcome = calibrate(FormulaBench(clock), cases(kernel()), tmp_path / "t.csv", 10, clock)
    assert (outcome.timed, outcome.known, outcome.out_of_time, outcome.skipped) == (9, 0, 0, {})
    frame = timings.read(tmp_path / "t.csv")
    assert list(frame.columns) == list(timings.COLUMNS)
    assert sorted(frame["mode"].unique()) == ["cold", "steady"]
    assert (frame[frame["mode"] == "cold"]["microseconds"] == 6).all()
    first = frame[(frame["rows"] == 16) & (frame["columns"] == 512) & (frame["mode"] == "steady")].iloc[0]
    assert first["gb_s"] == pytest.approx(2 * (16 * 512 + 512 * 512 + 16 * 512) / 5e-6 / 1e9, rel=1e-3)
    assert first["share_of_copy"] == pytest.approx(first["gb_s"] / 3000, rel=1e-3)
    assert first["share_of_matmul"] == pytest.approx(2 * 16 * 512 * 512 / 5e-6 / 7e14, abs=1e-4)
    assert first["tera_operations"] == pytest.approx(2 * 16 * 512 * 512 / 5e-6 / 1e12, rel=1e-2)
    assert set(timings.by_family(frame)) == {"bfloat16"}
    assert set(calibration.errors_by_family(frame, devices.get("h100"))) == {"bfloat16"}


def test_a_run_out_of_time_says_what_is_left_and_the_next_goes_on(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "t.csv"
    first = calibrate(FormulaBench(clock), cases(kernel()), path, minutes=0.2, clock=clock)  # 12 seconds, 5 for a case
    assert (first.timed, first.out_of_time) == (3, 6)
    second = calibrate(FormulaBench(clock), cases(kernel()), path, minutes=10, clock=clock)
    assert (second.timed, second.known, second.out_of_time) == (6, 3, 0)
    assert len(timings.read(path)) == 18


def test_a_wrong_kernel_is_not_timed_and_named(tmp_path: Path) -> None:
    clock = Clock()
    outcome = calibrate(FormulaBench(clock), cases(kernel(), kernel("wrong", off_by=0.5)), tmp_path / "t.csv", 10, clock)
    assert outcome.timed == 9
    assert len(outcome.skipped) == 9
    assert all(name.startswith("wrong bfloat16 x bfloat16, ") for name in outcome.skipped)
    beyond = "result must lie within its bound, not beyond it by 0.4999"
    assert all(reason.startswith(beyond) for reason in outcome.skipped.values())
    assert set(timings.read(tmp_path / "t.csv")["kernel"]) == {"matmul"}


def test_memory_that_does_not_suffice_costs_one_shape_and_says_so(tmp_path: Path) -> None:
    clock = Clock()
    outcome = calibrate(FormulaBench(clock), cases(kernel(refuses=256)), tmp_path / "t.csv", 10, clock)
    assert outcome.timed == 6
    assert set(outcome.skipped.values()) == {"CUDA out of memory"}


@pytest.mark.parametrize(("column", "bench"), [("device", "NVIDIA H200"), ("torch", None)])
def test_a_table_of_something_else_is_not_gone_on_with(tmp_path: Path, column: str, bench: str | None) -> None:
    clock, path = Clock(), tmp_path / "t.csv"
    calibrate(FormulaBench(clock), cases(kernel(), rows=(1,)), path, 10, clock)
    other = FormulaBench(clock, bench or "NVIDIA H100 80GB HBM3")
    if bench is None:
        other.device = replace(other.device, torch="3")
    with pytest.raises(BitatlasError, match=rf"^{column} of a table that is gone on with must be .*; use another --out$"):
        calibrate(other, cases(kernel()), path, 10, clock)


def test_copies_have_tensors_of_their_own_and_share_the_rest() -> None:
    fmt = scalar("int4")

    @dataclass(frozen=True, kw_only=True)
    class Weight:
        words: torch.Tensor
        format: Format

    @dataclass(frozen=True, kw_only=True)
    class Operands:
        x: torch.Tensor
        weights: tuple[Weight, ...]

    first = Operands(x=torch.arange(6).reshape(2, 3).t(), weights=(Weight(words=torch.arange(4), format=fmt),))
    other = copied(first)
    assert torch.equal(other.x, first.x)
    assert other.x.stride() == first.x.stride()
    assert other.x.data_ptr() != first.x.data_ptr()
    assert other.weights[0].words.data_ptr() != first.weights[0].words.data_ptr()
    assert other.weights[0].format is fmt


@pytest.mark.parametrize(
    ("name", "multiprocessors", "known"),
    [
        ("NVIDIA H100 80GB HBM3", 132, "h100"),
        ("NVIDIA A100-SXM4-80GB", 108, "a100"),
        ("NVIDIA L4", 58, "l4"),
        ("NVIDIA GeForce RTX 4090", 128, "rtx4090"),
    ],
)
def test_devices_are_recognised_by_cudas_names(name: str, multiprocessors: int, known: str) -> None:
    assert recognised(name, multiprocessors).name == known


@pytest.mark.parametrize("name", ["Tesla T4", "NVIDIA L40S"])
def test_a_device_without_a_data_sheet_is_refused(name: str) -> None:
    with pytest.raises(BitatlasError, match=rf"^GPU must have a data sheet in .*, not lack it: {name}$"):
        recognised(name, 142)


def test_another_variant_of_a_device_is_refused() -> None:
    with pytest.raises(BitatlasError) as error:
        recognised("NVIDIA H100 PCIe", 114)
    wanted = "GPU must have the 132 multiprocessors of NVIDIA H100 SXM5 80GB, not 114"
    assert str(error.value) == f"{wanted}: NVIDIA H100 PCIe wants a data sheet of its own"


def test_a_case_that_the_device_does_not_survive_is_left_out_from_then_on(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "t.csv"
    bench = FormulaBench(clock)

    def deadly(given: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        if len(given[0]) == 16:
            bench.dead = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
        return given[0] @ given[1]

    kernels = (kernel(), replace(kernel("deadly"), run=deadly))
    with pytest.raises(BitatlasError) as error:
        calibrate(bench, cases(*kernels), path, 10, clock)
    what = "deadly bfloat16 x bfloat16, 1 x 256 x 512"  # results are checked with 16 rows too
    assert str(error.value) == f"device must answer after every launch, not fail: {what}; run the command again to go on without it"
    bench.dead = False
    outcome = calibrate(bench, cases(*kernels)[:2], path, 10, clock)
    assert outcome.timed == 1
    assert outcome.skipped[what].startswith("device answered no more: CUDA error: an illegal memory access was encountered (in ")


def test_a_result_that_differs_from_run_to_run_is_not_timed(tmp_path: Path) -> None:
    clock, counted = Clock(), itertools.count()
    moving = replace(kernel("moving"), run=lambda given: given[0] @ given[1] + 1e-6 * (next(counted) % 2))
    outcome = calibrate(FormulaBench(clock), cases(kernel(), moving, rows=(1,)), tmp_path / "t.csv", 10, clock)
    assert outcome.timed == 3
    assert set(outcome.skipped.values()) == {"result must be the same each time, not differ (1 x 512 x 1024)"}


def test_what_fails_while_it_is_timed_is_left_out(tmp_path: Path) -> None:
    clock = Clock()
    bench = FormulaBench(clock)

    def cold(run: Callable[[], object]) -> list[float]:
        if clock.now > 6:
            raise RuntimeError("CUDA out of memory")
        clock.now += 1
        return [6e-6]

    bench.cold = cold  # type: ignore[method-assign]
    outcome = calibrate(bench, cases(kernel(), rows=(1,)), tmp_path / "t.csv", 10, clock)
    assert (outcome.timed, set(outcome.skipped.values())) == (1, {"CUDA out of memory"})


def test_the_spread_is_that_of_the_quartiles() -> None:
    assert median_and_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, pytest.approx(2 / 3))


def test_every_kernel_can_be_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_cases, "MATRICES", ((48, 128),))
    monkeypatch.setattr(calibration_cases, "ROWS", (1, 24))
    monkeypatch.setattr(calibration, "CHECKED", ((1, 32, 128), (24, 16, 256)))
    monkeypatch.setattr(calibration, "MOST_COPIES", 1)
    clock, kernels = Clock(), registry.kernels()
    on_hand = [case for case in calibration_cases.wanted(kernels) if case.kernel.name != "torch._scaled_mm"]
    outcome = calibrate(FormulaBench(clock), on_hand, tmp_path / "t.csv", 1000, clock)
    assert outcome.skipped == {}
    assert outcome.timed == len(on_hand)
    found = timings.read(tmp_path / "t.csv")
    assert set(found["kernel"]) == set(kernels) - {"torch._scaled_mm"}
    assert (found["gb_s"] > 0).all()
