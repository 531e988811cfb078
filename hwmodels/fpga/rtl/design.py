"""What every generated design has in common, so that one proof and one synthesis serve them all."""

from collections.abc import Sequence
from typing import Protocol

from amaranth import Module, Signal


class Hardware(Protocol):
    """A design as Amaranth logic with one clock; its ports are signals that carry the names they have in Verilog."""

    @property
    def inputs(self) -> Sequence[Signal]:
        """Ports that are driven, beside the clock."""
        ...

    @property
    def outputs(self) -> Sequence[Signal]:
        """Ports that are read, all of them registered."""
        ...

    def elaborate(self, platform: object) -> Module:
        """Build the logic."""
        ...


class Design(Protocol):
    """A specification that hardware is generated from."""

    @property
    def name(self) -> str:
        """Name of the Verilog module."""
        ...

    def hardware(self) -> Hardware:
        """Return the logic with ports of its own."""
        ...
