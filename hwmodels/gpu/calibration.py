"""``dse calibrate gpu``: every kernel on the shapes of real layers, beside the vendor's libraries, into a table that resumes.

What matters most comes first, so that a run that is out of time has timed the shapes that separate the kernels. Candidates of a
shape are timed in turn, in several rounds, not one after the other: clocks drift. A kernel's result is held against its reference
on small products first; a wrong one is not timed, and says so.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from formats.definition import Definition
from formats.errors import BitatlasError
from hwmodels.gpu import calibration_table as table
from hwmodels.gpu.calibration_cases import KEY, Case
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.timing import Bench, Ceilings
from hwmodels.gpu.timings import MODES

if TYPE_CHECKING:
    pass

#: small products that results are checked on, ragged where the kernel takes that
CHECKED = ((1, 512, 1024), (16, 512, 1024), (130, 272, 512))
ROUNDS = 5
#: copies of the operands together are at least this many times the second-level cache
TIMES_CACHE = 2.0
#: in a graph of few launches its own start would count
FEWEST_COPIES, MOST_COPIES = 4, 512
#: shapes that a run begins with and whose duration says nothing of the next
COMPILING_SHAPES = 3


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
    known, fatal = table.known(path, bench), table.fatal(path)
    outcome = Outcome(path=path, skipped={case.name: fatal[case.key] for case in cases if case.key in fatal})
    able = table.data_sheet(bench).tera_operations
    for case in cases:
        if case.kernel.arithmetic not in able:
            outcome.skipped[case.name] = f"tensor cores must multiply {case.kernel.arithmetic}, not {', '.join(able)} alone"
    wanted = [case for case in cases if case.key not in known and case.name not in outcome.skipped]
    outcome.known = len(cases) - len(wanted) - len(outcome.skipped)
    deadline = began + 60 * minutes
    ceilings = bench.ceilings()
    right: dict[tuple[object, ...], str] = {}
    longest = 0.0
    with tqdm(total=len(wanted), desc="timings", unit="case", disable=None) as bar:
        for number, (shape, group) in enumerate(_by_shape(wanted).items()):
            started = clock()
            if started + longest > deadline:
                outcome.out_of_time += len(group)
                continue
            bar.set_postfix_str("{} x {} x {}".format(*shape))
            rows = _time_shape(bench, group, ceilings, right, outcome)
            table.append(path, rows)
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
    bench: Bench, cases: Sequence[Case], ceilings: Ceilings, right: dict[tuple[object, ...], str], outcome: Outcome
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
            if case.name in outcome.skipped:
                del times[case]
    return [
        table.row(bench, case, mode, seconds, ceilings)
        for case, both in times.items()
        for mode, seconds in zip(MODES, both, strict=True)
    ]


def _built(cases: Sequence[Case]) -> dict[Case, Any]:
    """Return the operands of each case, or why it has none; what runs on them is compiled, a thread for each core."""
    from hwmodels.gpu.kernels.environment import INTERPRETED, compiling, device

    where = device()

    def built(case: Case) -> Any:
        try:
            operands = case.kernel.operands(case.product, 0, where)
            case.kernel.run(operands)
        except Exception as error:  # raised again in its turn
            return error
        return operands

    workers = 1 if INTERPRETED else os.cpu_count()  # the interpreter is not made for several threads
    with compiling(), ThreadPoolExecutor(workers) as pool:
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
        outcome.skipped[case.name] = reason
        try:
            bench.settle()
        except Exception as fatal:
            reason = f"device answered no more: {reason}"
            table.append(
                table.fatal_path(outcome.path), [dict(zip(KEY, case.key, strict=True)) | {"reason": reason}], (*KEY, "reason")
            )
            rest = "run the command again to go on without it"
            raise BitatlasError(f"device must answer after every launch, not fail: {case.name}; {rest}") from fatal


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
    cache = table.data_sheet(bench).l2_mib * 2**20
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


def errors_by_family(frame: pd.DataFrame, device: GpuDevice) -> dict[str, float]:
    """Return by family the median error, as a share, of its timings, each by the finest fit that predicts it, made without it."""
    from hwmodels.gpu.timings import compared

    by_family = compared(frame, device).groupby("family", sort=False)["left out"]
    return {str(family): float(errors.abs().median()) for family, errors in by_family}
