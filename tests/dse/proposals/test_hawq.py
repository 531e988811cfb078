"""HAWQ-V3's integer program for ResNet-18 (Yao et al., ICML 2021; the figures are those of its published notebook).

The 19 layers are the convolutions of the four stages, the downsampling ones included; the first convolution and the classifier
stay at 8 bits and are left out. Every layer takes 4 or 8 bits; the loss of b bits is the mean trace of the Hessian, which the
notebook prints already divided by the number of weights, times the squared error of the weight. A downsampling convolution is tied
to the first convolution of its block: both read one tensor.
"""

import itertools

import numpy as np
import pytest

from dse.proposals import ChoiceTable, knapsack, milp

TRACES = [
    0.0686, 0.0316, 0.0330, 0.0121, 0.0222, 0.0060, 0.0693, 0.0081, 0.0037, 0.0053, 0.0021, 0.0074, 0.0021, 0.0015, 0.0016, 0.00078,
    0.0045, 0.00099, 0.00073,
]  # fmt: skip
ERRORS = {
    4: [6.743, 3.969, 3.328, 2.680, 4.728, 10.597, 0.683, 9.094, 4.886, 10.760, 21.755, 0.860, 14.532, 10.965, 18.771,
        36.404, 3.157,
        29.699, 17.402],
    8: [0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448, 0.0336,
        0.0576, 0.1130,
        0.0102, 0.0947, 0.0532],
}  # fmt: skip
LATENCIES = {
    4: [0.2109, 0.2109, 0.2110, 0.2109, 0.1364, 0.1917, 0.0253, 0.1915, 0.1914, 0.1140, 0.2056, 0.0192, 0.2057, 0.2057,
        0.1319, 0.2229,
        0.0179, 0.2230, 0.2229],
    8: [0.3619, 0.3621, 0.3114, 0.3045, 0.1918, 0.3895, 0.0334, 0.3890, 0.3893, 0.1913, 0.3431, 0.0280, 0.3431, 0.3431,
        0.2112, 0.3738,
        0.0290, 0.3740, 0.3741],
}  # fmt: skip
BITS = (4, 8)


def architecture() -> list[tuple[str, int, int]]:
    """Return name, weights and multiplications for one image of 224 x 224 of each layer, in the notebook's order."""
    layers = []
    inputs, side = 64, 56  # after the first convolution and the pooling
    for stage, outputs in enumerate((64, 128, 256, 512), start=1):
        side = side if stage == 1 else side // 2
        for block in (1, 2):
            shapes = [(f"stage{stage}.{block}.conv1", 9 * inputs * outputs), (f"stage{stage}.{block}.conv2", 9 * outputs * outputs)]
            if inputs != outputs:
                shapes.append((f"stage{stage}.{block}.downsample", inputs * outputs))
            layers += [(name, weights, weights * side * side) for name, weights in shapes]
            inputs = outputs
    return layers


def tied() -> list[list[int]]:
    """Return the layers' indices in groups: a downsampling convolution, second after its block's first, stands with that one."""
    names = [name for name, _, _ in architecture()]
    downsampling = {index: index - 2 for index, name in enumerate(names) if name.endswith("downsample")}
    return [
        [index, *(d for d, first in downsampling.items() if first == index)]
        for index in range(len(names))
        if index not in downsampling
    ]


@pytest.fixture(scope="module")
def hawq() -> ChoiceTable:
    layers, groups = architecture(), tied()

    def column(figure: dict[int, list[float]]) -> tuple[np.ndarray, ...]:
        return tuple(np.array([sum(figure[bits][index] for index in group) for bits in BITS]) for group in groups)

    return ChoiceTable(
        groups=tuple(layers[group[0]][0] for group in groups),
        options=tuple(("int4", "int8") for _ in groups),
        losses=column({bits: [trace * error for trace, error in zip(TRACES, ERRORS[bits], strict=True)] for bits in BITS}),
        costs={
            "size": column({bits: [weights * bits / 8 for _, weights, _ in layers] for bits in BITS}),
            "bit_operations": column({bits: [float(macs * bits * bits) for _, _, macs in layers] for bits in BITS}),
            "latency": column(LATENCIES),
        },
    )


def limit(table: ChoiceTable, cost: str, share: float) -> float:
    """Return the notebook's budget: at 4 bits everywhere, plus a share of the way to 8 bits everywhere."""
    low, high = (table.cost(cost, (option,) * len(table.groups)) for option in (0, 1))
    return low + share * (high - low)


def test_the_architecture_has_the_notebook_s_layers() -> None:
    layers = architecture()
    assert len(layers) == len(TRACES) == 19
    assert [index for index, (name, _, _) in enumerate(layers) if "downsample" in name] == [6, 11, 16]
    assert sum(weights for _, weights, _ in layers) == 11_689_512 - 9_408 - 513_000 - 2 * 4_800  # first, classifier, batch norms


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("cost", ["size", "bit_operations", "latency"])
def test_both_solvers_find_the_optimum_of_exhaustive_search(hawq: ChoiceTable, cost: str, share: float) -> None:
    budget = limit(hawq, cost, share)
    every = np.array(list(itertools.product((0, 1), repeat=len(hawq.groups))))
    within = hawq.totals(hawq.column(cost), every) <= budget
    least = hawq.totals(hawq.losses, every)[within].min()
    front = knapsack.front(hawq, cost)
    assert front.factor == 1.0
    assert hawq.loss(front.best(budget)) == least
    solution = milp.solve(hawq, {cost: budget})
    assert solution.proved
    assert solution.loss == pytest.approx(least, rel=1e-8)


def test_all_three_budgets_together(hawq: ChoiceTable) -> None:
    budgets = {cost: limit(hawq, cost, 0.5) for cost in hawq.costs}
    every = np.array(list(itertools.product((0, 1), repeat=len(hawq.groups))))
    kept = np.all([hawq.totals(hawq.column(cost), every) <= budget for cost, budget in budgets.items()], axis=0)
    least = hawq.totals(hawq.losses, every)[kept].min()
    solution = milp.solve(hawq, budgets)
    assert solution.loss == pytest.approx(least, rel=1e-8)
    assert solution.loss > max(milp.solve(hawq, {cost: budget}).loss for cost, budget in budgets.items()) * (1 - 1e-8)
