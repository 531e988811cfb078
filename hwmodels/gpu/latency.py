"""The cost model of a GPU: time and energy of a batch, layer by layer, by fits to timings where there are any, else rooflines."""

from collections.abc import Mapping
from functools import partial

from hwmodels.cost import CostModel, LayerPlan, Metric, per_layer, require_codes_alone
from hwmodels.gpu import roofline
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.fitted import FamilyFit
from hwmodels.gpu.gemm import Gemm, family_of, of_layer
from hwmodels.gpu.timings import fits

ROOFLINE = "roofline only"


def latency(device: GpuDevice, batch: int = 1) -> CostModel:
    """Return the cost model of a device: ``latency_us@NAME`` and ``energy_uj@NAME`` for a batch of samples.

    Layers run one after the other, each as one kernel; what lies between them is not counted. Energy is the board's power over that
    time, an upper bound. A family of kernels without timings is priced by its roofline, and the model says so.
    """
    families = fits(device)
    basis = f"fitted to timings of {device.product}" if families else ROOFLINE
    what = f"matrix products of {batch} sample{'s' * (batch != 1)} on {device.product}, one after the other: {basis}"
    power = f"that time at the board's {device.power_w:g} W: an upper bound"
    return CostModel(
        name=f"{device.name}, {'timings' if families else ROOFLINE}",
        metrics=(
            Metric(name=f"latency_us@{device.name}", unit="us", summary=what),
            Metric(name=f"energy_uj@{device.name}", unit="uJ", summary=power),
        ),
        figures=per_layer(partial(_figures, device=device, batch=batch, families=families)),
    )


def _figures(plan: LayerPlan, device: GpuDevice, batch: int, families: Mapping[str, FamilyFit]) -> Mapping[str, float]:
    require_codes_alone(plan)
    seconds = predicted(of_layer(plan, batch, device), device, families)
    return {f"latency_us@{device.name}": seconds * 1e6, f"energy_uj@{device.name}": seconds * device.power_w * 1e6}


def predicted(gemm: Gemm, device: GpuDevice, families: Mapping[str, FamilyFit]) -> float:
    """Return the time of a matrix product in seconds by its family's fit, or by the roofline where there is none."""
    family = families.get(family_of(gemm))
    return roofline.seconds(gemm, device) if family is None else family.seconds(gemm, device)
