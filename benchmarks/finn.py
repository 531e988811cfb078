"""Cycles, operations, parameters and LUTs of integer networks by FINN and by this project, layer by layer, stage by stage.

    python -m benchmarks.finn [--environment DIR] [--out DIR]

A torch network is traced by ``dse.network`` for our figures; the same one, with Brevitas' quantizers in it, is exported to QONNX
and goes through the estimate-only steps of finn-plus, which runs in an environment of its own. FINN chooses the folding for a
target rate; ours is asked for the same. Cycles, operation counts and parameter counts must be equal: where one is not, the last
line names the node, and the exit status is 1. LUTs are printed beside each other.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import formats
from benchmarks.finn_networks import NETWORKS, export, quantized
from benchmarks.finn_page import Row, show, write
from dse.flows.finn_environment import FINN, default_folder, environment, run_steps
from dse.network import Layer, build
from formats import BitatlasError
from hwmodels.finn_formula import LUT_PER_LAYER, OVERHEAD, accumulator_bits, lut_per_mac
from hwmodels.fpga import folding
from hwmodels.fpga.folding import Folding

COMMAND = "python -m benchmarks.finn"
PART, CLOCK_NS = "xczu7ev-ffvc1156-2-e", 5.0
#: bits of weights and activations
WIDTHS = ((2, 2), (4, 4), (8, 8), (2, 8), (8, 4))
#: frames per second that FINN folds for
RATES = (1_000, 50_000, 1_000_000)


def estimates(python: Path, requests: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Let FINN answer the requests (see ``dse.flows.finn_steps``)."""
    replies = run_steps(python, requests, folder)
    for request, reply in zip(requests, replies, strict=True):
        if "failed" in reply:
            raise BitatlasError(f"FINN's steps must succeed, not fail ({reply['failed']}: {reply['message']}): {request['model']}")
    return replies


def operator(node: Mapping[str, Any]) -> str:
    """Return a node's type without the suffix of its implementation."""
    return str(node["type"]).removesuffix("_hls").removesuffix("_rtl")


def layers_of(nodes: Sequence[Mapping[str, Any]], layers: Sequence[Layer]) -> list[Layer | None]:
    """Say which layer each node works for: None for what is no layer's, such as pooling and the input's quantizer.

    Matrix nodes and layers are in the same order. What slides or pads before a matrix node is its layer's, unless it leads to a
    pooling node; thresholds are of the matrix node before them. Raises ``BitatlasError`` where some layer has no node.
    """
    matrices = [index for index, node in enumerate(nodes) if operator(node) in ("MVAU", "VVAU")]
    if len(matrices) != len(layers):
        found = ", ".join(str(nodes[index]["name"]) for index in matrices) or "none"
        raise BitatlasError(f"FINN must make a matrix node of each of the {len(layers)} layers, not {len(matrices)}: {found}")
    owners: list[Layer | None] = [None] * len(nodes)
    for index, layer in zip(matrices, layers, strict=True):
        owners[index] = layer
        before = index - 1
        while before >= 0 and operator(nodes[before]) in ("ConvolutionInputGenerator", "FMPadding"):
            owners[before] = layer
            before -= 1
        if index + 1 < len(nodes) and operator(nodes[index + 1]) == "Thresholding":
            owners[index + 1] = layer
    return owners


def our_cycles(node: Mapping[str, Any], layer: Layer) -> int:
    """Return the cycles that we say the node's stage takes at the node's folding."""
    kind, given, workload = operator(node), node["attributes"], layer.workload
    if kind in ("MVAU", "VVAU"):
        return folding.matrix_cycles(workload, Folding(pe=given["PE"], simd=given["SIMD"]))
    if kind == "Thresholding":
        return folding.requantizer_cycles(workload, given["PE"])
    assert workload.convolution is not None
    if kind == "FMPadding":
        return folding.padding_cycles(workload.convolution, given["SIMD"])
    return folding.window_cycles(workload.convolution, given["SIMD"], parallel=bool(given["parallel_window"]))


