"""Designs as Verilog text."""

import re

from hwmodels.fpga.rtl.unit import MacHardware, MacUnit


def mac_verilog(unit: MacUnit) -> str:
    """Return the unit as one Verilog module called ``unit.name``."""
    from amaranth.back import verilog

    hardware = MacHardware(unit)
    text = verilog.convert(hardware, name=unit.name, ports=hardware.ports, strip_internal_attrs=True)
    # the first line names the converter's build: no part of the design, and it would make caches depend on it
    return re.sub(r"\A/\*.*?\*/\s*", "", text, flags=re.S)
