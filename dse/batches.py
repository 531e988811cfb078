"""Samples in batches, batches in threads: each thread runs whole batches with one torch thread.

Splitting by batch keeps every processor busy through small operators and quantizers alike, and makes figures independent of how
many processors there are, since no sum is ever split.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from formats.threads import count_from_environment, not_shared

Item = TypeVar("Item")
Result = TypeVar("Result")


def processor_count() -> int:
    """Return how many batches run at a time: ``$BITATLAS_THREADS``, else one for each usable processor."""
    return count_from_environment("BITATLAS_THREADS")


def map_batches(function: Callable[[Item], Result], batches: Sequence[Item], workers: int | None = None) -> list[Result]:
    """Return the function's results for all batches, in order; it runs in inference mode and must be safe to run in threads."""
    workers = min(workers or processor_count(), len(batches))
    return list(_pool(workers).map(lambda batch: _one(function, batch), batches))


def _one(function: Callable[[Item], Result], batch: Item) -> Result:
    with torch.inference_mode(), not_shared():
        return function(batch)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    # torch's number of threads is a property of the thread that calls it
    return ThreadPoolExecutor(workers, thread_name_prefix="batches", initializer=torch.set_num_threads, initargs=(1,))
