"""All kernels by name. A module of kernels lists its own as ``KERNELS``; naming the module here makes them known."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from formats.errors import InvalidValueError
from formats.names import unknown_name
from hwmodels.gpu.kernels.kernel import Kernel, Product

__all__ = ["Kernel", "Product", "get", "kernels"]

MODULES = ("baselines", "weight_only_kernels", "integer_kernels", "float8_kernels", "block_kernels", "quantize_kernels")


@cache
def kernels() -> Mapping[str, Kernel]:
    """Return every kernel by its name, in the order of ``MODULES``."""
    found: dict[str, Kernel] = {}
    for module in MODULES:
        for kernel in import_module(f"hwmodels.gpu.kernels.{module}").KERNELS:
            if kernel.name in found:
                raise InvalidValueError(f"name of a kernel must be new, not {kernel.name!r}: {module}")
            found[kernel.name] = kernel
    return MappingProxyType(found)


def get(name: str) -> Kernel:
    """Return the kernel called ``name``; ``KeyError`` names the nearest."""
    if name not in kernels():
        raise unknown_name("kernel", name, kernels())
    return kernels()[name]
