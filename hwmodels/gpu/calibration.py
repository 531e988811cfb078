"""``dse calibrate gpu``: every kernel on the shapes of real layers, beside the vendor's libraries, into a table that resumes.

What matters most comes first, so that a run that is out of time has timed the shapes that separate the kernels. Candidates of a
shape are timed in turn, in several rounds, not one after the other: clocks drift. A kernel's result is held against its reference
on small products first; a wrong one is not timed, and says so.
"""

import csv
import datetime
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from itertools import product as pairs
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from formats import Quantizer
from formats.definition import Definition
from formats.errors import BitatlasError
from formats.registry import get as get_format
from hwmodels.gpu import devices
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.gemm import WIDE_BITS
from hwmodels.gpu.timing import Bench, median_and_spread
from hwmodels.gpu.timings import COLUMNS, MODES

if TYPE_CHECKING:
    from hwmodels.gpu.kernels.kernel import Kernel, Product

#: (columns, depth) of layers: square ones, and those of transformers of 8 and 70 billion weights
MATRICES = ((4096, 4096), (8192, 8192), (14336, 4096), (4096, 14336), (1024, 1024), (2048, 2048), (28672, 8192), (8192, 28672))
ROWS = (1, 16, 4096, 256, 64, 4, 1024, 128)
#: small products that results are checked on, ragged where the kernel takes that
CHECKED = ((1, 512, 1024), (16, 512, 1024), (130, 272, 512))
ROUNDS = 5
#: copies of the operands together are at least this many times the second-level cache
TIMES_CACHE = 2.0
#: in a graph of few launches its own start would count
FEWEST_COPIES, MOST_COPIES = 4, 512
#: shapes that a run begins with and whose duration says nothing of the next
COMPILING_SHAPES = 3
#: what tells cases apart in a table
KEY = ("kernel", "weight", "activation", "group", "rows", "columns", "depth")

