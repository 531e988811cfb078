"""Truth tables as data, without the hardware made of them."""

from collections.abc import Sequence

#: a truth table's entry: what the function is, or None where nobody minds
Entry = int | None


def is_wire(table: Sequence[Entry], count: int) -> bool:
    """Whether a function of ``count`` inputs is constant or one of them, so costs nothing."""
    agrees = [all(entry is None or entry == (code >> i & 1) for code, entry in enumerate(table)) for i in range(count)]
    return any(agrees) or len({entry for entry in table if entry is not None}) < 2
