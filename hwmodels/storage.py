"""Costs that follow from widths alone: bits of weight memory, and bit operations."""

from hwmodels.cost import CostModel, LayerPlan, Metric

SCALE_BITS = 32


def _weight_memory(plan: LayerPlan) -> dict[str, float]:
    workload = plan.workload
    if workload.weights == 0:
        return {"weight_bits": 0.0, "scale_bits": 0.0}
    granularity = plan.weight.granularity
    per_channel = workload.weights // workload.output_channels
    rows = {
        "tensor": 1,
        "channel": workload.output_channels,
        "group": workload.output_channels * -(-per_channel // max(granularity.size, 1)),
    }[granularity.name]
    return {"weight_bits": float(workload.weights * plan.weight.format.bits), "scale_bits": float(rows * SCALE_BITS)}


def _bit_operations(plan: LayerPlan) -> dict[str, float]:
    return {"bops": float(plan.workload.macs * plan.weight.format.bits * plan.activation.format.bits)}


WEIGHT_MEMORY = CostModel(
    name="storage",
    metrics=(
        Metric(name="weight_bits", unit="bit", summary="weight codes, number times width"),
        Metric(name="scale_bits", unit="bit", summary="weight scales, one float32 each"),
    ),
    figures=_weight_memory,
)

#: MACs times both widths, as ``qonnx.util.inference_cost`` counts them
BIT_OPERATIONS = CostModel(
    name="widths",
    metrics=(Metric(name="bops", unit="bit operation", summary="MACs times weight width times activation width"),),
    figures=_bit_operations,
)
