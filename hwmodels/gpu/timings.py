"""Tables of timings: one CSV for each device, shipped with the project or made by ``dse calibrate gpu``, and the fits to them."""

from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from formats.errors import InvalidValueError
from hwmodels.files import cache_directory
from hwmodels.gpu import roofline
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.fitted import FEWEST_TIMINGS, FamilyFit, Timing, fit, leave_one_out
from hwmodels.gpu.gemm import Gemm, family_of

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
    "share_of_matmul",
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
            weight=str(row["weight"]),
        )
        found.setdefault(str(row["family"]), []).append(Timing(gemm=gemm, seconds=float(row["microseconds"]) * 1e-6))
    return found


def by_fit(families: Mapping[str, Sequence[Timing]]) -> dict[str, list[Timing]]:
    """Return the timings that each fit is made to, by its name, where they are enough: ``FAMILY``, and ``FAMILY WEIGHT``.

    Formats of one family cost differently to decode, so each has a fit of its own; that of the family is for those not timed. A
    family with timings of a single format has but the one.
    """
    found: dict[str, list[Timing]] = {}
    for family, timings in families.items():
        found[family] = list(timings)
        weights = dict.fromkeys(each.gemm.weight for each in timings)
        for weight in weights if len(weights) > 1 else ():
            found[f"{family} {weight}"] = [each for each in timings if each.gemm.weight == weight]
    return {name: timings for name, timings in found.items() if len(timings) >= FEWEST_TIMINGS}


def finest(gemm: Gemm, known: Container[str]) -> str | None:
    """Return which of the known fits predicts a matrix product: its family's and weight's, else its family's, None for neither."""
    family = family_of(gemm)
    return next((name for name in (f"{family} {gemm.weight}", family) if name in known), None)


def compared(frame: pd.DataFrame, device: GpuDevice) -> pd.DataFrame:
    """Return every timing of a table that a fit predicts, beside what is predicted.

    Columns are ``fit``, the name of the finest, ``family``, the seconds ``measured``, ``predicted`` and of the ``roofline``, and
    the relative error of that fit when the timing is ``left out`` of it. Empty where no family has timings enough.
    """
    groups = by_fit(by_family(frame))
    made = {name: fit(timings, device) for name, timings in groups.items()}
    parts = [pd.DataFrame(columns=["fit", "family", "measured", "predicted", "roofline", "left out"])]
    for name, timings in groups.items():
        chosen = [number for number, each in enumerate(timings) if finest(each.gemm, made) == name]
        gemms = [timings[number].gemm for number in chosen]
        told = {
            "fit": name,
            "family": [family_of(each) for each in gemms],
            "measured": [timings[number].seconds for number in chosen],
            "predicted": made[name].all_seconds(gemms, device),
            "roofline": [roofline.seconds(each, device) for each in gemms],
            "left out": leave_one_out(timings, device, made[name], chosen),
        }
        parts += [pd.DataFrame(told)] if chosen else []
    return pd.concat(parts[1:] or parts, ignore_index=True)


def fits(device: GpuDevice) -> Mapping[str, FamilyFit]:
    """Return the fits to a device's table, by name as ``by_fit`` says; empty where there is no table."""
    path = path_of(device)
    return {} if path is None else _fits(path, path.stat().st_mtime_ns, device.name)


@lru_cache(maxsize=8)
def _fits(path: Path, changed: int, name: str) -> Mapping[str, FamilyFit]:
    from hwmodels.gpu.devices import get

    return {fitted: fit(timings, get(name)) for fitted, timings in by_fit(by_family(read(path))).items()}
