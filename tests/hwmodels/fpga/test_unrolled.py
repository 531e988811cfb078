"""Unrolled layers: what is counted around the adder graphs, and the cost model of a whole network."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import formats
from formats import InvalidValueError, Quantizer
from formats.format import Format
from hwmodels.cost import LayerPlan, NotPricedError, evaluate
from hwmodels.fpga import unrolled as module
from hwmodels.fpga.adder_graph import adder_graph
from hwmodels.fpga.constant_matrix import decoder, inputs
from hwmodels.fpga.devices import Usage
from hwmodels.fpga.unit_cost import RequantizerKind, UnitCost
from hwmodels.fpga.unrolled import cycles, requantizers, unrolled, unrolled_layer, window
from hwmodels.workload import Convolution, LayerWorkload

DENSE = LayerWorkload(
    name="dense", kind="linear", macs=160, weights=160, output_channels=10, activations_in=16, activations_out=10, dot_length=16
)


def convolution(name: str = "convolution", *, groups: int = 1, size: int = 12, kernel: int = 3) -> LayerWorkload:
    """Four channels in and out, no padding."""
    out = size - kernel + 1
    shape = Convolution(
        input_channels=4,
        groups=groups,
        kernel=(kernel, kernel),
        stride=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation=(1, 1),
        input_size=(size, size),
        output_size=(out, out),
    )
    length = 4 // groups * kernel**2
    return LayerWorkload(
        name=name,
        kind="convolution",
        macs=4 * out**2 * length,
        weights=4 * length,
        output_channels=4,
        activations_in=4 * size**2,
        activations_out=4 * out**2,
        dot_length=length,
        convolution=shape,
    )


def weights(workload: LayerWorkload, seed: int = 0) -> NDArray[np.float32]:
    shape = workload.convolution
    kernel = () if shape is None else shape.kernel
    wanted = (workload.output_channels, workload.dot_length // int(np.prod(kernel)), *kernel)
    return np.random.default_rng(seed).standard_normal(wanted).astype(np.float32)


def codes(plan: LayerPlan) -> NDArray[Any]:
    encoded: Any = plan.weight.encode(weights(plan.workload))
    return encoded.codes


def price(accumulator_bits: int, output: Format, *, kind: RequantizerKind, dsp: bool) -> UnitCost:
    """One LUT for a bit of the accumulator by thresholds, two by a search; nothing leads to e2m1, and no multiplier to anything."""
    if kind == "multiplier" or output.name == "e2m1":
        raise NotPricedError(f"no {kind} for {output.name}")
    lut = accumulator_bits * (1 if kind == "thresholds" else 2)
    return UnitCost(lut=lut, carry4=0, flip_flops=output.bits, dsp=0, arrival_ps=0, origin="formula", recipe=kind)


def plan(
    workload: LayerWorkload, weight: str = "int4:channel", activation: str = "uint4", outputs: Sequence[str] = ("uint4",)
) -> LayerPlan:
    return LayerPlan(
        workload=workload,
        weight=Quantizer.parse(weight),
        activation=Quantizer.parse(activation),
        outputs=tuple(Quantizer.parse(output) for output in outputs),
    )


def layer(workload: LayerWorkload, weight: str = "int4", activation: str = "uint4", **options: int) -> module.Unrolled:
    fmt = formats.scalar(weight)
    return unrolled_layer(workload, fmt, formats.scalar(activation), fmt.encode(2 * weights(workload)), **options)


def test_a_dense_layer_is_the_graph_of_its_weights() -> None:
    fmt = formats.scalar("int4")
    w = fmt.encode(2 * weights(DENSE))
    graph = adder_graph(fmt.values[w].T.astype(np.int64), [inputs(formats.scalar("uint4"))[0]] * 16)
    found = layer(DENSE, levels=3)
    assert (found.adder_lut, found.adders, found.depth) == (graph.lut, graph.adders, graph.depth)
    assert (found.flip_flops, found.stages) == (graph.flip_flops(3), graph.stages(3))
    assert (found.decoder_lut, found.output_bits) == (0, graph.output_bits)


def test_sums_are_as_wide_as_the_weights_at_hand_need() -> None:
    fmt = formats.scalar("int4")
    for value, bits in ((1, 8), (-1, 9), (0, 0)):  # 16 inputs of 0 to 15: up to 240
        w = fmt.encode(np.full((10, 16), value, np.float32))
        assert unrolled_layer(DENSE, fmt, formats.scalar("uint4"), w).output_bits == bits


def test_groups_have_a_graph_each() -> None:
    workload, fmt = convolution(groups=4), formats.scalar("int4")
    w = fmt.encode(2 * weights(workload))
    alone = [
        adder_graph(fmt.values[w[group]].reshape(9, 1).astype(np.int64), [inputs(formats.scalar("uint4"))[0]] * 9)
        for group in range(4)
    ]
    found = layer(workload)
    assert found.adder_lut == sum(graph.lut for graph in alone)
    assert found.depth == max(graph.depth for graph in alone)
    assert found.flip_flops == sum(graph.flip_flops(module.LEVELS) for graph in alone)


def test_the_figures_do_not_depend_on_the_positions_of_a_convolution() -> None:
    assert layer(convolution(size=12)) == layer(convolution(size=40))


def test_every_value_that_arrives_is_decoded_once() -> None:
    each = decoder(formats.scalar("e2m1"))[0]
    assert layer(DENSE, activation="e2m1").decoder_lut == 16 * each
    assert layer(convolution(), activation="e2m1").decoder_lut == 4 * each, "as its pixels come, not once for every window"


def test_weights_are_looked_up_by_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    graphs = module.graphs
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(module, "graphs", lambda *given: asked.append(given) or graphs(*given))
    first = layer(DENSE)
    assert layer(replace(DENSE, name="other")) is first
    assert len(asked) == 1
    fmt = formats.scalar("int4")
    other = fmt.encode(2 * weights(DENSE))
    other[0, 0] ^= 1
    unrolled_layer(DENSE, fmt, formats.scalar("uint4"), other)
    layer(DENSE, activation="uint3")
    layer(DENSE, levels=5)
    assert len(asked) == 4


def test_a_sample_takes_a_cycle_for_each_vector() -> None:
    assert cycles(DENSE) == 1
    assert cycles(convolution(kernel=1)) == 144
    assert cycles(convolution()) == 12 * 12 + 2, "all pixels must pass through the window, though it fits in 100 places"


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (DENSE, Usage()),
        (convolution(kernel=1), Usage()),
        # two lines of 9 words of 16 bits in LUTs, 4 for 32 words of 6 bits; nine pixels in registers
        (convolution(), Usage(lut=2 * 12, flip_flops=9 * 16)),
        # two lines of 97 words of 16 bits, each in a block RAM
        (convolution(size=100), Usage(bram=2, flip_flops=9 * 16)),
    ],
)
def test_windows_by_hand(workload: LayerWorkload, expected: Usage) -> None:
    assert window(workload, formats.scalar("uint4")) == expected


def test_a_window_holds_decoded_values() -> None:
    assert window(convolution(), formats.scalar("e2m1")).flip_flops == 9 * 4 * decoder(formats.scalar("e2m1"))[1]


def test_the_cheapest_requantizer_is_taken() -> None:
    assert requantizers(10, 12, formats.scalar("uint4"), price, root=False) == Usage(lut=120, flip_flops=40)
    assert requantizers(10, 12, formats.scalar("uint4"), price, root=True) == Usage(lut=120 + 4 * 120, flip_flops=40)
    with pytest.raises(NotPricedError, match=r"^output format must be one that a requantizer is priced for, not e2m1$"):
        requantizers(10, 12, formats.scalar("e2m1"), price, root=False)


def test_a_network_by_its_layers() -> None:
    plans = [plan(convolution("first")), plan(convolution("second", groups=4, size=10)), plan(DENSE, outputs=())]
    cost = evaluate([unrolled(codes, price, clock_mhz=200)], plans)
    total = cost.total
    for given in plans:
        arithmetic = unrolled_layer(given.workload, given.weight.format, given.activation.format, codes(given))
        around = window(given.workload, given.activation.format)
        if given.outputs:
            around = around.plus(requantizers(4, arithmetic.output_bits, formats.scalar("uint4"), price, root=False))
        assert cost.layers[given.workload.name] == {
            "lut": arithmetic.adder_lut + around.lut,
            "flip_flops": arithmetic.flip_flops + around.flip_flops,
            "bram": 0,
            "adder_lut": arithmetic.adder_lut,
            "depth": arithmetic.depth,
            "cycles": cycles(given.workload),
        }
    assert total["lut"] == sum(figures["lut"] for figures in cost.layers.values())
    assert total["fps"] == 200e6 / 146
    assert cost.remarks == {"bottleneck": "first (146 cycles)"}
    assert total["latency_us"] > 146 / 200
    assert "depth" not in total


def test_a_network_is_as_late_as_its_windows_and_stages_make_it() -> None:
    one = [plan(DENSE, outputs=())]
    found = evaluate([unrolled(codes, price, clock_mhz=100)], one).total
    assert found["fps"] == 100e6
    stages = unrolled_layer(DENSE, formats.scalar("int4"), formats.scalar("uint4"), codes(one[0])).stages
    assert found["latency_us"] == pytest.approx((1 + stages + 1) / 100)


def test_fewer_bits_cost_less() -> None:
    luts = [
        evaluate([unrolled(codes, price, clock_mhz=100)], [plan(DENSE, weight)]).total["lut"]
        for weight in ("int8:channel", "int4:channel", "int2:channel")
    ]
    assert luts == sorted(luts, reverse=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (plan(DENSE, "int4:group8"), r"weights must share a scale by tensor or channel to be summed as codes, not by group8"),
        (plan(DENSE, outputs=("e2m1",)), r"output format must be one that a requantizer is priced for, not e2m1"),
    ],
)
def test_what_cannot_be_unrolled_is_told_with_the_layer(given: LayerPlan, message: str) -> None:
    with pytest.raises(NotPricedError, match=f"{message} .*'unrolled'.*'dense'"):
        evaluate([unrolled(codes, price, clock_mhz=100)], [given])


@pytest.mark.parametrize("clock", [0.0, -1.0, float("inf"), float("nan")])
def test_a_clock_is_a_positive_number(clock: float) -> None:
    with pytest.raises(InvalidValueError, match=rf"^clock must be a number above 0, not {clock:g}$"):
        unrolled(codes, price, clock_mhz=clock)