def our_luts(node: Mapping[str, Any], layer: Layer) -> int:
    """Return FINN's formula as we have it, for the node's data types and folding and with the accumulator that FINN settled on."""
    given, length = node["attributes"], layer.workload.dot_length
    weight, activation = (formats.scalar(given[key].lower()) for key in ("weightDataType", "inputDataType"))
    bound = accumulator_bits(weight, activation, length)
    spare = bound - min(bound, int(given["accDataType"].removeprefix("U").removeprefix("INT")))
    each = lut_per_mac(weight, activation, length, given["SIMD"]) * given["SIMD"] - OVERHEAD * spare
    return int(LUT_PER_LAYER + each * given["PE"] + 1e-6)  # sums of 1.1 fall short of whole numbers in the last place


def counted(node: Mapping[str, Any], prefix: str) -> int | None:
    """Sum the counts whose names begin with ``prefix``."""
    found = [int(count) for name, count in node["counts"].items() if name.startswith(prefix)]
    return sum(found) if found else None


def compare(
    nodes: Sequence[Mapping[str, Any]], layers: Sequence[Layer], *, network: str, widths: tuple[int, int], rate: int
) -> list[Row]:
    """Put every node that takes cycles beside the stage of ours that it is."""
    rows = []
    for node, layer in zip(nodes, layers_of(nodes, layers), strict=True):
        of_matrix = layer if operator(node) in ("MVAU", "VVAU") else None
        counted_luts = of_matrix if str(node["type"]).endswith("_hls") else None
        given = node["attributes"]
        rows.append(
            Row(
                network=network,
                weight_bits=widths[0],
                activation_bits=widths[1],
                rate=rate,
                node=node["name"],
                layer="" if layer is None else layer.name,
                pe=given.get("PE"),
                simd=given.get("SIMD"),
                cycles=node["cycles"],
                our_cycles=None if layer is None else our_cycles(node, layer),
                macs=counted(node, "op_mac"),
                our_macs=None if of_matrix is None else of_matrix.workload.macs,
                parameters=counted(node, "param_weight"),
                our_parameters=None if of_matrix is None else of_matrix.workload.weights,
                luts=int(node["resources"].get("LUT", 0)),
                our_luts=None if counted_luts is None else our_luts(node, counted_luts),
            )
        )
    return rows


def measure(python: Path, widths: Iterable[tuple[int, int]] = WIDTHS, rates: Iterable[int] = RATES) -> list[Row]:
    """Compare every network at all widths and rates."""
    cases = [(name, pair, rate) for name in NETWORKS for pair in widths for rate in rates]
    networks, requests = {}, []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, (define, shape) in NETWORKS.items():
            torch.manual_seed(0)
            network = define()
            networks[name] = build(name, network, shape).layers
            for pair in {pair for case, pair, _ in cases if case == name}:
                export(quantized(network, *pair), shape, folder / f"{name}_{pair[0]}_{pair[1]}.onnx")
        for name, pair, rate in cases:
            model = str(folder / f"{name}_{pair[0]}_{pair[1]}.onnx")
            requests.append({"model": model, "fps": rate, "part": PART, "clock_ns": CLOCK_NS, "style": "hls"})
        replies = estimates(python, requests, folder)
    return [
        row
        for (name, pair, rate), reply in zip(cases, replies, strict=True)
        for row in compare(reply["nodes"], networks[name], network=name, widths=pair, rate=rate)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=default_folder(), help="FINN's virtual environment")
    parser.add_argument("--out", type=Path, help="also write finn_check.csv and a page into this folder")
    options = parser.parse_args(arguments)
    try:
        rows = measure(environment(options.environment))
    except BitatlasError as error:
        parser.exit(2, f"{error}\n")
    show(rows)
    if options.out is not None:
        write(rows, options.out, command=COMMAND, finn=FINN, part=f"{PART} at {1000 / CLOCK_NS:g} MHz")
    compared = [row for row in rows if row.our_cycles is not None]
    matrices = [row for row in rows if row.our_luts is not None]
    equal = sum(row.luts == row.our_luts for row in matrices)
    print(f"\n{FINN}: {len(rows)} nodes; = marks ours equal to FINN's, nothing a node that is no stage of a layer")
    print(f"cycles compared at {len(compared)} nodes, LUTs at {len(matrices)}, of which {equal} equal")
    wrong = [line for row in rows for line in row.differences]
    print("\n".join(wrong) if wrong else "cycles, operations and parameters are equal everywhere")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
