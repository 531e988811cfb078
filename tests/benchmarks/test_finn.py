"""How FINN's nodes are told apart and compared; FINN itself runs only in the benchmark."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import finn, finn_page
from benchmarks.finn_networks import NETWORKS
from dse.network import Layer, build
from formats import BitatlasError


def node(kind: str, cycles: int = 0, luts: int = 0, **given: Any) -> dict[str, Any]:
    counts = given.pop("counts", {})
    return {"name": f"{kind}_0", "type": kind, "attributes": given, "cycles": cycles, "resources": {"LUT": luts}, "counts": counts}


@pytest.fixture
def layers() -> tuple[Layer, ...]:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 10))
    return build("small", network, (4, 12, 12)).layers


def integers(accumulator: str = "INT12") -> dict[str, str]:
    return {"weightDataType": "INT4", "inputDataType": "INT4", "accDataType": accumulator}


# what finn-plus 1.6.1 gave for the first layer of such a network, folded for 100,000 frames a second at 200 MHz
CONVOLUTION = node(
    "MVAU_hls",
    1152,
    1901,
    PE=4,
    SIMD=9,
    MW=36,
    MH=8,
    numInputVectors=[1, 12, 12],
    counts={"op_mac_4bx4b": 41472, "param_weight_4b": 288},
    **integers(),
)
NODES = [
    node("Thresholding_rtl", 576, PE=1),
    node("FMPadding_rtl", 784, SIMD=1),
    node("ConvolutionInputGenerator_rtl", 1327, SIMD=4, parallel_window=0),
    CONVOLUTION,
    node("Thresholding_rtl", 1152, PE=1),
    node("ConvolutionInputGenerator_rtl", 1612, SIMD=1, parallel_window=0),
    node("Pool_hls", 1152, PE=1),
    node("MVAU_rtl", 2880, PE=1, SIMD=1, counts={"op_mac_4bx4b": 2880, "param_weight_4b": 2880}, **integers()),
    node("ElementwiseMul_hls", 10, PE=1),
]


def test_every_node_is_told_which_layer_it_works_for(layers: tuple[Layer, ...]) -> None:
    first, last = layers
    assert finn.layers_of(NODES, layers) == [None, first, first, first, first, None, None, last, None]


def test_a_layer_without_a_matrix_node_is_an_error(layers: tuple[Layer, ...]) -> None:
    with pytest.raises(BitatlasError, match=r"^FINN must make a matrix node of each of the 2 layers, not 1: MVAU_hls_0$"):
        finn.layers_of(NODES[:5], layers)
    with pytest.raises(BitatlasError, match=r"^FINN must make a matrix node of each of the 2 layers, not 0: none$"):
        finn.layers_of(NODES[:1], layers)


def test_ours_stand_beside_the_figures_of_finn(layers: tuple[Layer, ...]) -> None:
    rows = finn.compare(NODES, layers, network="small", widths=(4, 4), rate=100_000)
    assert [row.our_cycles for row in rows] == [None, 784, 1327, 1152, 1152, None, None, 2880, None]
    matrix = rows[3]
    assert (matrix.macs, matrix.our_macs, matrix.parameters, matrix.our_parameters) == (41472, 41472, 288, 288)
    assert (matrix.luts, matrix.our_luts) == (1901, 1901)
    assert rows[7].our_luts is None, "FINN counts no LUTs of its RTL units"
    assert not [line for row in rows for line in row.differences]


def test_a_difference_names_the_node(layers: tuple[Layer, ...]) -> None:
    wrong = [*NODES]
    wrong[3] = CONVOLUTION | {"cycles": 1151, "counts": {"op_mac_4bx4b": 41472, "param_weight_4b": 287}}
    rows = finn.compare(wrong, layers, network="small", widths=(4, 4), rate=1000)
    where = "node MVAU_hls_0 (small, W4A4, 1000 frames/s)"
    assert [line for row in rows for line in row.differences] == [
        f"cycles must be FINN's 1151, not 1152: {where}",
        f"parameters must be FINN's 287, not 288: {where}",
    ]


def test_the_page_says_what_was_compared_and_what_differs(
    layers: tuple[Layer, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finn_page, "version", lambda package: "1.0")  # they need not be installed for this
    wrong = [*NODES]
    wrong[3] = CONVOLUTION | {"cycles": 1151}
    rows = finn.compare(NODES, layers, network="small", widths=(4, 4), rate=1000)
    rows += finn.compare(wrong, layers, network="small", widths=(4, 4), rate=2000)
    finn_page.write(rows, tmp_path, command="python -m benchmarks.finn", finn=finn.FINN, part="a part")
    page = (tmp_path / "README.md").read_text()
    assert "Made by `python -m benchmarks.finn` on " in page
    assert "| small | 4 | 4 | 1000 | 9 | 5 of 5 | 2 of 2 | 2 of 2 | 1 of 1 | MVAU_rtl_0 (2880) |" in page
    assert "| small | 4 | 4 | 2000 | 9 | 4 of 5 | 2 of 2 | 2 of 2 | 1 of 1 | MVAU_rtl_0 (2880) |" in page
    assert page.rstrip().endswith("- cycles must be FINN's 1151, not 1152: node MVAU_hls_0 (small, W4A4, 2000 frames/s)")
    with (tmp_path / "finn_check.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == 18
    assert (written[3]["cycles"], written[3]["our_cycles"], written[0]["our_cycles"]) == ("1152", "1152", "")


def test_the_accumulator_of_the_formula_is_the_one_that_finn_settled_on(layers: tuple[Layer, ...]) -> None:
    # four units of an accumulator of 12 bits; the data types alone would ask for 13, and no LUT is counted beyond that
    narrow, wide = (
        finn.our_luts(CONVOLUTION | {"attributes": {**CONVOLUTION["attributes"], **integers(a)}}, layers[0])
        for a in ("INT8", "INT32")
    )
    assert (narrow, wide) == (int(300 + 1.1 * 4 * (216 + 136 + 8)), int(300 + 1.1 * 4 * (216 + 136 + 13)))


def test_counts_are_summed_by_their_kind() -> None:
    counts = {"op_mac_4bx8b": 3, "op_mac_2bx8b": 4, "param_weight_4b": 5}
    assert finn.counted(node("MVAU_hls", counts=counts), "op_mac") == 7
    assert finn.counted(node("MVAU_hls", counts=counts), "param_weight") == 5
    assert finn.counted(node("Pool_hls"), "op_mac") is None


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_run_and_are_traced_layer_by_layer(name: str) -> None:
    define, shape = NETWORKS[name]
    network = define()
    assert network(torch.zeros(2, *shape)).shape == (2, 10)
    weighted = [module for module in network if hasattr(module, "weight")]
    assert len(build(name, network, shape).layers) == len(weighted)


def test_a_failure_of_a_step_names_it_and_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [{"failed": "step_streamline", "message": "no such operator", "software": []}]
    monkeypatch.setattr(finn, "run_steps", lambda python, requests, folder: replies)
    message = r"^FINN's steps must succeed, not fail \(step_streamline: no such operator\): a.onnx$"
    with pytest.raises(BitatlasError, match=message):
        finn.estimates(Path(sys.executable), [{"model": "a.onnx"}], tmp_path)


@pytest.mark.parametrize("cycles", [1151, 1152])
def test_the_exit_status_says_whether_all_is_equal(
    cycles: int, layers: tuple[Layer, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [*NODES]
    nodes[3] = CONVOLUTION | {"cycles": cycles}
    monkeypatch.setattr(finn, "environment", lambda folder: folder)
    monkeypatch.setattr(finn, "measure", lambda python: finn.compare(nodes, layers, network="small", widths=(4, 4), rate=1000))
    with pytest.raises(SystemExit) as caught:
        finn.main([])
    assert caught.value.code == (cycles != 1152)
    told = capsys.readouterr().out.splitlines()
    assert told[-3:-1] == [
        f"{finn.FINN}: 9 nodes; = marks ours equal to FINN's, nothing a node that is no stage of a layer",
        "cycles compared at 5 nodes, LUTs at 1, of which 1 equal",
    ]
    equal = "cycles, operations and parameters are equal everywhere"
    wrong = "cycles must be FINN's 1151, not 1152: node MVAU_hls_0 (small, W4A4, 1000 frames/s)"
    assert told[-1] == (equal if cycles == 1152 else wrong)
