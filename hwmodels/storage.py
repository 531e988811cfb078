"""Costs that follow from widths alone: bits of weight memory, and bit operations."""

from hwmodels.cost import CostModel, LayerPlan, Metric, per_layer


def _weight_memory(plan: LayerPlan) -> dict[str, float]:
    workload = plan.workload
    if workload.weights == 0:
        return {"weight_bits": 0.0, "scale_bits": 0.0}
    bits = plan.weight.storage_bits((workload.output_channels, workload.weights // workload.output_channels))
    return {"weight_bits": float(bits.codes), "scale_bits": float(bits.scales)}


def _bit_operations(plan: LayerPlan) -> dict[str, float]:
    return {"bops": float(plan.workload.macs * plan.weight.width * plan.activation.width)}


WEIGHT_MEMORY = CostModel(
    name="storage",
    metrics=(
        Metric(name="weight_bits", unit="bit", summary="weight codes as packed"),
        Metric(name="scale_bits", unit="bit", summary="weight scales as stored, with all else that decodes the codes"),
    ),
    figures=per_layer(_weight_memory),
)

#: MACs times both widths, as ``qonnx.util.inference_cost`` counts them
BIT_OPERATIONS = CostModel(
    name="widths",
    metrics=(Metric(name="bops", unit="bit operation", summary="MACs times weight width times activation width"),),
    figures=per_layer(_bit_operations),
)