#: (weight, activation, group) that every kernel is asked whether it takes; a group of 0 is a scale for each column
OPERANDS = (
    ("bfloat16", "bfloat16", 0),
    *((name, "bfloat16", 128) for name in ("int4", "e2m1", "nf4", "int8", "post4", "pot4", "e4m3", "e3m2", "int3", "int2")),
    *((name, "bfloat16", 0) for name in ("int4", "ternary", "tritplanes", "mxfp4", "mxfp8_e4m3", "nvfp4")),
    ("int8", "int8", 0),
    ("int4", "int8", 0),
    ("ternary", "int8", 0),
    ("float8_e4m3fn", "float8_e4m3fn", 0),
    ("int4", "float8_e4m3fn", 0),
)
#: (format, values, group) of kernels that quantize, timed on the largest number of rows alone
QUANTIZED = tuple((name, "bfloat16", 0) for name in ("int8", "int4", "e2m1", "float8_e4m3fn", "post4", "nf4", "mxfp4", "nvfp4"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kernel and the operands that it is timed on."""

    kernel: "Kernel"
    product: "Product"

    @property
    def key(self) -> tuple[object, ...]:
        """What tells its rows in the table from others."""
        p = self.product
        return (self.kernel.name, p.weight, p.activation, p.group, p.rows, p.columns, p.depth)


@dataclass(kw_only=True)
class Outcome:
    """What a calibration did."""

    path: Path
    timed: int = 0
    known: int = 0
    #: cases that time did not suffice for, and why others were left out, by case
    out_of_time: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def calibrate(
    bench: Bench, cases: Sequence[Case], path: Path, minutes: float, clock: Callable[[], float] = time.monotonic
) -> Outcome:
    """Time the cases that the table at ``path`` lacks, shape by shape, until there is no time for another one.

    Raises ``BitatlasError`` for a table of another device or other versions, and where the device answers no more: the case that
    did that is noted beside the table, and left out from then on.
    """
    began = clock()
    known, fatal = _known(path, bench), _fatal(path)
    outcome = Outcome(path=path, skipped={_named(case): fatal[case.key] for case in cases if case.key in fatal})
    wanted = [case for case in cases if case.key not in known and case.key not in fatal]
    outcome.known = len(cases) - len(wanted) - len(outcome.skipped)
    deadline = began + 60 * minutes
    copy = bench.copy_bytes_per_second()
    right: dict[tuple[object, ...], str] = {}
    longest = 0.0
    with tqdm(total=len(wanted), desc="timings", unit="case", disable=None) as bar:
        for number, (shape, group) in enumerate(_by_shape(wanted).items()):
            started = clock()
            if started + longest > deadline:
                outcome.out_of_time += len(group)
                continue
            bar.set_postfix_str("{} x {} x {}".format(*shape))
            rows = _time_shape(bench, group, copy, right, outcome)
            _append(path, rows)
            outcome.timed += len(rows) // len(MODES)
            bar.update(len(group))
            # the first shapes compile what later ones use
            longest = max(longest, clock() - started) if number >= COMPILING_SHAPES else 0.0
    return outcome


def _by_shape(cases: Sequence[Case]) -> dict[tuple[int, int, int], list[Case]]:
    found: dict[tuple[int, int, int], list[Case]] = {}
    for case in cases:
        found.setdefault((case.product.rows, case.product.columns, case.product.depth), []).append(case)
    return found


def _time_shape(
    bench: Bench, cases: Sequence[Case], copy: float, right: dict[tuple[object, ...], str], outcome: Outcome
) -> list[dict[str, object]]:
    """Time the cases of one shape in turn; a case that fails is left out, saying why."""
    timers: dict[Case, tuple[Callable[[], list[float]], Callable[[], list[float]]]] = {}
    for case, operands in _built(cases).items():
        with _left_out_if_it_fails(bench, case, outcome):
            if isinstance(operands, Exception):
                raise operands
            wrong = _checked(case, right)
            if wrong:
                raise BitatlasError(wrong)
            runs = _launches(case, operands, bench)
            timers[case] = (partial(bench.cold, runs[0]), bench.steady(runs))
    times: dict[Case, tuple[list[float], list[float]]] = {case: ([], []) for case in timers}
    for _ in range(ROUNDS):
        for case in list(times):
            with _left_out_if_it_fails(bench, case, outcome):
                for found, timer in zip(times[case], timers[case], strict=True):
                    found.extend(timer())
            if _named(case) in outcome.skipped:
                del times[case]
    return [
        _row(bench, case, mode, seconds, copy)
        for case, both in times.items()
        for mode, seconds in zip(MODES, both, strict=True)
    ]


def _built(cases: Sequence[Case]) -> dict[Case, Any]:
    """Return the operands of each case, or why it has none; what runs on them is compiled, by as many threads as there are cores."""
    from hwmodels.gpu.kernels.environment import compiling, device

    where = device()

    def built(case: Case) -> Any:
        try:
            operands = case.kernel.operands(case.product, 0, where)
            case.kernel.run(operands)
        except Exception as error:  # raised again in its turn
            return error
        return operands

    with compiling(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(built, cases), strict=True))


@contextmanager
def _left_out_if_it_fails(bench: Bench, case: Case, outcome: Outcome) -> Iterator[None]:
    """Leave a case out, saying why, if it fails: a kernel that cannot be had must not cost the others their timings.

    Where the device answers no more nothing can be timed in this process: then the case is noted and ``BitatlasError`` raised.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        outcome.skipped[_named(case)] = reason
        try:
            bench.settle()
        except Exception as fatal:
            reason = f"device answered no more: {reason}"
            _append(_fatal_path(outcome.path), [dict(zip(KEY, case.key, strict=True)) | {"reason": reason}], (*KEY, "reason"))
            rest = "run the command again to go on without it"
            raise BitatlasError(f"device must answer after every launch, not fail: {_named(case)}; {rest}") from fatal


def _named(case: Case) -> str:
    p = case.product
    return f"{case.kernel.name} {p.weight} x {p.activation}, {p.rows} x {p.columns} x {p.depth}"


def _checked(case: Case, right: dict[tuple[object, ...], str]) -> str:
    """Return what is wrong with a kernel's results for these formats, "" if nothing is; looked at once."""
    import torch

    from hwmodels.gpu.kernels.environment import device

    p = case.product
    key = (case.kernel.name, p.weight, p.activation, p.group)
    if key not in right:
        right[key] = ""
        for rows, columns, depth in CHECKED:
            small = replace(p, rows=rows, columns=columns if p.columns else 0, depth=depth)
            if case.kernel.takes(small) is not None:
                continue
            operands = case.kernel.operands(small, 0, device())
            expected, bound = case.kernel.reference(operands)
            first = case.kernel.run(operands)
            found = first.detach().to("cpu").double().numpy()
            first.view(torch.uint8).fill_(0x7F)  # what the second result may be put into, if nothing is written
            del first
            again = case.kernel.run(operands).detach().to("cpu").double().numpy()
            if found.tobytes() != again.tobytes():
                right[key] = f"result must be the same each time, not differ ({rows} x {columns} x {depth})"
                break
            worst = float(np.max(np.abs(found.reshape(expected.shape) - expected) - bound, initial=0.0))
            if not np.isfinite(found).all() or worst > 0:
                right[key] = f"result must lie within its bound, not beyond it by {worst:g} ({rows} x {columns} x {depth})"
                break
    return right[key]


def _launches(case: Case, first: Any, bench: Bench) -> list[Callable[[], object]]:
    """Return launches on several copies of the operands, enough that weights come from memory."""
    cache = _device(bench).l2_mib * 2**20
    wanted = max(np.ceil(TIMES_CACHE * cache / case.kernel.bytes_moved(case.product)), FEWEST_COPIES)
    operands = [first, *(copied(first) for _ in range(int(min(wanted, MOST_COPIES)) - 1))]
    return [partial(case.kernel.run, each) for each in operands]


def copied(operands: Any) -> Any:
    """Return operands, a tensor or dataclasses and tuples with tensors in them, with tensors of their own in memory."""
    if hasattr(operands, "data_ptr"):
        return operands.clone()
    if isinstance(operands, tuple) and not hasattr(operands, "_fields"):
        return tuple(copied(each) for each in operands)
    if is_dataclass(operands) and not isinstance(operands, Definition | type):
        given = {item.name: getattr(operands, item.name) for item in fields(operands) if item.init}
        return replace(operands, **{name: copied(value) for name, value in given.items()})
    return operands


def _row(bench: Bench, case: Case, mode: str, seconds: Sequence[float], copy: float) -> dict[str, object]:
    median, spread = median_and_spread(seconds)
    kernel, p, device = case.kernel, case.product, bench.device
    rate, bytes_a_second = kernel.operations(p) / median, kernel.bytes_moved(p) / median
    peak = _device(bench).tera_operations.get(kernel.arithmetic)
    weight_bits, scale_bits = _stored_bits(p)
    return {
        "kernel": kernel.name,
        "family": kernel.family,
        **{name: getattr(p, name) for name in ("weight", "activation", "group", "rows", "columns", "depth")},
        "mode": mode,
        "microseconds": round(median * 1e6, 3),
        "spread": round(spread, 4),
        "gb_s": round(bytes_a_second / 1e9, 1),
        "tera_operations": round(rate / 1e12, 2),
        "share_of_copy": round(bytes_a_second / copy, 4),
        "share_of_peak": round(rate / 1e12 / peak, 4) if peak else "",
        "correct": True,
        "weight_bits": weight_bits,
        "activation_bits": get_format(p.activation).bits if p.columns else WIDE_BITS,  # type: ignore[union-attr]
        "scale_bits": scale_bits,
        "arithmetic": kernel.arithmetic,
        "device": device.name,
        "driver": device.driver,
        "torch": device.torch,
        "triton": device.triton,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def _stored_bits(p: "Product") -> tuple[float, float]:
    """Return the bits of one weight, and of all scales."""
    if not p.columns:
        return WIDE_BITS, 0
    granularity = f"group{p.group}" if p.group else "channel"
    quantizer = Quantizer.parse(p.weight, granularity=granularity)
    return quantizer.width, quantizer.storage_bits((p.columns, p.depth)).scales


def _device(bench: Bench) -> GpuDevice:
    return recognised(bench.device.name, bench.device.multiprocessors)


def recognised(name: str, multiprocessors: int) -> GpuDevice:
    """Return the data sheet of a device by the name that CUDA gives it; ``BitatlasError`` for one without, or another variant."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    told = {*words, *(first + second for first, second in zip(words, words[1:], strict=False))}
    found = next((devices.get(known) for known in devices.names() if known in told), None)
    if found is None:
        known = ", ".join(devices.names())
        raise BitatlasError(f"GPU must have a data sheet in hwmodels/gpu/devices.py ({known}), not lack it: {name}")
    if found.multiprocessors != multiprocessors:
        wanted = f"{found.multiprocessors} multiprocessors of {found.product}"
        raise BitatlasError(f"GPU must have the {wanted}, not {multiprocessors}: {name} wants a data sheet of its own")
    return found


def _known(path: Path, bench: Bench) -> set[tuple[object, ...]]:
    """Return the keys of cases that the table has in every mode."""
    if not path.exists():
        return set()
    from hwmodels.gpu.timings import read

    frame = read(path)
    device = bench.device
    for column, value in (("device", device.name), ("torch", device.torch), ("triton", device.triton)):
        other = [text for text in frame[column].astype(str).unique() if text != value]
        if other:
            raise BitatlasError(
                f"{column} of a table that is gone on with must be {value}, not {other[0]}: {path}; use another --out"
            )
    counts = frame.groupby(list(KEY)).size()
    return {tuple(key) for key, count in counts.items() if count >= len(MODES)}  # type: ignore[arg-type]


def _fatal_path(path: Path) -> Path:
    return path.with_suffix(".fatal.csv")


def _fatal(path: Path) -> dict[tuple[object, ...], str]:
    """Return why cases are left out that the device did not survive in an earlier run, by their keys."""
    path = _fatal_path(path)
    if not path.exists():
        return {}
    rows = pd.read_csv(path).to_dict("records")
    return {tuple(row[name] for name in KEY): f"{row['reason']} (in {path}; delete its line to try again)" for row in rows}


def _append(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> None:
    """Add rows to a table, with its header where it is new; a shape is written as a whole."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def wanted(kernels: Mapping[str, "Kernel"]) -> list[Case]:
    """Return every case, the shapes that matter most first."""
    return [case for rows, matrix in _shapes() for case in _cases(kernels, rows, *matrix)]


def _shapes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield rows and matrices by the sum of their places in the lists."""
    places = pairs(range(len(ROWS)), range(len(MATRICES)))
    for row, matrix in sorted(places, key=lambda place: (sum(place), place)):
        yield ROWS[row], MATRICES[matrix]


def _cases(kernels: Mapping[str, "Kernel"], rows: int, columns: int, depth: int) -> Iterator[Case]:
    from hwmodels.gpu.kernels.kernel import Product

    given = [Product(rows=rows, columns=columns, depth=depth, weight=w, activation=a, group=group) for w, a, group in OPERANDS]
    if rows == max(ROWS):
        given += [Product(rows=rows, columns=0, depth=depth, weight=w, activation=a, group=group) for w, a, group in QUANTIZED]
    for each in given:
        yield from (Case(kernel=kernel, product=each) for kernel in kernels.values() if kernel.takes(each) is None)


def errors_by_family(frame: pd.DataFrame, device: GpuDevice) -> dict[str, float]:
    """Return the median of the leave-one-out errors of each family's fit, as shares."""
    from hwmodels.gpu.fitted import FEWEST_TIMINGS, leave_one_out
    from hwmodels.gpu.timings import by_family

    families = {name: found for name, found in by_family(frame).items() if len(found) > FEWEST_TIMINGS}
    return {name: float(np.median(np.abs(leave_one_out(found, device)))) for name, found in families.items()}
