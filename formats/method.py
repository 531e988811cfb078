"""Quantization methods by name: what is more than a registered format with scales. Registering one lets every text name it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError, UnknownNameError
from formats.format import Format
from formats.granularity import TENSOR, Granularity
from formats.tensor_quantizer import EncodedTensor, StorageBits


@dataclass(frozen=True, kw_only=True)
class MethodQuantizer(ABC):
    """A quantizer with codes or levels of its own; its text form is ``NAME:GRANULARITY``, such as ``tritplanes:group128``."""

    granularity: Granularity = TENSOR

    @property
    @abstractmethod
    def name(self) -> str:
        """First part of the text form."""

    @property
    @abstractmethod
    def width(self) -> float:
        """Bits of code for one value."""

    @abstractmethod
    def encode(self, x: NDArray[np.float32]) -> EncodedTensor:
        """Quantize a tensor."""

    @abstractmethod
    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits that a tensor of ``shape`` takes."""

    def __str__(self) -> str:
        """Return the text form."""
        return f"{self.name}:{self.granularity}"

    @property
    def format(self) -> Format:
        """No method has one table for all tensors."""
        raise InvalidValueError(f"quantizer must write the codes of one format here, such as int4:channel:mse, not {self}")

    @property
    def formats(self) -> tuple[Format, ...]:
        """Registered formats that it writes the codes of."""
        return ()

    @property
    def static(self) -> bool:
        """Whether ``fit`` gives one format and one scale."""
        return False

    def per_tensor(self) -> "MethodQuantizer":
        """Return the same for the whole tensor."""
        return replace(self, granularity=TENSOR)

    def fit(self, sample: NDArray[Any]) -> tuple[Format, float]:
        """Refuse: a method that can do it says so."""
        raise InvalidValueError(f"quantizer of an activation must come down to one format and one scale, not be {self}")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Methods whose names differ in numbers only, named by a pattern such as ``tanq{b}``.

    ``build`` takes the numbers in that order, and the granularity.
    """

    pattern: str
    build: Callable[..., MethodQuantizer]
    #: label, smallest and largest value of each number
    ranges: tuple[tuple[str, int, int], ...] = ()

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers in ``name``, or None where it is no name of this method."""
        expression = re.sub(r"\\{\w+\\}", r"(0|[1-9][0-9]{0,2})", re.escape(self.pattern))
        match = re.fullmatch(expression, name)
        return None if match is None else tuple(int(group) for group in match.groups())

    def name(self, numbers: tuple[int, ...]) -> str:
        """Return the name with these numbers."""
        return self.pattern.format(**{label: number for (label, _, _), number in zip(self.ranges, numbers, strict=True)})

    def quantizer(self, numbers: tuple[int, ...], granularity: Granularity) -> MethodQuantizer:
        """Return the quantizer. Raises ``KeyError`` for a number out of its range, naming the nearest valid name."""
        nearest = tuple(min(max(n, low), high) for n, (_, low, high) in zip(numbers, self.ranges, strict=True))
        for number, (label, low, high) in zip(numbers, self.ranges, strict=True):
            if not low <= number <= high:
                limits = f"{label} of quantizer {self.pattern} must be {low} to {high}"
                raise UnknownNameError(f"{limits}, not {number}; nearest: {self.name(nearest)}")
        if granularity.name == "block":
            raise InvalidValueError(
                f"granularity of {self.name(numbers)} must be tensor, channel, group{{n}} or block{{r}}x{{c}}, not block; "
                f"nearest: {self.name(numbers)}:group32"
            )
        return self.build(*numbers, granularity=granularity)


METHODS: list[Method] = []


def register_method(method: Method) -> None:
    """Make the quantizers of ``method`` known by name to ``Quantizer.parse``."""
    if any(known.pattern == method.pattern for known in METHODS):
        raise InvalidValueError(f"pattern of a method must be new, not already registered: {method.pattern}")
    METHODS.append(method)


def method_names() -> list[str]:
    """Every registered name or pattern."""
    return [method.pattern for method in METHODS]


def find_method(name: str) -> tuple[Method, tuple[int, ...]] | None:
    """Return the method that ``name`` names, with the numbers in it, or None."""
    for method in METHODS:
        numbers = method.numbers(name)
        if numbers is not None:
            return method, numbers
    return None


def method_examples() -> list[str]:
    """Return names worth suggesting."""
    return [method.name(tuple(low + (high - low) // 2 for _, low, high in method.ranges)) for method in METHODS]
