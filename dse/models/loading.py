"""A float network and its data by name: the zoo's, the user's own as ``package.module:factory``, or one of an ONNX file."""

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from dse import data
from dse.data import Dataset
from dse.models import zoo
from formats.errors import BitatlasError, InvalidValueError
from formats.names import unknown_name

#: ending of the files that hold a network
ONNX = ".onnx"


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is quantized: a float network in evaluation mode, and the data it is measured on."""

    model: str
    module: nn.Module
    dataset: Dataset


def load(model: str, data_name: str | None, data_dir: Path | None = None) -> Subject:
    """Load a network of the zoo or of an ONNX file on a named data set (``digits`` if none is named), or call the user's factory.

    A quantized ONNX model gives the float network of its weights' values, without the quantizers before its layers. A factory
    takes no argument and returns ``(module, dataset)``; a data set named beside it takes its own's place.
    """
    if Path(model).suffix.lower() == ONNX:
        from dse.imports.model import read

        dataset = data.load(data_name or "digits", data_dir)
        return of_module(model, read(Path(model)).module, dataset)
    if ":" in model:
        module, dataset = _call_factory(model)
        if data_name is not None and data_name != dataset.name:
            dataset = data.load(data_name, data_dir)
        return of_module(model, module, dataset)
    if model not in zoo.ARCHITECTURES:
        raise unknown_name("model", model, zoo.ARCHITECTURES, see="; or your own as package.module:factory, or FILE.onnx")
    dataset = data.load(data_name or "digits", data_dir)
    return Subject(model=model, module=zoo.load(model, dataset), dataset=dataset)


def of_module(model: str, module: nn.Module, dataset: Dataset) -> Subject:
    """Return a user's module as a subject; raises ``BitatlasError`` where it does not fit the data."""
    _check_module(model, module.eval(), dataset)
    return Subject(model=model, module=module, dataset=dataset)


def _check_module(model: str, module: nn.Module, dataset: Dataset) -> None:
    """Refuse a network whose parameters are not float32 or that does not give logits for its own samples."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InvalidValueError(f"parameters must be float32, not {tensor.dtype} in {name!r}; call .float(): {model}")
    samples = torch.from_numpy(dataset.validation.images[:2])
    try:
        with torch.no_grad():
            logits = module(samples)
    except Exception as error:  # whatever the user's own code raises
        shape = tuple(dataset.sample_shape)
        raise BitatlasError(f"model must run on samples of shape {shape}, not fail ({_first_line(error)}): {model}") from error
    wanted = f"a tensor of shape ({len(samples)}, {dataset.classes})"
    if not isinstance(logits, torch.Tensor):
        raise InvalidValueError(f"model must return {wanted} for {len(samples)} samples, not {type(logits).__name__}: {model}")
    if tuple(logits.shape) != (len(samples), dataset.classes):
        raise InvalidValueError(f"model must return {wanted} for {len(samples)} samples, not {tuple(logits.shape)}: {model}")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _import(module_name: str, model: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.startswith(error.name):
            looked = f"(looked in {os.getcwd()} too)"
            raise InvalidValueError(f"--model must name an importable module, not {module_name!r} {looked}") from None
        raise BitatlasError(f"module of --model must be importable, not fail ({_first_line(error)}): {model}") from error
    except (ValueError, TypeError) as error:
        if module_name.strip(".") != module_name or not module_name:
            raise InvalidValueError(f"--model must be a zoo name or package.module:factory, not {model!r}") from None
        raise BitatlasError(f"module of --model must be importable, not fail ({_first_line(error)}): {model}") from error
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise BitatlasError(f"module of --model must be importable, not fail ({_first_line(error)}): {model}") from error


def _call_factory(model: str) -> tuple[nn.Module, Dataset]:
    module_name, _, function_name = model.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look in the working folder by itself
    source = _import(module_name, model)
    factory = getattr(source, function_name, None)
    if not callable(factory):
        functions = [name for name, value in vars(source).items() if callable(value) and not name.startswith("_")]
        raise unknown_name(f"factory in {module_name}", function_name, functions)
    try:
        made = factory()
    except BitatlasError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise BitatlasError(f"factory must return a model and its data, not fail ({_first_line(error)}): {model}") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], Dataset)):
        raise BitatlasError(f"factory must return (torch.nn.Module, dse.data.Dataset), not {type(made).__name__}: {model}")
    return made
