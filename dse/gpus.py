"""Which GPUs a user's objectives and bounds name, as in ``latency_us@h100``, and their cost models."""

import re
from collections.abc import Iterable

from formats.errors import InvalidValueError
from hwmodels.cost import CostModel
from hwmodels.gpu import devices
from hwmodels.gpu.latency import latency


def named(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names after an ``@``, each once, in the order of their first mention."""
    return tuple(dict.fromkeys(name for text in texts for name in re.findall(r"@(\w+)", text)))


def models(names: Iterable[str], batch: int = 1) -> tuple[CostModel, ...]:
    """Return the cost model of each device for a batch of samples; ``KeyError`` for an unknown device names the nearest."""
    if batch < 1:
        raise InvalidValueError(f"--batch must be at least 1, not {batch}")
    return tuple(latency(devices.get(name), batch) for name in names)
