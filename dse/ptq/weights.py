"""Weights prepared by steps, kept in memory and on disk by the content of everything that they depend on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from dse import results
from dse.definitions import definitions
from dse.network import Network
from dse.ptq import archive, steps
from dse.ptq.blocks import blocks
from dse.ptq.capture import operands
from dse.ptq.low_rank import LowRankCompensation
from dse.ptq.step import BlockStep, LayerData, LayerStep, PreparedWeight
from formats.errors import BitatlasError
from formats.quantizer import Quantizer
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.files import cache_directory

#: calibration samples that steps look at
SAMPLES = 256
#: bytes of operands that are kept for the next format of the same layer
KEPT_BYTES = 1 << 29


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a weight is stored: its quantizer, and the text forms of the steps that prepare it."""

    quantizer: TensorQuantizer
    steps: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
        """The steps before the block's, the block's own where there is one, and those after it."""
        found = [number for number, text in enumerate(self.steps) if steps.scope_of(steps.parse(text)) == "block"]
        if not found:
            return self.steps, None, ()
        return self.steps[: found[0]], self.steps[found[0]], self.steps[found[0] + 1 :]


class Made(NamedTuple):
    """A prepared weight, and in words all that it was made by."""

    history: str
    weight: PreparedWeight


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightPreparer:
    """Prepares the weights of one network from one set of calibration samples."""

    network: Network
    #: float32 of shape (N, …); steps look at the first ``SAMPLES``
    images: NDArray[np.float32]
    #: of the calibration split
    digest: str
    folder: Path = field(default_factory=lambda: cache_directory() / "weights")
    _known: dict[str, Made] = field(default_factory=dict)
    #: what steps look at, by layer, the oldest first; with it live the moments of the operands
    _data_of: dict[str, LayerData] = field(default_factory=dict)

    @cached_property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """The layers of each block, by name."""
        return blocks(self.network)

    def prepare(self, recipes: Mapping[str, Recipe]) -> dict[str, Made]:
        """Return what is stored for each layer, by name; what was made before, in this run or another, is looked up.

        Errors name the layer.
        """
        made = {name: self._run(name, recipe.quantizer, None, recipe.parts[0]) for name, recipe in recipes.items()}
        for text in sorted({recipe.parts[1] or "" for recipe in recipes.values()} - {""}):
            for block in self.blocks:
                names = [name for name in block if name in recipes and recipes[name].parts[1] == text]
                if names:
                    made |= self._run_block(text, {name: recipes[name].quantizer for name in names}, made)
        return {name: self._run(name, recipe.quantizer, made[name], recipe.parts[2]) for name, recipe in recipes.items()}

    def _run(self, name: str, quantizer: TensorQuantizer, start: Made | None, texts: Sequence[str]) -> Made:
        """Run a layer's steps one after the other, from the nearest codes where there is no start."""
        # the definitions of formats are part of it: a user's name may come to mean something else
        begun = start.history if start else f"{name}: {quantizer} {definitions([quantizer, *_factors(texts)])[:16]}"
        history = f"{begun} {steps.row(texts) if texts else ''}".rstrip()
        if start is not None and not texts:
            return start
        if history not in self._known:
            path = self._path(history)
            if texts and path.exists():
                self._known[history] = Made(history, archive.read(path, history))
            else:
                self._known[history] = Made(history, self._made(name, quantizer, start, texts))
                if texts:
                    archive.write(path, self._known[history].weight, history)
        return self._known[history]

    def _made(self, name: str, quantizer: TensorQuantizer, start: Made | None, texts: Sequence[str]) -> PreparedWeight:
        layer = self.network.layer(name)
        assert layer.weight is not None
        weight = start.weight if start else PreparedWeight(encoded=quantizer.encode(layer.weight))
        if texts:
            data = self._data(name)
            for text in texts:
                with naming(name):
                    weight = cast(LayerStep, steps.parse(text, "layer")).apply(data, quantizer, weight)
        return weight

    def _data(self, name: str) -> LayerData:
        if name not in self._data_of:
            inputs = operands(self.network, [name], self.images[:SAMPLES])[name]
            network = self.network
            data = LayerData(layer=network.layer(name), node=network.node(name), bias=network.bias(name), inputs=inputs)
            kept = self._data_of
            while kept and sum(one.inputs.nbytes for one in kept.values()) + inputs.nbytes > KEPT_BYTES:
                del kept[next(iter(kept))]
            kept[name] = data
        return self._data_of[name]

    def _run_block(self, text: str, quantizers: Mapping[str, TensorQuantizer], made: Mapping[str, Made]) -> dict[str, Made]:
        """Run a step that takes the layers of a block at once; what becomes of one depends on all of them."""
        histories = " | ".join(made[name].history for name in quantizers)
        keys = {name: f"{name} of {histories}: {text}" for name in quantizers}
        paths = {name: self._path(key) for name, key in keys.items()}
        if not all(key in self._known for key in keys.values()):
            if not all(path.exists() for path in paths.values()):
                step = cast(BlockStep, steps.parse(text, "block"))
                held = {name: made[name].weight for name in quantizers}
                with naming(", ".join(quantizers)):
                    found = step.apply(self.network, list(quantizers), quantizers, held, self.images[:SAMPLES])
                for name, path in paths.items():
                    archive.write(path, found[name], keys[name])
            self._known.update({keys[name]: Made(keys[name], archive.read(path, keys[name])) for name, path in paths.items()})
        return {name: self._known[key] for name, key in keys.items()}

    def _path(self, history: str) -> Path:
        key = results.key(self.network.digest, self.digest, str(SAMPLES), history)
        return self.folder / key[:2] / f"{key}.npz"


def _factors(texts: Sequence[str]) -> list[TensorQuantizer]:
    """Return the quantizers that options of steps name."""
    found = [step for step in map(steps.parse, texts) if isinstance(step, LowRankCompensation)]
    return [Quantizer.parse(step.factors, granularity="channel") for step in found]


@contextmanager
def naming(layer: str) -> Iterator[None]:
    """Name the layer in errors that do not."""
    try:
        yield
    except BitatlasError as error:
        if layer in str(error):
            raise
        raise type(error)(f"{error} (layer {layer!r})") from None
