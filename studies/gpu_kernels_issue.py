"""What compiled kernels have to issue, as a section of the report: predicted from their machine code, without a GPU."""

from pathlib import Path

import pandas as pd

from formats.errors import MissingPackageError, require
from hwmodels.files import write_text
from hwmodels.gpu import devices
from hwmodels.gpu.devices import GpuDevice
from studies import provenance

HEADING = "## What the compiled kernels have to issue"
DEVICE = "h100"


def file_name(device: GpuDevice) -> str:
    """Return the name of a device's table, which says that nothing in it was measured."""
    return f"predicted_issue_{device.name}.csv"


def section(out: Path, *, quick: bool = False) -> list[str]:
    """Return the section's lines, and write its table beside the report; without Triton one line says so.

    ``quick`` compiles one format of each kind instead of all, which take half a minute.
    """
    try:
        require("triton", "what compiled kernels have to issue", "gpu")
    except MissingPackageError as error:
        return [HEADING, "", f"Not told here: {error}.", ""]
    from hwmodels.gpu.kernels import issue
    from studies import gpu_kernels_issue_data as data

    device = devices.get(DEVICE)
    kernels = data.asked(data.WEIGHTS[:1], data.QUANTIZED[:1]) if quick else data.asked()
    print(f"compiling {len(kernels)} kernels")
    table = data.predictions(kernels, device)
    write_text(out / file_name(device), table.to_csv(index=False))
    return [HEADING, "", *_page(table, device, issue.clock(device) / 1e9)]


def _page(table: pd.DataFrame, device: GpuDevice, gigahertz: float) -> list[str]:
    compiler, name = f"Triton {table['triton'].iloc[0]}", file_name(device)
    return [
        f"**Predictions, never measured**, for {device.product}: counted in the machine code of kernels that {compiler} compiled "
        "without a GPU. A multiprocessor issues one instruction of a warp in a cycle from each of four schedulers, so what a "
        "loop has to issue is a least time. It is given as a share of the time in which the memory delivers the codes and "
        "scales that the loop reads (of quantizers: all that they read and write), or in which the tensor cores multiply its "
        "tile. **Above 1 the kernel cannot reach the rate of the memory, or of the tensor cores; below 1 nothing follows**, "
        f"since instructions also wait, and some take longer than they are issued. Cycles are those of {gigahertz:.2f} GHz, at "
        "which the tensor cores reach the data sheet's peak: a card that clocks higher has as many more for each byte, so 1.05 "
        f"times the memory's time is no verdict. All figures, with tiles and shared memory: [{name}]({name}).",
        "",
        "One row of bfloat16 times weights:",
        "",
        provenance.markdown(_told(table, "weight_only_gemv", "weight", "issue / memory cycles")),
        "",
        f"{table['rows'].max()} rows, each decoded weight being multiplied as often as a tile has rows:",
        "",
        provenance.markdown(_told(table, "weight_only_gemm", "weight", "issue / tensor-core cycles")),
        "",
        "Quantizers of bfloat16, with scales that are found in the same pass:",
        "",
        provenance.markdown(_told(table, "quantize", "number", "issue / memory cycles")),
        "",
    ]


def _told(table: pd.DataFrame, kernel: str, what: str, share: str) -> pd.DataFrame:
    """Return what the report tells of one kernel."""
    part = table[table["kernel"] == kernel].round(2)
    names = {"instructions a number": f"instructions a {what}"}
    return part[["format", "group", "instructions a number", share, "registers", "spilled bytes"]].rename(columns=names)
