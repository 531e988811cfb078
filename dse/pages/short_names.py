"""Quantizers in few letters, for pictures and labels: the format's name, and what else is said only where it is not the default."""

from dse.assignment import DEFAULTS
from dse.network import ROLES


def short(text: str) -> str:
    """Return ``int4`` for ``int4:channel:mse``, the default of weights, or ``int4:tensor:mse``, that of activations."""
    name, _, rest = text.partition(":")
    return name if rest in {":".join(DEFAULTS[role]) for role in ROLES} or rest == "block:absmax" else text
