"""One pool of threads for the compiled loops, which release the interpreter lock."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from formats.errors import InvalidValueError

#: fewer elements than this are done by the calling thread: handing them over costs more
SMALLEST_SHARE = 1 << 18

_local = threading.local()
_count: int | None = None
_pool: ThreadPoolExecutor | None = None


def thread_count() -> int:
    """Return how many threads share an array: as set, else ``$NUMBA_NUM_THREADS``, else one for each usable processor."""
    if _count is not None:
        return _count
    return count_from_environment("NUMBA_NUM_THREADS")


def count_from_environment(name: str) -> int:
    """Return the positive number in an environment variable, or the number of usable processors where it is not set."""
    text = os.environ.get(name) or str(len(os.sched_getaffinity(0)))
    if not text.isdecimal() or int(text) < 1:
        raise InvalidValueError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)


def set_thread_count(count: int) -> None:
    """Set how many threads share an array; results never depend on it."""
    global _count, _pool
    if count < 1:
        raise InvalidValueError(f"thread count must be at least 1, not {count}")
    _count, _pool = count, None


@contextmanager
def not_shared() -> Iterator[None]:
    """Let the calling thread do all of its work itself for as long as the context lasts: for callers that are threads already."""
    before = getattr(_local, "alone", False)
    _local.alone = True
    try:
        yield
    finally:
        _local.alone = before


def in_shares(work: Callable[[int, int], int | None], size: int, align: int = 1, weight: int = 1) -> int:
    """Call ``work(start, stop)`` over [0, size), cut into one share for each thread, and return the sum of what it returns.

    Cuts fall on multiples of ``align``; each of the ``size`` stands for ``weight`` elements.
    """
    shares = 1 if getattr(_local, "alone", False) else min(thread_count(), size * weight // SMALLEST_SHARE, size)
    if shares <= 1:
        return work(0, size) or 0
    cuts = [size * share // shares // align * align for share in range(shares)] + [size]
    others = [_executor().submit(work, cuts[i], cuts[i + 1]) for i in range(1, shares)]
    total = work(cuts[0], cuts[1]) or 0
    return total + sum(other.result() or 0 for other in others)


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix="formats")
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None  # a forked child has none of its parent's threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
