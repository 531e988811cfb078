"""How long launches take on a CUDA device: cold, with the second-level cache emptied, and steady, as in a decoding loop.

Cold launches wait on the device until the processor has put them into its queue, since starting a kernel from Python takes
longer than most kernels do. Steady timings replay a CUDA graph over several copies of the operands that together exceed twice the
cache, so that weights come from memory as they do in a network, and launches cost what they cost in a graph. Clocks and power are
left as they are: candidates are timed in turn, several rounds of each, and the median counts.
"""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from formats.errors import InvalidValueError

#: bytes that are written between cold launches: several times any second-level cache
FLUSH_BYTES = 256 * 2**20
#: launches of one cold timing, replays of one steady one
COLD_LAUNCHES, REPLAYS = 10, 8
#: cycles, a third of a millisecond, that the device idles before a cold launch
HEAD_START = 500_000
COPY_BYTES = 2**30

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a bench runs on, for the table."""

    name: str
    driver: str
    torch: str
    triton: str
    multiprocessors: int


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What a device was measured to reach at most."""

    #: of a large copy, reads and writes both counted
    bytes_per_second: float
    #: multiplications and additions of the vendor's large products, by arithmetic
    operations_per_second: Mapping[str, float]


class Bench(Protocol):
    """Something that times launches."""

    @property
    def device(self) -> Device:
        """What it runs on."""

    def cold(self, run: Run) -> list[float]:
        """Return the seconds of some launches, the cache emptied before each."""

    def steady(self, runs: Sequence[Run]) -> Callable[[], list[float]]:
        """Return what gives the seconds of one launch, in some replays of a graph of them all."""

    def ceilings(self) -> Ceilings:
        """Return what the device reaches at most."""

    def settle(self) -> None:
        """Wait until nothing runs any more; raise what has gone wrong with the device."""


class CudaBench:
    """The bench of this machine's CUDA device."""

    def __init__(self) -> None:
        """Take the current device; ``ValueError`` where there is none."""
        import torch

        if not torch.cuda.is_available():
            raise InvalidValueError("timings must be taken on a CUDA device, not without: torch finds none")
        self._torch: Any = torch
        self._flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")

    @cached_property
    def device(self) -> Device:
        """The device, and the versions that matter."""
        import triton

        cuda = self._torch.cuda
        return Device(
            name=cuda.get_device_name(),
            driver=_driver() or f"CUDA {self._torch._C._cuda_getDriverVersion()}",
            torch=self._torch.__version__,
            triton=triton.__version__,
            multiprocessors=cuda.get_device_properties(cuda.current_device()).multi_processor_count,
        )

    def cold(self, run: Run) -> list[float]:
        """Return the seconds of single launches between events, after the cache was written over."""
        run()
        pairs = []
        for _ in range(COLD_LAUNCHES):
            self._flush.zero_()
            self._torch.cuda._sleep(HEAD_START)
            begin, end = self._events()
            begin.record()
            run()
            end.record()
            pairs.append((begin, end))
        self.settle()
        return [begin.elapsed_time(end) * 1e-3 for begin, end in pairs]

    def steady(self, runs: Sequence[Run]) -> Callable[[], list[float]]:
        """Return what gives the seconds of one launch by replays of a graph, each between events."""
        graph = self._captured(runs)

        def replayed() -> list[float]:
            graph.replay()
            pairs = [self._events() for _ in range(REPLAYS)]
            for begin, end in pairs:
                begin.record()
                graph.replay()
                end.record()
            self.settle()
            return [begin.elapsed_time(end) * 1e-3 / len(runs) for begin, end in pairs]

        return replayed

    def _captured(self, runs: Sequence[Run]) -> Any:
        torch = self._torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what is compiled or allocated at the first launch must not fall into the capture
            for run in runs:
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self.settle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for run in runs:
                run()
        return graph

    def _events(self) -> tuple[Any, Any]:
        event = self._torch.cuda.Event
        return event(enable_timing=True), event(enable_timing=True)

    def ceilings(self) -> Ceilings:
        """Return the rates of a copy of a gibibyte, and of the vendor's large products of what the tensor cores can multiply."""
        source = self._torch.empty(COPY_BYTES, dtype=self._torch.uint8, device="cuda").random_(0, 255)
        target = self._torch.empty_like(source)
        copied = 2 * COPY_BYTES / float(np.median(self.cold(lambda: target.copy_(source))))
        return Ceilings(bytes_per_second=copied, operations_per_second=self._products())

    def _products(self) -> dict[str, float]:
        from hwmodels.gpu.devices import recognised
        from hwmodels.gpu.kernels.baselines import SQUARES

        able = recognised(self.device.name, self.device.multiprocessors).tera_operations
        rates: dict[str, float] = {}
        for kernel, product in SQUARES:
            if kernel.arithmetic in able:
                operands = kernel.operands(product, 0, self._torch.device("cuda"))
                seconds = float(np.median(self.cold(partial(kernel.run, operands))))
                rates[kernel.arithmetic] = kernel.operations(product) / seconds
        return rates

    def settle(self) -> None:
        """Wait until nothing runs any more; raise what has gone wrong with the device."""
        self._torch.cuda.synchronize()


def _driver() -> str:
    """Return the version of the driver as its own tool gives it; "" where that is not to be had."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ""


def median_and_spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median, and the distance of the quartiles as a share of it."""
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return float(median), float((high - low) / median)
