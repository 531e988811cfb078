"""``dse calibrate gpu``: every kernel on the shapes of real layers, beside the vendor's libraries, into a table that resumes.

What matters most comes first, so that a run that is out of time has timed the shapes that separate the kernels. Candidates of a
shape are timed in turn, in several rounds, not one after the other: clocks drift. A kernel's result is held against its reference
on small products first; a wrong one is not timed, and says so.
"""

import csv
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
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
MOST_COPIES = 64

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
    """Time the cases that the table at ``path`` lacks, shape by shape, until there is no time left.

    Raises ``BitatlasError`` for a table of another device or other versions.
    """
    known = _known(path, bench)
    outcome = Outcome(path=path)
    wanted = [case for case in cases if case.key not in known]
    outcome.known = len(cases) - len(wanted)
    deadline = clock() + 60 * minutes
    copy = bench.copy_bytes_per_second()
    right: dict[tuple[object, ...], str] = {}
    with tqdm(total=len(wanted), desc="timings", unit="case", disable=None) as bar:
        for shape, group in _by_shape(wanted).items():
            if clock() > deadline:
                outcome.out_of_time += len(group)
                continue
            bar.set_postfix_str("{} x {} x {}".format(*shape))
            rows = _time_shape(bench, group, copy, right, outcome)
            _append(path, rows)
            outcome.timed += len(rows) // len(MODES)
            bar.update(len(group))
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
    ready: list[tuple[Case, list[Callable[[], object]]]] = []
    for case in cases:
        try:
            wrong = _checked(case, right)
            if wrong:
                raise BitatlasError(wrong)
            ready.append((case, _launches(case, bench)))
        except Exception as error:  # a kernel that cannot be had must not cost the others their timings
            outcome.skipped[_named(case)] = str(error).strip().split("\n")[0][:200] or type(error).__name__
    times: dict[tuple[int, str], list[float]] = {}
    for _ in range(ROUNDS):
        for number, (_, runs) in enumerate(ready):
            times.setdefault((number, "cold"), []).extend(bench.cold(runs[0]))
            times.setdefault((number, "steady"), []).extend(bench.steady(runs))
    return [_row(bench, case, mode, times[number, mode], copy) for number, (case, _) in enumerate(ready) for mode in MODES]


def _named(case: Case) -> str:
    p = case.product
    return f"{case.kernel.name} {p.weight} x {p.activation}, {p.rows} x {p.columns} x {p.depth}"


def _checked(case: Case, right: dict[tuple[object, ...], str]) -> str:
    """Return what is wrong with a kernel's results for these formats, "" if nothing is; looked at once."""
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
            found = case.kernel.run(operands).detach().to("cpu").double().numpy()
            worst = float(np.max(np.abs(found.reshape(expected.shape) - expected) - bound, initial=0.0))
            if not np.isfinite(found).all() or worst > 0:
                right[key] = f"result must lie within its bound, not beyond it by {worst:g} ({rows} x {columns} x {depth})"
                break
    return right[key]


def _launches(case: Case, bench: Bench) -> list[Callable[[], object]]:
    """Return launches on several copies of the operands, enough that weights come from memory."""
    from hwmodels.gpu.kernels.environment import device

    cache = _device(bench).l2_mib * 2**20
    copies = int(min(max(np.ceil(TIMES_CACHE * cache / case.kernel.bytes_moved(case.product)), 1), MOST_COPIES))
    first = case.kernel.operands(case.product, 0, device())
    operands = [first, *(copied(first) for _ in range(copies - 1))]
    return [lambda each=each: case.kernel.run(each) for each in operands]  # type: ignore[misc]


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
    return recognised(bench.device.name)


def recognised(name: str) -> GpuDevice:
    """Return the data sheet of a device by the name that CUDA gives it; ``BitatlasError`` for one without."""
    plain = name.lower().replace(" ", "")
    for known in devices.names():
        if known in plain:
            return devices.get(known)
    raise BitatlasError(
        f"GPU must have a data sheet in hwmodels/gpu/devices.py ({', '.join(devices.names())}), not lack it: {name}"
    )


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
    names = ["kernel", "weight", "activation", "group", "rows", "columns", "depth"]
    counts = frame.groupby(names).size()
    return {tuple(key) for key, count in counts.items() if count >= len(MODES)}  # type: ignore[arg-type]


def _append(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows to a table, with its header where it is new; a shape is written as a whole."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
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
