"""Costs that follow from widths alone: bits of weight memory, and bit operations."""

from hwmodels.cost import CostModel, LayerPlan, Metric, per_layer


def _weight_memory(plan: LayerPlan) -> dict[str, float]:
    workload = plan.workload
    if workload.weights == 0:
        return {"weight_bits": 0.0, "scale_bits": 0.0}
    shape = (workload.output_channels, workload.weights // workload.output_channels)
    stored = [plan.weight.storage_bits(shape)]
    if plan.factors is not None:
        sides = (shape[0], plan.factors.rank), (plan.factors.rank, shape[1])
        stored += [plan.factors.quantizer.storage_bits(side) for side in sides]
    return {"weight_bits": float(sum(bits.codes for bits in stored)), "scale_bits": float(sum(bits.scales for bits in stored))}


def _bit_operations(plan: LayerPlan) -> dict[str, float]:
    workload = plan.workload
    operations = workload.macs * plan.weight.width
    if plan.factors is not None:  # the product with one factor after the other, at every position of the output
        positions = workload.activations_out / workload.output_channels
        values = plan.factors.rank * (workload.output_channels + workload.weights / workload.output_channels)
        operations += positions * values * plan.factors.quantizer.width
    return {"bops": float(operations * plan.activation.width)}


WEIGHT_MEMORY = CostModel(
    name="storage",
    metrics=(
        Metric(name="weight_bits", unit="bit", summary="weight codes as packed, low-rank factors too"),
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
