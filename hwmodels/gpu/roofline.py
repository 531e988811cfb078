"""The least time that a matrix product can take: its operations at the peak rate, or its bytes at that of the memory.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (CACM 52, 2009).
"""

from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.gemm import Gemm


def seconds(gemm: Gemm, device: GpuDevice) -> float:
    """Return the lower bound; ``ValueError`` where the device's tensor cores cannot do the arithmetic."""
    return max(gemm.operations / device.operations_per_second(gemm.arithmetic), gemm.bytes / device.bytes_per_second)


def intensity(gemm: Gemm) -> float:
    """Return operations for each byte."""
    return gemm.operations / gemm.bytes
