"""The table that ``dse calibrate gpu`` makes and goes on with, and the list beside it of what a device did not survive."""

import csv
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from formats import Quantizer
from formats.errors import BitatlasError
from formats.registry import get as get_format
from hwmodels.gpu import devices
from hwmodels.gpu.calibration_cases import KEY, Case
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.gemm import WIDE_BITS
from hwmodels.gpu.timing import Bench, Ceilings, median_and_spread
from hwmodels.gpu.timings import COLUMNS, MODES, read

if TYPE_CHECKING:
    from hwmodels.gpu.kernels.kernel import Product


def data_sheet(bench: Bench) -> GpuDevice:
    """Return the data sheet of what a bench runs on; ``BitatlasError`` where there is none."""
    return devices.recognised(bench.device.name, bench.device.multiprocessors)


def row(bench: Bench, case: Case, mode: str, seconds: Sequence[float], ceilings: Ceilings) -> dict[str, object]:
    """Return what the table says of one case in one mode; ``ceilings`` are what shares are of."""
    median, spread = median_and_spread(seconds)
    kernel, p, device = case.kernel, case.product, bench.device
    rate, bytes_a_second = kernel.operations(p) / median, kernel.bytes_moved(p) / median
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
        "share_of_copy": round(bytes_a_second / ceilings.bytes_per_second, 4),
        "share_of_matmul": round(rate / ceilings.operations_per_second[kernel.arithmetic], 4),
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


def known(path: Path, bench: Bench) -> set[tuple[object, ...]]:
    """Return the keys of cases that the table has in every mode."""
    if not path.exists():
        return set()
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


def fatal_path(path: Path) -> Path:
    """Return the table, beside that of timings, of cases that a device did not survive."""
    return path.with_suffix(".fatal.csv")


def fatal(path: Path) -> dict[tuple[object, ...], str]:
    """Return why cases are left out that the device did not survive in an earlier run, by their keys."""
    path = fatal_path(path)
    if not path.exists():
        return {}
    rows = pd.read_csv(path).to_dict("records")
    return {tuple(row[name] for name in KEY): f"{row['reason']} (in {path}; delete its line to try again)" for row in rows}


def append(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> None:
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
