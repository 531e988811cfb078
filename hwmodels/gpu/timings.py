"""Tables of timings: one CSV for each device, shipped with the project or made by ``dse calibrate gpu``, and the fits to them."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pandas as pd

from formats.errors import InvalidValueError
from hwmodels.files import cache_directory
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.fitted import FEWEST_TIMINGS, FamilyFit, Timing, fit
from hwmodels.gpu.gemm import Gemm

#: tables shipped with the project; those of the user's own in the cache folder take their place
SHIPPED = Path(__file__).parent / "tables"
#: what is measured: cold with the caches emptied, steady in a graph over weights that do not fit them
MODES = ("cold", "steady")
#: columns in order; ``microseconds`` is the median, ``spread`` the distance of the quartiles as a share of it
COLUMNS = (
    "kernel",
    "family",
    "weight",
    "activation",
    "group",
    "rows",
    "columns",
    "depth",
    "mode",
    "microseconds",
    "spread",
    "gb_s",
    "tera_operations",
    "share_of_copy",
    "share_of_peak",
    "correct",
    "weight_bits",
    "activation_bits",
    "scale_bits",
    "arithmetic",
    "device",
    "driver",
    "torch",
    "triton",
    "date",
)


def file_name(device: GpuDevice) -> str:
    """Return what a device's table is called."""
    return f"timings_{device.name}.csv"


def path_of(device: GpuDevice) -> Path | None:
    """Return the table of a device: the user's own, else the shipped one, None where there is neither."""
    folders = (cache_directory() / "gpu", SHIPPED)
    return next((path for folder in folders if (path := folder / file_name(device)).exists()), None)


def read(path: Path) -> pd.DataFrame:
    """Read a table of timings; ``ValueError`` for one that lacks columns, or holds times that are none."""
    frame = pd.read_csv(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InvalidValueError(f"table of timings must have the column {missing[0]}, not lack it: {path}")
    wrong = frame.index[~(frame["microseconds"] > 0)]
    if len(wrong):
        raise InvalidValueError(f"microseconds must be above 0, not {frame['microseconds'][wrong[0]]}: {path}, line {wrong[0] + 2}")
    return frame


def by_family(frame: pd.DataFrame, mode: str = "steady") -> dict[str, list[Timing]]:
    """Return the timings of each family of kernels that were found correct; of equal products the fastest kernel's.

    Kernels that quantize, whose products have no columns, are left out.
    """
    chosen = frame[(frame["mode"] == mode) & frame["correct"].astype(bool) & (frame["columns"] > 0)].sort_values("microseconds")
    fastest = chosen.drop_duplicates(["family", "weight", "activation", "group", "rows", "columns", "depth"])
    found: dict[str, list[Timing]] = {}
    for row in fastest.sort_index().to_dict("records"):
        gemm = Gemm(
            rows=int(row["rows"]),
            columns=int(row["columns"]),
            depth=int(row["depth"]),
            weight_bits=float(row["weight_bits"]),
            activation_bits=float(row["activation_bits"]),
            scale_bits=float(row["scale_bits"]),
            arithmetic=row["arithmetic"],
        )
        found.setdefault(str(row["family"]), []).append(Timing(gemm=gemm, seconds=float(row["microseconds"]) * 1e-6))
    return found


def fits(device: GpuDevice) -> Mapping[str, FamilyFit]:
    """Return the fit of every family of kernels that has timings enough on a device; empty where there is no table."""
    path = path_of(device)
    return {} if path is None else _fits(path, path.stat().st_mtime_ns, device.name)


@lru_cache(maxsize=8)
def _fits(path: Path, changed: int, name: str) -> Mapping[str, FamilyFit]:
    from hwmodels.gpu.devices import get

    timings = by_family(read(path))
    return {family: fit(found, get(name)) for family, found in timings.items() if len(found) >= FEWEST_TIMINGS}
