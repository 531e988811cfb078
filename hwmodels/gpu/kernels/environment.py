"""Where kernels run: on a CUDA device that their tensor cores are made for, or in Triton's interpreter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import triton
from triton.runtime.interpreter import InterpretedFunction

from formats.errors import InvalidValueError

#: least compute capability: bfloat16 on tensor cores
LEAST_CAPABILITY = (8, 0)
FLOAT8_CAPABILITY = (8, 9)


@triton.jit
def _probe():  # type: ignore[no-untyped-def]
    """Show by its type what ``triton.jit`` makes of functions."""


#: whether kernels are interpreted: settled when they are first imported
INTERPRETED = isinstance(_probe, InterpretedFunction)


def device() -> torch.device:
    """Return where operands of kernels lie; ``ValueError`` without a CUDA device of at least compute capability 8.0."""
    if INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        slowly = "TRITON_INTERPRET=1, set beforehand, runs it slowly in the interpreter"
        raise InvalidValueError(f"a GPU kernel must run on CUDA, not without: torch finds no device; {slowly}")
    found = torch.device("cuda", torch.cuda.current_device())
    check_capability(torch.cuda.get_device_name(found), torch.cuda.get_device_capability(found))
    return found


def check_float8(x: torch.Tensor) -> None:
    """Refuse a device whose tensor cores lack float8."""
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < FLOAT8_CAPABILITY:
        name, found = torch.cuda.get_device_name(x.device), ".".join(map(str, torch.cuda.get_device_capability(x.device)))
        raise InvalidValueError(f"compute capability for float8 must be at least 8.9, not {found}: {name}")


def check_capability(name: str, capability: tuple[int, int]) -> None:
    """Refuse a device whose tensor cores lack bfloat16."""
    if capability < LEAST_CAPABILITY:
        least, found = (".".join(map(str, version)) for version in (LEAST_CAPABILITY, capability))
        raise InvalidValueError(f"compute capability of a GPU must be at least {least}, not {found}: {name}")


_COMPILING = False


def launcher(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """Return what launches a kernel on a grid: or only compiles it, within ``compiling``."""
    return partial(kernel.warmup, grid=grid) if _COMPILING and not INTERPRETED else kernel[grid]


@contextmanager
def compiling() -> Iterator[None]:
    """Within it nothing runs on the device and results hold anything: kernels are compiled, by several threads at a time."""
    global _COMPILING
    _COMPILING = True
    try:
        yield
    finally:
        _COMPILING = False


def is_compiling() -> bool:
    """Whether kernels are only compiled."""
    return _COMPILING


@cache
def multiprocessors() -> int:
    """Return how many multiprocessors the device has; 1 in the interpreter, which runs one program at a time."""
    return 1 if INTERPRETED else torch.cuda.get_device_properties(device()).multi_processor_count
