"""The one way in which loops are compiled here."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` at its first call, keep it on disk, and let it run without the interpreter lock.

    Floating-point arithmetic keeps its order and is not contracted: every operation rounds on its own.
    """
    dispatcher: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    # numba compiles anew where a function's own file has changed, not where one has that it calls; here any will do
    dispatcher._cache._cache_file._source_stamp = sources()
    return cast(Function, dispatcher)


@cache
def sources() -> str:
    """Return a digest of every file of this package that holds compiled functions."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        content = path.read_bytes()
        if b"@compiled" in content:
            digest.update(content)
    return digest.hexdigest()
