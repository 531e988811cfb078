"""Run finn-plus' estimate-only steps on QONNX models: ``python -P finn_steps.py REQUEST.json REPLY.json``.

Runs in an environment of its own (``finn_requirements.txt``) and so imports nothing of this project. The request is a list of
``{"model": path, "fps": number or null, "part": name, "clock_ns": number, "style": "hls" | "auto"}``, all in one process because
importing FINN takes longer than its steps. Optional are ``"folder"``, which FINN's reports are left in; ``"layers"``, digests of
layers' weights by name (see ``digest``); and ``"samples"``, a ``.npy`` file that the streamlined network is run on.

The reply is a list as long, one ``{"nodes": [...], "performance": {...}, "outputs": path or null}`` each, or
``{"failed": step, "message": text, "software": [nodes that are no hardware]}``.

No FPGA vendor's tools are needed: the settings are FINN's own dummies, and its simulator binding, which the steps import but
do not use, is replaced by a placeholder.
"""

import hashlib
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
MATRICES = ("MVAU", "VVAU", "MatMul", "Conv")


def prepare(folder: Path) -> None:
    """Let FINN be imported without Vivado."""
    os.environ["FINN_BUILD_DIR"] = str(folder)
    from finn.util.settings import initialize_dummy_settings  # type: ignore[import-not-found]

    initialize_dummy_settings()
    import finn.xsi  # type: ignore[import-not-found]

    finn.xsi.SimEngine = object


def plain(value: Any) -> Any:
    """Return an attribute as JSON has it."""
    if isinstance(value, str | int | float):
        return value
    return [plain(item) for item in value] if hasattr(value, "__iter__") else float(value)


def digest(weights: Any) -> str:
    """Return what tells a layer's whole-numbered weights from others', in whatever order and among whatever zeros they lie."""
    import numpy

    whole = numpy.asarray(weights).astype(numpy.int64).reshape(-1)
    return hashlib.sha256(numpy.sort(whole[whole != 0]).tobytes()).hexdigest()


def layer_names(model: Any, layers: dict[str, str]) -> dict[str, str]:
    """Return the layer of each node that multiplies matrices: by its weights; those with equal ones in their order."""
    left = list(layers.items())
    found = {}
    for node in model.graph.node:
        if node.op_type.startswith(MATRICES) and len(node.input) > 1:
            weights = model.get_initializer(node.input[1])
            wanted = None if weights is None else digest(weights)
            match = next((item for item in left if item[1] == wanted), None)
            if match is not None:
                left.remove(match)
                found[node.name] = match[0]
    return found


def software(model: Any, names: dict[str, str]) -> list[dict[str, str]]:
    """Return the nodes that are no hardware, each with its layer or the last one before it.

    What stands at the network's input alone, such as a change of layout, is outside of the hardware anyhow.
    """
    from qonnx.custom_op.registry import getCustomOp

    found: list[dict[str, str]] = []
    before = ""
    hardware_seen = False
    for node in model.graph.node:
        is_hardware = node.domain.startswith("finn.custom_op.fpgadataflow") or (
            node.op_type.startswith(("MVAU", "VVAU")) and hasattr(getCustomOp(node), "get_exp_cycles")
        )
        layer = names.get(node.name, "")
        if not is_hardware and (hardware_seen or layer or node.op_type not in ("Transpose", "Reshape", "Flatten")):
            found.append({"name": node.name, "type": node.op_type, "layer": layer, "after": before})
        hardware_seen = hardware_seen or is_hardware
        before = layer or before
    return found


def run(model: Any, samples: Any) -> Any:
    """Run the network on samples, one after the other."""
    import numpy
    from qonnx.core.onnx_exec import execute_onnx

    given, made = model.graph.input[0].name, model.graph.output[0].name
    return numpy.concatenate([execute_onnx(model, {given: samples[i : i + 1]})[made] for i in range(len(samples))])


def read_reports(folder: Path) -> dict[str, Any]:
    """Return FINN's reports by kind."""
    files = {
        "cycles": "estimate_layer_cycles",
        "resources": "estimate_layer_resources",
        "counts": "op_and_param_counts",
        "performance": "estimate_network_performance",
    }
    return {kind: json.loads((folder / "report" / f"{file}.json").read_text()) for kind, file in files.items()}


def build(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the steps on one model and return what FINN reports of every node."""
    import numpy
    from finn.builder import build_dataflow_steps as steps  # type: ignore[import-not-found]
    from finn.builder.build_dataflow_config import DataflowBuildConfig, DataflowOutputType, estimate_only_dataflow_steps  # type: ignore[import-not-found]
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
    model, outputs = ModelWrapper(request["model"]), None
    for name in estimate_only_dataflow_steps:
        if name == "step_specialize_layers" and request["style"] != "auto":
            for node in model.graph.node:
                if node.op_type in ("MVAU", "VVAU"):
                    getCustomOp(node).set_nodeattr("preferred_impl_style", request["style"])
        try:
            model = getattr(steps, name)(model, config)
        except Exception as error:
            message = (str(error).strip() or type(error).__name__).splitlines()[0]
            return {"failed": name, "message": message, "software": software(model, layer_names(model, request.get("layers", {})))}
        if name == "step_streamline" and request.get("samples"):
            outputs = str(folder / "streamlined_outputs.npy")
            numpy.save(outputs, run(model, numpy.load(request["samples"])))
        if name == "step_convert_to_hw" and "layers" in request:
            left = software(model, layer_names(model, request["layers"]))
            if left:
                return {"failed": name, "message": "operators stay in software", "software": left}
    names = layer_names(model, request.get("layers", {}))
    read = read_reports(folder)
    nodes = []
    for node in model.graph.node:
        operator = getCustomOp(node)
        known = operator.get_nodeattr_types()
        nodes.append(
            {
                "name": node.name,
                "type": node.op_type,
                "layer": names.get(node.name, ""),
                "attributes": {key: plain(operator.get_nodeattr(key)) for key in ATTRIBUTES if key in known},
                "cycles": read["cycles"].get(node.name),
                "resources": read["resources"].get(node.name, {}),
                "counts": read["counts"].get(node.name, {}),
            }
        )
    return {"nodes": nodes, "performance": read["performance"], "outputs": outputs}


def main() -> None:
    """Answer the request."""
    requests = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        logging.disable(logging.CRITICAL)
        replies = []
        for number, request in enumerate(requests):
            folder = Path(request.get("folder") or Path(made) / str(number))
            folder.mkdir(parents=True, exist_ok=True)
            replies.append(build(request, folder))
    Path(sys.argv[2]).write_text(json.dumps(replies))


if __name__ == "__main__":
    main()
