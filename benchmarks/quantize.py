"""Throughput of quantize, encode and decode, as ratios to a copy and to the fastest of other libraries in the same run.

2**24 float32 values, quantized into an existing array; "copy" is ``np.copyto`` of the array, for encode and decode of as many
bytes as they read and write. Every candidate is called in turn, round after round; ratios are medians over the rounds. "same"
is the share of values on which the fastest rival agrees with this project.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import formats
from benchmarks.rivals import installed
from benchmarks.timing import interleaved, ratio
from formats import BlockFormat, Format

COMMAND = "python -m benchmarks.quantize"
SCALARS = (
    *("int2", "int4", "int8", "uint4", "uint8", "int16", "ternary", "binary"),
    *("e1m2", "e2m1", "e3m0", "e2m3", "e3m2", "e4m3", "e5m2", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"),
    *("pot3", "pot4", "post4", "ulog2_4", "ulogsqrt2_4", "nf4"),
)
BLOCKS = ("mxfp4", "mxfp6_e3m2", "mxfp8_e4m3", "mxint8", "nvfp4")
CODED = ("int4", "int8", "e2m1", "e4m3", "float8_e4m3fn", "pot4", "post4", "nf4")
SCALE = 0.05
#: a rival slower than this many seconds a call is timed once, not once a round
SLOW = 0.5


def quantizer(name: str, x: NDArray[np.float32], out: NDArray[np.float32], rounding: str = "nearest_even") -> Callable[[], object]:
    """Return the call that is timed."""
    fmt = formats.get(name)
    if isinstance(fmt, BlockFormat):
        return lambda: fmt.quantize(x, out=out, rounding=rounding)
    return lambda: fmt.quantize(x, SCALE, out=out, rounding=rounding)


def against_rivals(name: str, x: NDArray[np.float32], out: NDArray[np.float32], rounds: int, threads: int) -> None:
    """Print one line: the format's throughput, its ratio to the copy and to the fastest rival."""
    calls = installed(name, x, SCALE, threads)
    quick: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(out, x), name: quantizer(name, x, out)}
    once: dict[str, float] = {}
    for rival, call in calls.items():
        call()  # warm-up
        began = time.perf_counter()
        call()
        once[rival] = time.perf_counter() - began
        if once[rival] < SLOW:
            quick[rival] = call
    seconds = interleaved(quick, rounds)
    _, to_copy, _ = ratio(seconds, "copy", name)
    line = f"  {name:14} {x.size / statistics.median(seconds[name]) / 1e9:6.2f} G/s {to_copy:6.2f} x copy"
    if calls:
        taken = {rival: statistics.median(seconds[rival]) if rival in seconds else once[rival] for rival in calls}
        best = min(taken, key=lambda rival: taken[rival])
        ours = statistics.median(seconds[name])
        same = np.mean(np.asarray(calls[best]()).reshape(x.shape).astype(np.float32) == _quantized(name, x))
        others = ", ".join(f"{rival} {seconds / ours:.0f}" for rival, seconds in sorted(taken.items(), key=lambda item: item[1]))
        line += f"  {taken[best] / ours:6.1f} x {best} (same {same:.4f})   all: {others}"
    print(line, flush=True)


def _quantized(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    fmt = formats.get(name)
    return fmt.quantize(x) if isinstance(fmt, BlockFormat) else fmt.quantize(x, SCALE)


def stochastic(x: NDArray[np.float32], out: NDArray[np.float32], rounds: int) -> None:
    """Print throughputs of stochastic rounding."""
    names = ("int4", "int8", "e2m1", "e4m3", "bfloat16", "pot4", "post4", "nf4", "mxfp4")
    candidates: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(out, x)}
    candidates |= {name: quantizer(name, x, out, "stochastic") for name in names}
    seconds = interleaved(candidates, rounds)
    print("  stochastic:  " + ", ".join(f"{name} {ratio(seconds, 'copy', name)[1]:.2f}" for name in names) + "  x copy", flush=True)


def coding(x: NDArray[np.float32], out: NDArray[np.float32], rounds: int) -> None:
    """Print throughputs of encode and decode alone, each against a copy of as many bytes as it reads and writes."""
    source = np.random.default_rng(1).integers(0, 256, 5 * x.size // 2, dtype=np.uint8)
    target = np.empty_like(source)
    candidates: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(target, source)}
    for name in CODED:
        fmt = formats.get(name)
        assert isinstance(fmt, Format)
        codes: Any = fmt.encode(x, SCALE)
        candidates[f"encode {name}"] = lambda fmt=fmt: fmt.encode(x, SCALE)
        candidates[f"decode {name}"] = lambda fmt=fmt, codes=codes: fmt.decode(codes, SCALE, out=out)
    seconds = interleaved(candidates, rounds)
    for verb in ("encode", "decode"):
        print(f"  {verb}:  " + ", ".join(f"{n} {ratio(seconds, 'copy', f'{verb} {n}')[1]:.2f}" for n in CODED) + "  x copy")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--size", type=int, default=2**24, help="float32 values (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--formats", help="only these, separated by commas")
    parser.add_argument("--threads", type=int, help="this many threads (default: one, then all processors)")
    options = parser.parse_args(arguments)
    names = options.formats.split(",") if options.formats else (*SCALARS, *BLOCKS)
    x = np.random.default_rng(0).standard_normal((options.size // 4096, 4096)).astype(np.float32)
    out = np.empty_like(x)
    for threads in (options.threads,) if options.threads else sorted({1, len(os.sched_getaffinity(0))}):
        formats.set_thread_count(threads)
        torch.set_num_threads(threads)
        copy = statistics.median(interleaved({"copy": lambda: np.copyto(out, x)}, options.rounds)["copy"])
        print(f"{x.size} float32 values, {threads} thread(s); copy {x.size / copy / 1e9:.2f} G/s = {8e-9 * x.size / copy:.1f} GB/s")
        for name in names:
            against_rivals(name, x, out, options.rounds, threads)
        stochastic(x, out, options.rounds)
        coding(x, out, options.rounds)


if __name__ == "__main__":
    main()
