"""What a requantizer costs: looked up in the table of synthesised requantizers, by formula where the table has none.

Figures lie on the lines through neighbouring widths of the accumulator, beyond the table on those through its outermost two:
comparators, shifters and rows of multipliers grow by so much a bit.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from formats.format import Format
from hwmodels.cost import NotPricedError
from hwmodels.fpga import formula_prices
from hwmodels.fpga.synthesis.table import REQUANTIZER, SHIPPED_REQUANTIZERS, Table, read
from hwmodels.fpga.unit_cost import KINDS, RequantizerKind, UnitCost

FIGURES = ("lut", "carry4", "flip_flops", "dsp", "arrival_ps")
#: kinds of the table for each kind that is priced; the one with fewest LUTs is taken
TABLE_KINDS: dict[RequantizerKind, tuple[str, ...]] = {
    "thresholds": ("thresholds",),
    "search": ("search",),
    "multiplier": ("multiplier-single", "multiplier-double"),
}
Figures = tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class RequantizerModel:
    """Prices by one table."""

    table: Table

    @cached_property
    def widths(self) -> dict[tuple[str, str, bool], dict[int, Figures]]:
        """Figures in the order of ``FIGURES`` by kind, output and whether DSP slices were allowed, then by width."""
        rows = self.table.rows.sort_values("accumulator_bits")
        found: dict[tuple[str, str, bool], dict[int, Figures]] = {}
        columns = (*REQUANTIZER.identity, *FIGURES)
        for kind, output, bits, dsp, *figures in zip(*(rows[name].tolist() for name in columns), strict=True):
            found.setdefault((kind, output, bool(dsp)), {})[bits] = tuple(map(float, figures))
        return found

    def price(self, kind: str, accumulator_bits: int, output: Format, *, dsp: bool) -> UnitCost | None:
        """Return the cost of a kind of the table; None where it is not there at two widths, or at the very one."""
        widths = self.widths.get((kind, output.name, dsp), {})
        figures = widths.get(accumulator_bits) or _on_line(widths, accumulator_bits)
        if figures is None:
            return None
        lut, carry4, flip_flops, slices, arrival = figures
        return UnitCost(
            lut=lut, carry4=carry4, flip_flops=flip_flops, dsp=slices, arrival_ps=arrival, origin="synthesised", recipe=kind
        )


def _on_line(widths: dict[int, Figures], bits: int) -> Figures | None:
    """Return the figures on the line through the widths on both sides, or through the nearest two."""
    known = list(widths)
    if len(known) < 2:
        return None
    upper = min(max(bisect_right(known, bits), 1), len(known) - 1)
    low, high = known[upper - 1], known[upper]
    share = (bits - low) / (high - low)
    return tuple(max(few + share * (many - few), 0.0) for few, many in zip(widths[low], widths[high], strict=True))


def model(path: Path = SHIPPED_REQUANTIZERS) -> RequantizerModel:
    """Return the model by a table; ``BitatlasError`` names the file where it cannot be read."""
    return _of_table(read(path, REQUANTIZER))


@lru_cache(maxsize=4)
def _of_table(table: Table) -> RequantizerModel:
    return RequantizerModel(table=table)


def requantizer_price(accumulator_bits: int, output: Format, *, kind: RequantizerKind, dsp: bool) -> UnitCost:
    """Price a lane of a requantizer; a ``RequantizerPrice``: synthesised where the table has it, else by formula."""
    known = model()
    slices = dsp and kind == "multiplier"
    found = [cost for name in TABLE_KINDS[kind] if (cost := known.price(name, accumulator_bits, output, dsp=slices)) is not None]
    if found:
        return min(found, key=lambda cost: cost.lut)
    return formula_prices.requantizer_price(accumulator_bits, output, kind=kind, dsp=dsp)


def cheapest(accumulator_bits: int, output: Format, *, dsp: bool = False) -> UnitCost:
    """Return the kind of fewest LUTs for an output format and any scale, without the memory of its parameters.

    Synthesised kinds come before those by formula. Raises ``NotPricedError`` where no kind leads to the format.
    """
    found = []
    for kind in KINDS:
        try:
            found.append(requantizer_price(accumulator_bits, output, kind=kind, dsp=dsp))
        except NotPricedError:
            continue  # this kind does not lead to the format; another one may
    if not found:
        raise NotPricedError(f"output format must be one that a requantizer is priced for, not {output.name}")
    return min(found, key=lambda cost: (cost.origin == "formula", cost.lut))
