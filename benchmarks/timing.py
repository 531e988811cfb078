"""Timing candidates in turn, so that a drifting machine treats them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Call every candidate once a round and return their wall seconds by name, the warm-up rounds left out."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warm_up + rounds):
        for name, candidate in candidates.items():
            began = time.perf_counter()
            candidate()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float, float]:
    """Return the smallest, the median and the largest ratio of two candidates' times, round by round."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return min(ratios), statistics.median(ratios), max(ratios)
