"""Counts of cells after mapping to a Xilinx 7-series fabric, read strictly: what is not known is an error, never dropped."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from formats.errors import BitatlasError

LUTS = tuple(f"LUT{inputs}" for inputs in range(1, 7))
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")
KNOWN = (*LUTS, *FLIP_FLOPS, "INV", "CARRY4", "DSP48E1")


class SynthesisError(BitatlasError):
    """A synthesis that failed, or whose report cannot be trusted."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What a design is made of."""

    #: number of LUTs by number of inputs, 1 to 6
    luts: tuple[int, int, int, int, int, int]
    inverters: int
    carry4: int
    flip_flops: int
    dsp: int
    #: Yosys' estimate of LUTs once small ones share a cell with two outputs
    packed: int
    #: static arrival time over cells, without routing, in ps
    arrival_ps: int

    @property
    def lut(self) -> int:
        """LUTs of any size; an inverter counts as one, since those that Yosys leaves mostly stand before a carry chain."""
        return sum(self.luts) + self.inverters


def read_cells(statistics: str, log: str, names: list[str]) -> dict[str, Cells]:
    """Read ``stat -json -tech xilinx`` and what ``sta`` printed, for the modules called ``names``.

    Raises ``SynthesisError`` for a module or a time that is missing and for a cell type that is not known.
    """
    try:
        modules = dict(json.loads(statistics)["modules"])
    except (ValueError, KeyError, TypeError) as error:
        raise SynthesisError(f"statistics of Yosys must be JSON with modules, not broken ({error})") from None
    arrivals = {name: int(time) for name, time in re.findall(r"^Latest arrival time in '(\S+)' is (\d+):$", log, re.M)}
    return {name: _cells(name, modules, arrivals) for name in names}


def _cells(name: str, modules: Mapping[str, Mapping[str, object]], arrivals: Mapping[str, int]) -> Cells:
    module = modules.get(f"\\{name}") or modules.get(name)
    if module is None or name not in arrivals:
        raise SynthesisError(f"Yosys must report on {name}, not leave out its {'cells' if module is None else 'arrival time'}")
    counts = module.get("num_cells_by_type")
    packed = module.get("estimated_num_lc")
    if not isinstance(counts, Mapping) or not isinstance(packed, int):
        raise SynthesisError(f"Yosys must count the cells of {name} and estimate its packed LUTs, not leave that out")
    unknown = sorted(set(counts) - set(KNOWN))
    if unknown:
        raise SynthesisError(f"cells of {name} must be {', '.join(KNOWN)}, not {unknown[0]}")
    one, two, three, four, five, six = (int(counts.get(lut, 0)) for lut in LUTS)
    return Cells(
        luts=(one, two, three, four, five, six),
        inverters=int(counts.get("INV", 0)),
        carry4=int(counts.get("CARRY4", 0)),
        flip_flops=sum(int(counts.get(kind, 0)) for kind in FLIP_FLOPS),
        dsp=int(counts.get("DSP48E1", 0)),
        packed=packed,
        arrival_ps=arrivals[name],
    )
