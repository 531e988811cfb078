"""One HLS project: an exported model through hls4ml, compiled by g++ and run."""

import contextlib
import io
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dse.flows import hls4ml_graph, hls4ml_types
from dse.flows.fixed_point import FixedPoint
from dse.flows.hls4ml_types import Precision
from formats.errors import BitatlasError

PROJECT = "network"
#: what hls4ml gives where it has nothing to go by; no type found here is ever as wide, so that it can be told
DEFAULT_PRECISION = "fixed<77,33>"
LIBRARIES = "*.so"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What hls4ml is told beside the network."""

    backend: str = "Vitis"
    interface: str = "io_parallel"
    #: FPGA by the vendor's name; None for hls4ml's own choice
    part: str | None = None
    #: multiplications that share a multiplier
    reuse_factor: int = 1


@dataclass(frozen=True, kw_only=True)
class Types:
    """An operator of the hardware and its types, as hls4ml writes them."""

    name: str
    kind: str
    types: dict[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Project:
    """A written project."""

    model: Any
    folder: Path
    operators: tuple[Types, ...]
    #: type of the input
    input: FixedPoint
    #: what hls4ml and g++ said
    log: io.StringIO
    conversion_seconds: float
    channels_last: bool

    def compile(self) -> float:
        """Compile the project by g++ and return the seconds that it took. Raises ``BitatlasError`` where that fails."""
        start = time.monotonic()
        try:
            with _quiet(self.log):
                self.model.compile()
        except Exception as error:
            raise BitatlasError(f"project must be compiled by g++, not fail: {_last_line(self.log.getvalue(), error)}") from error
        return time.monotonic() - start

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the compiled project on (N, …) samples and return its outputs, float32 of shape (N, classes)."""
        ordered = images.transpose(0, 2, 3, 1) if self.channels_last else images
        with _quiet(self.log):
            return np.asarray(self.model.predict(np.ascontiguousarray(ordered)), np.float32).reshape(len(images), -1)

    def tidy(self, place: Path) -> None:
        """Remove what only this process needs, and let the project know ``place`` as its folder."""
        for library in (self.folder / "firmware").glob(LIBRARIES):
            library.unlink()
        config = self.folder / "hls4ml_config.yml"
        config.write_text(config.read_text(encoding="utf-8").replace(str(self.folder), str(place)), encoding="utf-8")


def write(model: onnx.ModelProto, settings: Settings, samples: NDArray[np.float32], folder: Path) -> Project:
    """Convert an exported QONNX model and write the project to ``folder``; ``samples`` tell the range of an unrounded input.

    Raises ``BitatlasError`` where hls4ml refuses, and where it leaves a type to its default.
    """
    import hls4ml

    start, log = time.monotonic(), io.StringIO()
    found = hls4ml_graph.prepare(model)
    prepared = found.model
    given = hls4ml_types.input_type(prepared, samples)
    try:
        with _quiet(log):
            config = hls4ml.utils.config_from_onnx_model(
                prepared,
                granularity="name",
                backend=settings.backend,
                default_precision=DEFAULT_PRECISION,
                default_reuse_factor=settings.reuse_factor,
            )
            _give(config, hls4ml_types.precisions(prepared, given.type))
            config["LayerName"][prepared.graph.input[0].name]["Precision"] = {"result": given.text}
            made = hls4ml.converters.convert_from_onnx_model(
                prepared,
                output_dir=str(folder),
                project_name=PROJECT,
                backend=settings.backend,
                io_type=settings.interface,
                hls_config=config,
                **({} if settings.part is None else {"part": settings.part}),
            )
            made.write()
    except BitatlasError:
        raise
    except Exception as error:
        raise BitatlasError(f"network must be converted by hls4ml, not refused: {_last_line('', error)}") from error
    operators = tuple(_types(layer) for layer in made.get_layers())
    _refuse_defaults(operators)
    seconds = time.monotonic() - start
    return Project(
        model=made,
        folder=folder,
        operators=operators,
        input=given.type,
        log=log,
        conversion_seconds=seconds,
        channels_last=found.channels_last,
    )


def _give(config: dict[str, Any], precisions: dict[str, Precision]) -> None:
    for name, types in precisions.items():
        config["LayerName"][name].setdefault("Precision", {}).update(types)


def _types(layer: Any) -> Types:
    found = {name: re.sub(r",0>$", ">", str(kind.precision)) for name, kind in layer.types.items()}
    # tables and indices belong to functions that are not used here
    unused = {"table_t", "index_t"}
    bias = layer.weights.get("bias")
    if bias is not None and not np.any(bias.data):
        unused.add("bias_t")  # what hls4ml puts in where a layer has none: zeros, whatever their type
    kept = {name.removesuffix("_t"): text for name, text in found.items() if name not in unused}
    return Types(name=layer.name, kind=layer.class_name, types=kept)


def _refuse_defaults(operators: tuple[Types, ...]) -> None:
    for operator in operators:
        for name, text in operator.types.items():
            if text.startswith(DEFAULT_PRECISION.removesuffix(">")):
                place = f"({operator.name}, {name})"
                raise BitatlasError(f"type of every value must follow from the graph, not be left to hls4ml's default {place}")


@contextlib.contextmanager
def _quiet(log: io.StringIO) -> Iterator[None]:
    """Keep hls4ml's reports on its progress in ``log``."""
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _last_line(said: str, error: Exception) -> str:
    lines = [line for line in said.splitlines() if "error" in line.lower()] or [str(error) or type(error).__name__]
    return lines[0].strip()[:300]
