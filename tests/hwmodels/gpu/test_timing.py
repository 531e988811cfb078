"""The bench of a CUDA device, on a stand-in for it that notes what it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from formats.errors import InvalidValueError
from hwmodels.gpu import timing
from hwmodels.gpu.kernels import baselines
from hwmodels.gpu.timing import COLD_LAUNCHES, REPLAYS, CudaBench, Device


class Cuda:
    """A device on which time passes by what runs: 2 ms for each launch, 6 for a graph of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0
        self.capturing = False
        self.Event, self.CUDAGraph, self.Stream, self.current_stream = self._event, self._cuda_graph, self._stream, self._stream

    def note(self, what: str, milliseconds: float = 0.0) -> None:
        self.log.append(f"capture {what}" if self.capturing else what)
        self.now += 0.0 if self.capturing else milliseconds

    def _event(self, *, enable_timing: bool) -> SimpleNamespace:
        assert enable_timing
        event = SimpleNamespace(at=0.0)

        def record() -> None:
            event.at = self.now

        event.record = record
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def _cuda_graph(self) -> SimpleNamespace:
        return SimpleNamespace(replay=lambda: self.note("replay", 6.0))

    @contextmanager
    def graph(self, graph: SimpleNamespace) -> Iterator[None]:
        self.capturing = True
        yield
        self.capturing = False

    def _stream(self) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda other: None)

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        yield

    def synchronize(self) -> None:
        self.note("wait")

    def _sleep(self, cycles: int) -> None:
        self.note("sleep", 1.0)


@pytest.fixture
def cuda() -> Cuda:
    return Cuda()


@pytest.fixture
def bench(cuda: Cuda) -> CudaBench:
    found = object.__new__(CudaBench)
    found._torch = SimpleNamespace(cuda=cuda)
    found._flush = SimpleNamespace(zero_=lambda: cuda.note("flush", 1.0))
    return found


def launch(cuda: Cuda) -> Callable[[], None]:
    return lambda: cuda.note("launch", 2.0)


def test_cold_launches_follow_a_flush_and_a_head_start_and_are_alone_between_events(cuda: Cuda, bench: CudaBench) -> None:
    assert bench.cold(launch(cuda)) == [pytest.approx(2e-3)] * COLD_LAUNCHES
    assert cuda.log == ["launch", *["flush", "sleep", "launch"] * COLD_LAUNCHES, "wait"]


def test_steady_launches_are_captured_once_all_have_run_and_share_the_time_of_a_replay(cuda: Cuda, bench: CudaBench) -> None:
    timer = bench.steady([launch(cuda)] * 3)
    assert cuda.log == [*["launch"] * 3, "wait", *["capture launch"] * 3]
    cuda.log.clear()
    assert timer() == [pytest.approx(2e-3)] * REPLAYS
    assert cuda.log == [*["replay"] * (1 + REPLAYS), "wait"]


def test_the_stand_in_has_nothing_that_torch_lacks() -> None:
    for name in ("Event", "CUDAGraph", "graph", "Stream", "current_stream", "stream", "synchronize", "_sleep"):
        assert hasattr(torch.cuda, name)


def test_a_machine_without_a_device_is_refused() -> None:
    with pytest.raises(InvalidValueError) as error:
        CudaBench()
    assert str(error.value) == "timings must be taken on a CUDA device, not without: torch finds none"


@pytest.mark.parametrize(("code", "printed", "version"), [(0, "580.159.04\n580.159.04\n", "580.159.04"), (9, "no devices", "")])
def test_the_driver_is_what_its_own_tool_says(monkeypatch: pytest.MonkeyPatch, code: int, printed: str, version: str) -> None:
    monkeypatch.setattr(timing.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(timing.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=code, stdout=printed))
    assert timing._driver() == version


def test_without_that_tool_the_driver_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.shutil, "which", lambda name: None)
    assert timing._driver() == ""


def test_ceilings_are_those_of_a_copy_and_of_the_vendors_products(
    cuda: Cuda, bench: CudaBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SimpleNamespace(random_=lambda low, high: source)
    target = SimpleNamespace(copy_=lambda given: cuda.note("copy", 4.0))
    bench._torch = SimpleNamespace(
        cuda=cuda, empty=lambda *_, **__: source, empty_like=lambda given: target, uint8=None, device=str
    )
    bench.__dict__["device"] = Device(name="NVIDIA A100-SXM4-80GB", driver="", torch="", triton="", multiprocessors=108)
    stand_in = {"operands": lambda *_: None, "run": lambda _: cuda.note("product", 2.0)}
    squares = [(replace(kernel, **stand_in), product) for kernel, product in baselines.SQUARES]
    monkeypatch.setattr(baselines, "SQUARES", squares)
    found = bench.ceilings()
    assert found.bytes_per_second == pytest.approx(2 * 2**30 / 4e-3)
    assert found.operations_per_second == {name: pytest.approx(2 * 8192**3 / 2e-3) for name in ("bfloat16", "int8")}
