"""The one way in which loops are compiled here."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` at its first call, keep it on disk, and let it run without the interpreter lock.

    Floating-point arithmetic keeps its order and is not contracted: every operation rounds on its own.
    """
    return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))
