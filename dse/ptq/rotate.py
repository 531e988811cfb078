"""Rotation of channel spaces: outliers are spread over all channels, and what reads them is rotated likewise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dse.network import Network
from dse.ptq.alone import alone
from dse.ptq.hadamard import fixing_ones, flat_matrix
from dse.ptq.norm_folding import folded_norms
from dse.ptq.observe import Floats, observe, second_moments
from dse.ptq.rewrite import Change, require, rewritten, rounded, with_tensors
from dse.ptq.spaces import Reading, Space, spaces
from formats.errors import InvalidValueError
from formats.names import unknown_name

KINDS = ("hadamard", "klt")


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """Replace the vector x of a space's channels by Q x, with an orthogonal Q that spreads each channel over all.

    ``hadamard`` is a Hadamard matrix with random signs of its columns (QuaRot, arXiv 2404.00456). ``klt`` turns the
    channels into their principal components first: with the eigenvectors K of the second moments of what layers read there,
    Q = H K', after which all channels have the same second moment (MambaQuant, arXiv 2501.13484, whose row vectors x become
    x K H). Where a layer norm reads the channels, Q maps the vector of ones to itself: means and variances stay, and the norm's
    result is rotated too; its scale and shift are put into the linear layers after it. Between query and key, and between value
    and output, every head is a space of its own.
    """

    name: ClassVar[str] = "rotate"
    summary: ClassVar[str] = "outliers spread over channels by Hadamard or KLT rotations folded into weights"
    kind: str = "hadamard"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        if self.kind not in KINDS:
            raise unknown_name("kind of rotate", self.kind, KINDS)
        if self.seed < 0:
            raise InvalidValueError(f"seed of rotate must be a whole number of at least 0, not {self.seed}")

    def apply(self, network: Network, images: NDArray[np.float32]) -> Network:
        """Return the network with rotated spaces; ``images`` are what second moments are taken over."""
        norms = folded_norms(network)
        found = spaces(with_tensors(network, rounded(_joined(norms.values()))), "orthogonal")
        require(found, network, self.name, "channels that only linear operators and norms lie between")
        base = _joined(norms[norm] for norm in norms if any(norm in space.norms for space in found))
        generator = np.random.default_rng(self.seed)
        signs = [generator.choice((-1.0, 1.0), space.size) for space in found]
        if self.kind == "hadamard":
            maps = [_hadamard(space, flips) for space, flips in zip(found, signs, strict=True)]
        else:
            observed = observe(with_tensors(network, rounded(base)), found, images, second_moments)
            given = [_joint_moments(network, space, parts) for space, parts in zip(found, observed, strict=True)]
            maps = [_klt(space, moments, flips) for space, moments, flips in zip(found, given, signs, strict=True)]
        changes = [Change(space=space, map=matrix) for space, matrix in zip(found, maps, strict=True)]
        return rewritten(network, changes, images, base)


def _joined(parts: Iterable[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {name: tensor for part in parts for name, tensor in part.items()}


def _hadamard(space: Space, flips: Floats) -> Floats:
    matrix = flat_matrix(space.size) * flips
    return fixing_ones(matrix) if space.keeps_mean else matrix


def _joint_moments(network: Network, space: Space, observed: list[tuple[Reading, Floats]]) -> Floats:
    """Return the second moments of all tensors that carry the channels, each as a share of its power."""
    total, seen = np.zeros((space.size, space.size)), set()
    for reading, parts in observed:
        source, moments = network.layer(reading.layer).operands[reading.place].source, parts.sum(axis=0)  # type: ignore[index]
        if source not in seen and np.trace(moments) > 0:
            total += moments / np.trace(moments)
        seen.add(source)
    return total


def _klt(space: Space, moments: Floats, flips: Floats) -> Floats:
    """Return H K' for the eigenvectors K of second moments; with the vector of ones among them where it must stay."""
    flat = flat_matrix(space.size)
    # the other columns of a matrix with a constant first one are a basis of what is orthogonal to the vector of ones
    basis = flat[:, 1:] if space.keeps_mean else np.eye(space.size)
    with alone():
        inner = torch.from_numpy(basis.T @ moments @ basis)
        vectors = torch.from_numpy(basis) @ torch.linalg.eigh(inner).eigenvectors
        if space.keeps_mean:
            vectors, flips = torch.cat([torch.from_numpy(flat[:, :1]), vectors], 1), np.append(1.0, flips[1:])
        rotated: Floats = (torch.from_numpy(flat * flips) @ vectors.T).numpy()
    return rotated
