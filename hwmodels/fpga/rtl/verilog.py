"""Designs as Verilog text."""

import re

from hwmodels.fpga.rtl.design import Design, Hardware


def verilog_text(design: Design) -> str:
    """Return the design as one Verilog module called ``design.name``."""
    return hardware_text(design.name, design.hardware())


def hardware_text(name: str, hardware: Hardware) -> str:
    """Return logic as one Verilog module called ``name``."""
    from amaranth.back import verilog

    ports = [*hardware.inputs, *hardware.outputs]
    text = verilog.convert(hardware, name=name, ports=ports, strip_internal_attrs=True)
    # the first line names the converter's build: no part of the design, and it would make caches depend on it
    return re.sub(r"\A/\*.*?\*/\s*", "", text, flags=re.S)
