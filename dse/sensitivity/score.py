"""Scores of every option of every group, by either method, batch by batch."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dse.batches import map_batches, processor_count
from dse.network import Network
from dse.sensitivity import gradient, solo
from dse.sensitivity.groups import FillingsOf, Group, Losses, all_fillings, check
from dse.sensitivity.store import refuse_stale
from dse.settings import Fingerprint
from formats.errors import InvalidValueError
from formats.names import unknown_name
from hwmodels.files import write_text

METHODS = ("gradient", "gradient-diagonal", "solo")
BATCH = 128


def score(
    network: Network,
    groups: Sequence[Group],
    fillings_of: FillingsOf,
    images: NDArray[np.float32],
    *,
    method: str = "gradient",
    seed: int = 0,
    batch: int = BATCH,
    partial_file: Path | None = None,
    fingerprint: Fingerprint | None = None,
) -> Losses:
    """Return the mean divergence in nats per sample of every option of every group, all other groups float.

    ``images`` is (N, …) float32. ``gradient`` estimates it to second order from one forward and backward pass and one run of each
    layer by itself for each option; ``gradient-diagonal`` takes errors of single elements for independent; ``solo`` runs the rest
    of the network for each option, and is exact. ``seed`` draws the gradient's labels. Results are the same for any number of
    threads.

    Batches that are done are kept in ``partial_file``, where one is given with the fingerprint of what they depend on, and not done
    again after an interruption; the file is removed at the end.
    """
    if method not in METHODS:
        raise unknown_name("method of sensitivities", method, METHODS)
    if not len(images):
        raise InvalidValueError("samples must be at least one, not none")
    check(network, groups)
    fillings = all_fillings(groups, fillings_of)
    parts = _Parts(partial_file, fingerprint, batch)
    starts = [start for start in range(0, len(images), batch) if start not in parts.done]

    def one(start: int) -> list[NDArray[np.float64]]:
        part = images[start : start + batch]
        if method == "solo":
            return solo.batch_scores(network, groups, fillings, part)
        form: gradient.Form = "full" if method == "gradient" else "diagonal"
        return gradient.batch_scores(network, groups, fillings, part, (seed, start), form)

    width = processor_count()
    with tqdm(total=-(-len(images) // batch), initial=len(parts.done), desc=f"sensitivity ({method})", disable=None) as bar:
        for first in range(0, len(starts), width):
            at_once = starts[first : first + width]
            parts.add(dict(zip(at_once, map_batches(one, at_once), strict=True)))
            bar.update(len(at_once))
    totals = [sum(parts.done[start][group] for start in sorted(parts.done)) for group in range(len(groups))]
    parts.remove()
    return tuple(np.asarray(total / len(images), np.float64) for total in totals)


class _Parts:
    """Sums over the batches that are done, by their first sample, in a file where there is one."""

    def __init__(self, path: Path | None, fingerprint: Fingerprint | None, batch: int) -> None:
        self._path = path
        self.done: dict[int, list[NDArray[np.float64]]] = {}
        if path is None:
            return
        if fingerprint is None:
            raise InvalidValueError("fingerprint must be given with a file for what is done, not left out")
        self._fingerprint = Fingerprint(parts={**fingerprint.parts, "batch": str(batch)})
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            refuse_stale(Fingerprint(parts=content["fingerprint"]), self._fingerprint, path)
            self.done = {int(start): [np.array(part) for part in parts] for start, parts in content["batches"].items()}

    def add(self, batches: dict[int, list[NDArray[np.float64]]]) -> None:
        self.done |= batches
        if self._path is not None:
            content = {start: [part.tolist() for part in parts] for start, parts in self.done.items()}
            write_text(self._path, json.dumps({"fingerprint": dict(self._fingerprint.parts), "batches": content}))

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
