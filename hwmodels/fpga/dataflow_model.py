"""The cost model of a dataflow pipeline on a device."""

from collections.abc import Sequence
from functools import partial

from hwmodels.cost import CostModel, LayerPlan, Metric, NetworkFigures
from hwmodels.fpga.dataflow import Prices
from hwmodels.fpga.devices import LABELS, RESOURCES
from hwmodels.fpga.network_folding import fold
from hwmodels.fpga.pipeline import Target

#: the figure that is above 1 where a design does not fit
SHARE = "budget_share"


def _figures(plans: Sequence[LayerPlan], target: Target, prices: Prices) -> NetworkFigures:
    made = fold(plans, target, prices)
    layers = tuple(
        {
            "pe": layer.matrix.folding.pe,
            "simd": layer.matrix.folding.simd,
            "cycles": layer.cycles,
            "energy_pj": layer.energy_pj,
            **layer.usage._asdict(),
        }
        for layer in made.layers
    )
    network = {"fps": made.fps, "latency_us": made.latency_us, "budget_share": made.binding[1]}
    return NetworkFigures(layers=layers, network=network, remarks=made.remarks)


def dataflow(target: Target, prices: Prices) -> CostModel:
    """Return the cost model of a dataflow pipeline that is folded for ``target`` anew for every choice of quantizers."""
    rate = f"at {target.fps:g} frames/s" if target.fps is not None else "at the highest rate that fits"
    where = f"{target.device.name}, {target.clock_hz / 1e6:g} MHz, {rate} in {target.budget:.0%} of the device"
    resources = [
        Metric(name=name, unit=LABELS[name], summary=f"dataflow pipeline on {where}: {LABELS[name]} of the design of least area")
        for name in RESOURCES
    ]
    return CostModel(
        name=f"dataflow on {target.device.name}",
        metrics=(
            Metric(name="pe", unit="units", summary="units of the matrix stage", total="none"),
            Metric(name="simd", unit="lanes", summary="lanes of a unit", total="none"),
            Metric(name="cycles", unit="cycles", summary="clock cycles of the layer's slowest stage for a sample", total="none"),
            *resources,
            Metric(name="energy_pj", unit="pJ", summary="by 45 nm energies of operations and reads: a model across formats"),
            Metric(
                name="fps", unit="1/s", summary="clock over the cycles of the slowest stage", total="network", direction="maximize"
            ),
            Metric(name="latency_us", unit="us", summary="time of one sample through the pipeline", total="network"),
            Metric(
                name=SHARE,
                unit="share",
                summary="largest share taken of what is allowed of a resource; above 1 it does not fit",
                total="network",
            ),
        ),
        figures=partial(_figures, target=target, prices=prices),
        separable=False,
    )
