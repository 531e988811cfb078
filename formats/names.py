"""Nearest valid names, for error messages."""

import difflib
from collections.abc import Iterable

from formats.errors import UnknownNameError


def unknown_name(what: str, name: str, valid: Iterable[str], *, see: str = "") -> UnknownNameError:
    """Build the error for an unknown ``name``: the nearest valid names first, all of them where they are few."""
    valid = list(valid)
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5) or difflib.get_close_matches(
        name.lower(), valid, n=3, cutoff=0.5
    )
    if near:
        choice = "nearest: " + ", ".join(near)
    elif len(valid) <= 12:
        choice = "valid: " + ", ".join(valid)
    else:
        choice = "for example: " + ", ".join(valid[:6])
    return UnknownNameError(f"{what} must be a known name, not {name!r}; {choice}{see}")
