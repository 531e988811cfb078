"""The cost model of a GPU: time and energy of a batch, layer by layer, by fits to timings where there are any, else rooflines."""

from collections.abc import Mapping
from functools import partial

from hwmodels.cost import CostModel, LayerPlan, Metric, per_layer, require_codes_alone
from hwmodels.gpu import roofline
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.fitted import FamilyFit
from hwmodels.gpu.gemm import Gemm, of_layer
from hwmodels.gpu.timings import finest, fits

ROOFLINE = "roofline only"


def latency(device: GpuDevice, batch: int = 1) -> CostModel:
    """Return the cost model of a device: ``latency_us@NAME`` and ``energy_uj@NAME`` for a batch of samples.

    Layers run one after the other, each as one kernel; what lies between them is not counted. Energy is the board's power over that
    time, an upper bound. Weights of a format that is timed are priced by its fit, others by that of all timings of their family of
    kernels, and a family without timings by its roofline; without any timings the model says so.
    """
    known = fits(device)
    basis = f"fitted to timings of {device.product}" if known else ROOFLINE
    what = f"matrix products of {batch} sample{'s' * (batch != 1)} on {device.product}, one after the other: {basis}"
    power = f"that time at the board's {device.power_w:g} W: an upper bound"
    return CostModel(
        name=f"{device.name}, {'timings' if known else ROOFLINE}",
        metrics=(
            Metric(name=f"latency_us@{device.name}", unit="us", summary=what),
            Metric(name=f"energy_uj@{device.name}", unit="uJ", summary=power),
        ),
        figures=per_layer(partial(_figures, device=device, batch=batch, known=known)),
    )


def _figures(plan: LayerPlan, device: GpuDevice, batch: int, known: Mapping[str, FamilyFit]) -> Mapping[str, float]:
    require_codes_alone(plan)
    seconds = predicted(of_layer(plan, batch, device), device, known)
    return {f"latency_us@{device.name}": seconds * 1e6, f"energy_uj@{device.name}": seconds * device.power_w * 1e6}


def predicted(gemm: Gemm, device: GpuDevice, known: Mapping[str, FamilyFit]) -> float:
    """Return the time of a matrix product in seconds by its weight's fit, else its family's, else the roofline."""
    name = finest(gemm, known)
    return roofline.seconds(gemm, device) if name is None else known[name].seconds(gemm, device)
