"""The trained networks that ship with the project."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dse.data import Dataset
from dse.models import mobilenet, resnet8, vit, weights_file
from formats.errors import InvalidValueError
from formats.names import unknown_name

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network of the zoo: how it is built for a sample shape and a number of classes."""

    name: str
    build: Callable[[tuple[int, ...], int], nn.Module]


ARCHITECTURES = {
    entry.name: entry
    for entry in (
        Architecture(name="resnet8", build=resnet8.build),
        Architecture(name="mobilenet", build=mobilenet.build),
        Architecture(name="vit", build=vit.build),
    )
}


def weights_path(model: str, data: str) -> Path:
    """Return where the shipped weights of ``model`` trained on ``data`` lie."""
    return WEIGHTS_FOLDER / f"{model}-{data}.safetensors"


def build(model: str, dataset: Dataset, seed: int = 0) -> nn.Module:
    """Build ``model`` untrained, initialised from ``seed``."""
    if model not in ARCHITECTURES:
        raise unknown_name("model", model, ARCHITECTURES, see="; or your own as package.module:factory")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[model].build(dataset.sample_shape, dataset.classes)


def load(model: str, dataset: Dataset) -> nn.Module:
    """Build ``model`` and load the weights shipped for ``dataset``, in evaluation mode."""
    module = build(model, dataset)
    path = weights_path(model, dataset.name)
    metadata = weights_file.load_into(module, path)
    if (metadata.get("model"), metadata.get("data")) != (model, dataset.name):
        found = f"{metadata.get('model')} on {metadata.get('data')}"
        raise InvalidValueError(f"weights file must be of {model} on {dataset.name}, not of {found}: {path}")
    return module.eval()
