"""GPUs as data: how fast each multiplies and reads, and which document says so.

A further device is one more call of ``register``. Rates are those of dense matrices; where a document gives them for structured
sparsity alone they are half of what it says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from formats.errors import BitatlasError, InvalidValueError
from formats.names import unknown_name

#: what tensor cores multiply; products are summed in float32, or in int32
Arithmetic = Literal["bfloat16", "float8", "int8"]


@dataclass(frozen=True, kw_only=True)
class GpuDevice:
    """A GPU and what its maker says of it."""

    #: as ``latency_us@NAME`` names it
    name: str
    product: str
    #: compute capability, as compilers name it
    architecture: str
    multiprocessors: int
    #: 10**9 bytes a second
    memory_gb_s: float
    #: 10**12 multiplications and additions a second, by arithmetic; what is missing the tensor cores cannot do
    tera_operations: Mapping[Arithmetic, float]
    #: 2**20 bytes
    l2_mib: float
    #: board power, W
    power_w: float
    #: document with the figures, and where the vendor keeps it
    source: str
    url: str

    def operations_per_second(self, arithmetic: Arithmetic) -> float:
        """Return the peak rate of multiplications and additions; ``ValueError`` for what the tensor cores cannot do."""
        if arithmetic not in self.tera_operations:
            known = ", ".join(self.tera_operations)
            raise InvalidValueError(f"arithmetic on {self.name} must be {known}, not {arithmetic}")
        return self.tera_operations[arithmetic] * 1e12

    @property
    def bytes_per_second(self) -> float:
        """Peak rate of its memory."""
        return self.memory_gb_s * 1e9


_DEVICES: dict[str, GpuDevice] = {}


def register(device: GpuDevice) -> None:
    """Make a device known under its name. Raises ``ValueError`` for a name that is taken."""
    if device.name in _DEVICES:
        raise InvalidValueError(f"name of a GPU must be new, not {device.name!r}")
    _DEVICES[device.name] = device


def names() -> tuple[str, ...]:
    """Return the names of all devices in the order of their registration."""
    return tuple(_DEVICES)


def get(name: str) -> GpuDevice:
    """Return the device called ``name``; ``KeyError`` names the nearest."""
    if name not in _DEVICES:
        raise unknown_name("GPU", name, names())
    return _DEVICES[name]


def recognised(name: str, multiprocessors: int) -> GpuDevice:
    """Return the data sheet of a device by the name that CUDA gives it; ``BitatlasError`` for one without, or another variant."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    told = {*words, *(first + second for first, second in pairwise(words))}
    found = next((get(known) for known in names() if known in told), None)
    if found is None:
        known = ", ".join(names())
        raise BitatlasError(f"GPU must have a data sheet in hwmodels/gpu/devices.py ({known}), not lack it: {name}")
    if found.multiprocessors != multiprocessors:
        wanted = f"{found.multiprocessors} multiprocessors of {found.product}"
        raise BitatlasError(f"GPU must have the {wanted}, not {multiprocessors}: {name} wants a data sheet of its own")
    return found


register(
    GpuDevice(
        name="h100",
        product="NVIDIA H100 SXM5 80GB",
        architecture="sm_90",
        multiprocessors=132,
        memory_gb_s=3350,
        tera_operations={"bfloat16": 989.4, "float8": 1978.9, "int8": 1978.9},
        l2_mib=50,
        power_w=700,
        source="NVIDIA H100 Tensor Core GPU Architecture, version 1.04, and the data sheet of the H100",
        url="https://resources.nvidia.com/en-us-tensor-core",
    )
)
register(
    GpuDevice(
        name="h200",
        product="NVIDIA H200 SXM 141GB",
        architecture="sm_90",
        multiprocessors=132,
        memory_gb_s=4800,
        tera_operations={"bfloat16": 989.4, "float8": 1978.9, "int8": 1978.9},
        l2_mib=50,
        power_w=700,
        source="data sheet of the NVIDIA H200 Tensor Core GPU",
        url="https://www.nvidia.com/en-us/data-center/h200/",
    )
)
register(
    GpuDevice(
        name="a100",
        product="NVIDIA A100 SXM4 80GB",
        architecture="sm_80",
        multiprocessors=108,
        memory_gb_s=2039,
        tera_operations={"bfloat16": 312, "int8": 624},
        l2_mib=40,
        power_w=400,
        source="data sheet of the NVIDIA A100 80GB Tensor Core GPU",
        url="https://www.nvidia.com/en-us/data-center/a100/",
    )
)
register(
    GpuDevice(
        name="l4",
        product="NVIDIA L4 24GB",
        architecture="sm_89",
        multiprocessors=58,
        memory_gb_s=300,
        tera_operations={"bfloat16": 121, "float8": 242.5, "int8": 242.5},
        l2_mib=48,
        power_w=72,
        source="data sheet of the NVIDIA L4 Tensor Core GPU (485 with sparsity)",
        url="https://www.nvidia.com/en-us/data-center/l4/",
    )
)
register(
    GpuDevice(
        name="rtx4090",
        product="NVIDIA GeForce RTX 4090 24GB",
        architecture="sm_89",
        multiprocessors=128,
        memory_gb_s=1008,
        tera_operations={"bfloat16": 165.2, "float8": 330.3, "int8": 660.6},
        l2_mib=72,
        power_w=450,
        source="NVIDIA Ada GPU Architecture, version 2.02, appendix A (rates with float32 accumulation)",
        url="https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    )
)
