"""A float network and its data by name: the zoo's, or the user's own as ``package.module:factory``."""

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dse import data
from dse.data import Dataset
from dse.models import zoo
from formats.errors import BitatlasError, InvalidValueError
from formats.names import unknown_name


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What is quantized: a float network in evaluation mode, and the data it is measured on."""

    model: str
    module: nn.Module
    dataset: Dataset


def load(model: str, data_name: str | None, data_dir: Path | None = None) -> Subject:
    """Load a network of the zoo on a named data set (``digits`` if none is named), or call the user's factory.

    A factory takes no argument and returns ``(module, dataset)``; a data set named beside it takes its own's place.
    """
    if ":" in model:
        module, dataset = _call_factory(model)
        if data_name is not None and data_name != dataset.name:
            dataset = data.load(data_name, data_dir)
        return Subject(model=model, module=module.eval(), dataset=dataset)
    if model not in zoo.ARCHITECTURES:
        raise unknown_name("model", model, zoo.ARCHITECTURES, see="; or your own as package.module:factory")
    dataset = data.load(data_name or "digits", data_dir)
    return Subject(model=model, module=zoo.load(model, dataset), dataset=dataset)


def _call_factory(model: str) -> tuple[nn.Module, Dataset]:
    module_name, _, function_name = model.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look in the working folder by itself
    try:
        source = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise InvalidValueError(
            f"--model must name an importable module, not {module_name!r} (looked in {os.getcwd()} too)"
        ) from None
    except ValueError:
        raise InvalidValueError(f"--model must be a zoo name or package.module:factory, not {model!r}") from None
    factory = getattr(source, function_name, None)
    if not callable(factory):
        functions = [name for name, value in vars(source).items() if callable(value) and not name.startswith("_")]
        raise unknown_name(f"factory in {module_name}", function_name, functions)
    made = factory()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], Dataset)):
        raise BitatlasError(f"factory must return (torch.nn.Module, dse.data.Dataset), not {type(made).__name__}: {model}")
    return made
