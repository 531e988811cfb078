"""Timings of GPU kernels as tables: speed-ups over bfloat16, crossovers, predictions; and what rooflines say without timings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from formats import Quantizer
from hwmodels.gpu import devices, roofline, timings
from hwmodels.gpu.devices import Arithmetic, GpuDevice
from hwmodels.gpu.gemm import Gemm

ROWS = (1, 4, 16, 64, 128, 256, 1024, 4096)
MATRIX = (4096, 4096)
#: (what, bits of a weight, bits of an activation, what is multiplied) for rooflines
BOUNDS: tuple[tuple[str, str | None, float, Arithmetic], ...] = (
    ("int2 weights", "int2:group128", 16, "bfloat16"),
    ("int3 weights", "int3:group128", 16, "bfloat16"),
    ("4-bit weights (int4, e2m1, nf4, post4, pot4)", "int4:group128", 16, "bfloat16"),
    ("6-bit weights (e3m2)", "e3m2:group128", 16, "bfloat16"),
    ("8-bit weights (int8, e4m3)", "int8:group128", 16, "bfloat16"),
    ("int8 x int8", "int8:channel", 8, "int8"),
    ("int4 x int8", "int4:channel", 8, "int8"),
    ("float8 x float8", "float8_e4m3fn:channel", 8, "float8"),
    ("int4 x float8", "int4:channel", 8, "float8"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A device's table."""

    device: GpuDevice
    frame: pd.DataFrame

    @property
    def label(self) -> str:
        """Device, versions and date, as figures are labelled."""
        row = self.frame.iloc[-1]
        return f"{row['device']}, driver {row['driver']}, torch {row['torch']}, triton {row['triton']}, {row['date']}"


def measured() -> list[Measured]:
    """Return the tables shipped with the project."""
    found = []
    for name in devices.names():
        device = devices.get(name)
        path = timings.SHIPPED / timings.file_name(device)
        if path.exists():
            found.append(Measured(device=device, frame=timings.read(path)))
    return found


def gemm(quantizer: str | None, activation_bits: float, arithmetic: Arithmetic, rows: int, columns: int, depth: int) -> Gemm:
    """Return a product with weights quantized as the text says, or bfloat16 ones without."""
    if quantizer is None:
        return Gemm(rows=rows, columns=columns, depth=depth)
    weight = Quantizer.parse(quantizer)
    return Gemm(
        rows=rows,
        columns=columns,
        depth=depth,
        weight_bits=weight.width,
        activation_bits=activation_bits,
        scale_bits=weight.storage_bits((columns, depth)).scales,
        arithmetic=arithmetic,
    )


def bounds(device: GpuDevice) -> pd.DataFrame:
    """Return by how much each kind of product can beat bfloat16 at most, by roofline, for a matrix of 4096 x 4096."""
    rows = []
    for what, quantizer, bits, arithmetic in BOUNDS:
        if arithmetic not in device.tera_operations:
            continue
        speed_ups = [_bound(device, quantizer, bits, arithmetic, count) for count in ROWS]
        rows.append({"device": device.name, "product": what} | dict(zip(map(str, ROWS), speed_ups, strict=True)))
    return pd.DataFrame(rows)


def _bound(device: GpuDevice, quantizer: str | None, bits: float, arithmetic: Arithmetic, rows: int) -> float:
    plain = roofline.seconds(gemm(None, 16, "bfloat16", rows, *MATRIX), device)
    return round(plain / roofline.seconds(gemm(quantizer, bits, arithmetic, rows, *MATRIX), device), 2)


def speed_ups(found: Measured, mode: str = "steady") -> pd.DataFrame:
    """Return each product's time as a share of bfloat16's by cuBLAS for the same shape: the fastest kernel counts."""
    frame = found.frame[(found.frame["mode"] == mode) & found.frame["correct"].astype(bool) & (found.frame["columns"] > 0)]
    shape = ["rows", "columns", "depth"]
    plain = frame[frame["kernel"] == "torch.matmul"].set_index(shape)["microseconds"]
    names = ["weight", "activation", "group", *shape]
    best = frame[frame["kernel"] != "torch.matmul"].sort_values("microseconds").drop_duplicates(names)
    joined = best.join(plain.rename("bfloat16"), on=shape).dropna(subset=["bfloat16"])
    return joined.assign(speed_up=joined["bfloat16"] / joined["microseconds"])


def crossovers(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each format and matrix the fewest rows at which bfloat16 is as fast, or faster."""
    names, told = ["weight", "activation", "group", "columns", "depth"], "bfloat16 is as fast from rows"
    rows = []
    for key, part in table.groupby(names):
        ordered = part.sort_values("rows")
        slower = ordered[ordered["speed_up"] <= 1]
        crossing = str(int(slower["rows"].iloc[0])) if len(slower) else f"above {int(ordered['rows'].iloc[-1])}"
        rows.append((*key, crossing))
    return pd.DataFrame(rows, columns=[*names, told])


def predictions(found: Measured) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the timings that each fit predicts with what it says, and what it says when it was made without that timing."""
    for name, part in timings.compared(found.frame, found.device).groupby("fit", sort=False):
        yield str(name), part.drop(columns=["fit", "family"])


def errors(parts: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Return the median and the 95th percentile of each fit's errors when timings are left out, in percent."""
    rows = [
        (
            name,
            len(part),
            round(100 * float(part["left out"].abs().median()), 1),
            round(100 * float(part["left out"].abs().quantile(0.95)), 1),
        )
        for name, part in parts
    ]
    return pd.DataFrame(rows, columns=["family, weight", "timings", "median error [%]", "95th percentile [%]"])
