"""Run finn-plus' estimate-only steps on QONNX models: ``python -P finn_steps.py REQUEST.json REPLY.json``.

Runs in an environment of its own (``finn_requirements.txt``) and so imports nothing of this project. The request is a list of
``{"model": path, "fps": number, "part": name, "clock_ns": number, "style": "hls" | "auto"}``, all in one process because
importing FINN takes longer than its steps; the reply is a list as long, one ``{"nodes": [...], "performance": {...}}`` each.

No FPGA vendor's tools are needed: the settings are FINN's own dummies, and its simulator binding, which the steps import but
do not use, is replaced by a placeholder.
"""

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ATTRIBUTES = (
    "PE",
    "SIMD",
    "MW",
    "MH",
    "numInputVectors",
    "Channels",
    "NumChannels",
    "IFMChannels",
    "Kernel",
    "ConvKernelDim",
    "Dim",
    "IFMDim",
    "OFMDim",
    "Stride",
    "Dilation",
    "depthwise",
    "parallel_window",
    "inputDataType",
    "weightDataType",
    "accDataType",
    "outputDataType",
    "mem_mode",
    "ram_style",
    "noActivation",
    "KernelSize",
    "OutImgDims",
)


def prepare(folder: Path) -> None:
    """Let FINN be imported without Vivado."""
    os.environ["FINN_BUILD_DIR"] = str(folder)
    from finn.util.settings import initialize_dummy_settings

    initialize_dummy_settings()
    import finn.xsi

    finn.xsi.SimEngine = object


def plain(value: Any) -> Any:
    """Return an attribute as JSON has it."""
    if isinstance(value, str | int | float):
        return value
    return [plain(item) for item in value] if hasattr(value, "__iter__") else float(value)


def build(request: dict, folder: Path) -> dict:
    """Run the steps on one model and return what FINN reports of every node."""
    from finn.builder import build_dataflow_steps as steps
    from finn.builder.build_dataflow_config import DataflowBuildConfig, DataflowOutputType, estimate_only_dataflow_steps
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.custom_op.registry import getCustomOp

    config = DataflowBuildConfig(
        output_dir=str(folder),
        synth_clk_period_ns=request["clock_ns"],
        fpga_part=request["part"],
        target_fps=request["fps"],
        standalone_thresholds=True,
        generate_outputs=[DataflowOutputType.ESTIMATE_REPORTS],
        save_intermediate_models=False,
    )
    model = ModelWrapper(request["model"])
    for name in estimate_only_dataflow_steps:
        if name == "step_specialize_layers" and request["style"] != "auto":
            for node in model.graph.node:
                if node.op_type in ("MVAU", "VVAU"):
                    getCustomOp(node).set_nodeattr("preferred_impl_style", request["style"])
        model = getattr(steps, name)(model, config)
    reports = folder / "report"
    read = {
        kind: json.loads((reports / f"{file}.json").read_text())
        for kind, file in (
            ("cycles", "estimate_layer_cycles"),
            ("resources", "estimate_layer_resources"),
            ("counts", "op_and_param_counts"),
            ("performance", "estimate_network_performance"),
        )
    }
    nodes = []
    for node in model.graph.node:
        operator = getCustomOp(node)
        known = operator.get_nodeattr_types()
        nodes.append(
            {
                "name": node.name,
                "type": node.op_type,
                "attributes": {key: plain(operator.get_nodeattr(key)) for key in ATTRIBUTES if key in known},
                "cycles": read["cycles"].get(node.name),
                "resources": read["resources"].get(node.name, {}),
                "counts": read["counts"].get(node.name, {}),
            }
        )
    return {"nodes": nodes, "performance": read["performance"]}


def main() -> None:
    """Answer the request."""
    requests = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        logging.disable(logging.CRITICAL)
        replies = []
        for number, request in enumerate(requests):
            folder = Path(made) / str(number)
            folder.mkdir()
            replies.append(build(request, folder))
    Path(sys.argv[2]).write_text(json.dumps(replies))


if __name__ == "__main__":
    main()
