"""Every registered format of a few bits, found through the registry."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from formats.block import BlockFormat
from formats.format import Format
from formats.registry import FAMILIES, Family, get

#: what families have in common, for colours and tables; a family that is not named here is of the group ``OTHER``
GROUPS = {
    "integer": ("int{b}", "int{b}_narrow", "uint{b}", "ternary", "binary"),
    "minifloat": ("e{E}m{M}", "ue{E}m{M}"),
    "power of two": ("pot{b}", "ulog2_{b}"),
    "power of √2": ("post{b}", "ulogsqrt2_{b}"),
    "additive powers": ("apot{b}", "uapot{b}"),
    "code book": ("lloydmax{b}", "nf4"),
}
BLOCK, OTHER = "block", "other"


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One format of the atlas."""

    name: str
    #: pattern that it is registered under
    family: str
    group: str
    format: Format | BlockFormat
    #: the first format of the same width whose levels are the same but for a factor, which the scale takes up
    same_levels_as: str = ""

    @property
    def unsigned(self) -> bool:
        """Whether no value is negative."""
        return isinstance(self.format, Format) and not self.format.signed


def members(family: Family) -> Iterator[str]:
    """Return the names of all formats of a family, the numbers ascending."""
    for numbers in product(*(range(low, high + 1) for low, high in family.ranges)):
        if family.limited(numbers) == numbers:
            yield family.nearest(numbers)


def entries(low: int = 2, high: int = 8) -> list[Entry]:
    """Return all formats whose codes have ``low`` to ``high`` bits, in the registry's order, without zero points."""
    found: list[Entry] = []
    first: dict[object, str] = {}
    for family in FAMILIES:
        if family.ranges_by_first is not None:
            continue  # integers shifted by a zero point, of which there are as many as codes
        for name in members(family):
            fmt = get(name)
            if not low <= fmt.bits <= high:
                continue
            key = _levels_key(fmt)
            found.append(
                Entry(
                    name=name,
                    family=family.pattern,
                    group=_group(family, fmt),
                    format=fmt,
                    same_levels_as=first.get(key, ""),
                )
            )
            first.setdefault(key, name)
    return found


def _group(family: Family, fmt: Format | BlockFormat) -> str:
    if isinstance(fmt, BlockFormat):
        return BLOCK
    if family.pattern.startswith("float"):
        return "minifloat"
    return next((group for group, patterns in GROUPS.items() if family.pattern in patterns), OTHER)


def _levels_key(fmt: Format | BlockFormat) -> object:
    """Return what formats share that differ in the layout of their codes and in a factor only."""
    if isinstance(fmt, BlockFormat):
        return fmt.name
    levels: NDArray[np.float64] = np.unique(fmt.values[np.isfinite(fmt.values)] + 0.0)
    relative = np.round(levels / np.abs(levels).max(), 60)  # far below the smallest level: only the sign of zero is at stake
    mantissa, exponent = np.frexp(relative)
    return fmt.bits, fmt.spacing, np.round(mantissa, 12).tobytes(), exponent.tobytes()
