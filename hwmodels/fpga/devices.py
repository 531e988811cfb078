"""FPGA devices as data: how much there is of each resource, and which document says so.

A further device is one more call of ``register``.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from formats.errors import InvalidValueError
from formats.names import unknown_name

DspKind = Literal["DSP48E1", "DSP48E2", "DSP58"]


class Usage(NamedTuple):
    """An amount of each resource."""

    lut: float = 0
    flip_flops: float = 0
    dsp: float = 0
    #: block RAMs of 18 Kib, of which two make one of 36 Kib
    bram: float = 0
    uram: float = 0

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum, resource by resource."""
        return Usage(*(a + b for a, b in zip(self, other, strict=True)))


#: names of the resources, in the order of ``Usage``
RESOURCES = Usage._fields
#: as they are written in messages and tables
LABELS = {"lut": "LUT", "flip_flops": "FF", "dsp": "DSP", "bram": "BRAM18", "uram": "URAM"}


@dataclass(frozen=True, kw_only=True)
class Device:
    """An FPGA and what it holds."""

    #: as ``--device`` names it
    name: str
    part: str
    family: str
    lut: int
    flip_flops: int
    dsp: int
    dsp_kind: DspKind
    #: block RAMs of 36 Kib
    bram36: int
    uram: int
    #: document with the figures, by its number and title, and where the vendor keeps it
    source: str
    url: str
    #: clock that designs are assumed to reach: an assumption of this project, in no data sheet
    clock_mhz: float

    @property
    def available(self) -> Usage:
        """All that the device has."""
        return Usage(lut=self.lut, flip_flops=self.flip_flops, dsp=self.dsp, bram=2 * self.bram36, uram=self.uram)


_DEVICES: dict[str, Device] = {}


def register(device: Device) -> None:
    """Make a device known under its name. Raises ``ValueError`` for a name that is taken."""
    if device.name in _DEVICES:
        raise InvalidValueError(f"name of a device must be new, not {device.name!r}")
    _DEVICES[device.name] = device


def names() -> tuple[str, ...]:
    """Return the names of all devices, the smallest first."""
    return tuple(sorted(_DEVICES, key=lambda name: _DEVICES[name].lut))


def get(name: str) -> Device:
    """Return the device called ``name``; ``KeyError`` names the nearest."""
    if name not in _DEVICES:
        raise unknown_name("device", name, names())
    return _DEVICES[name]


_7_SERIES = ("DS180, 7 Series FPGAs Data Sheet: Overview", "https://docs.amd.com/v/u/en-US/ds180_7Series_Overview")
_ZYNQ_7000 = ("DS190, Zynq-7000 SoC Data Sheet: Overview", "https://docs.amd.com/v/u/en-US/ds190-Zynq-7000-Overview")
_ZYNQ_PLUS = (
    "DS891, Zynq UltraScale+ MPSoC Data Sheet: Overview",
    "https://docs.amd.com/v/u/en-US/ds891-zynq-ultrascale-plus-overview",
)
_K26 = ("DS987, Kria K26 SOM Data Sheet", "https://docs.amd.com/r/en-US/ds987-k26-som")
_U250 = ("DS962, Alveo U200 and U250 Data Center Accelerator Cards Data Sheet", "https://docs.amd.com/r/en-US/ds962-u200-u250")
_U280 = ("DS963, Alveo U280 Data Center Accelerator Card Data Sheet", "https://docs.amd.com/r/en-US/ds963-u280")
_VERSAL = ("DS950, Versal Architecture and Product Data Sheet: Overview", "https://docs.amd.com/v/u/en-US/ds950-versal-overview")

#: name, part, family, DSP kind, clock [MHz], document: LUT, flip-flops, DSP, BRAM36, URAM
_TABLE: tuple[
    tuple[str, str, str, Literal["DSP48E1", "DSP48E2", "DSP58"], float, tuple[str, str], tuple[int, int, int, int, int]], ...
]
_TABLE = (
    ("xc7a35t", "xc7a35t", "Artix-7", "DSP48E1", 100, _7_SERIES, (20_800, 41_600, 90, 50, 0)),
    ("xc7a100t", "xc7a100t", "Artix-7", "DSP48E1", 100, _7_SERIES, (63_400, 126_800, 240, 135, 0)),
    ("zynq7020", "xc7z020", "Zynq-7000", "DSP48E1", 100, _ZYNQ_7000, (53_200, 106_400, 220, 140, 0)),
    ("zu3eg", "xczu3eg", "Zynq UltraScale+", "DSP48E2", 200, _ZYNQ_PLUS, (70_560, 141_120, 360, 216, 0)),
    ("zu7ev", "xczu7ev", "Zynq UltraScale+", "DSP48E2", 200, _ZYNQ_PLUS, (230_400, 460_800, 1_728, 312, 96)),
    ("zu9eg", "xczu9eg", "Zynq UltraScale+", "DSP48E2", 200, _ZYNQ_PLUS, (274_080, 548_160, 2_520, 912, 0)),
    ("kv260", "xck26", "Zynq UltraScale+", "DSP48E2", 200, _K26, (117_120, 234_240, 1_248, 144, 64)),
    ("u250", "xcu250", "Virtex UltraScale+", "DSP48E2", 200, _U250, (1_728_000, 3_456_000, 12_288, 2_688, 1_280)),
    ("u280", "xcu280", "Virtex UltraScale+", "DSP48E2", 200, _U280, (1_303_680, 2_607_360, 9_024, 2_016, 960)),
    ("vck190", "xcvc1902", "Versal AI Core", "DSP58", 300, _VERSAL, (899_840, 1_799_680, 1_968, 967, 463)),
)
for _name, _part, _family, _dsp_kind, _clock, (_source, _url), _counts in _TABLE:
    _lut, _flip_flops, _dsp, _bram36, _uram = _counts
    register(
        Device(
            name=_name,
            part=_part,
            family=_family,
            lut=_lut,
            flip_flops=_flip_flops,
            dsp=_dsp,
            dsp_kind=_dsp_kind,
            bram36=_bram36,
            uram=_uram,
            source=_source,
            url=_url,
            clock_mhz=_clock,
        )
    )
