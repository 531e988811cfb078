"""Throughput of quantize into an existing array, as a ratio to copying it and to torch's own fake quantization."""

import argparse
import os
from collections.abc import Callable

import numpy as np
import torch

import formats
from benchmarks.timing import interleaved, ratio

COMMAND = "python -m benchmarks.quantize"
NAMES = ("int4", "int8", "uint8", "e2m1", "e3m2", "e4m3", "pot4", "post4", "ulogsqrt2_4", "ternary", "binary")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--size", type=int, default=2**24, help="float32 values (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    x = np.random.default_rng(0).standard_normal(options.size).astype(np.float32)
    out = np.empty_like(x)
    tensor = torch.from_numpy(x)
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        formats.set_thread_count(threads)
        torch.set_num_threads(threads)
        candidates: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(out, x)}
        candidates["torch int8"] = lambda: torch.fake_quantize_per_tensor_affine(tensor, 0.05, 0, -128, 127)
        candidates |= {name: lambda name=name: formats.get(name).quantize(x, 0.05, out=out) for name in NAMES}
        seconds = interleaved(candidates, options.rounds)
        print(
            f"{options.size} float32 values, {threads} thread(s); copy {8e-9 * options.size / np.median(seconds['copy']):.1f} GB/s"
        )
        for name in candidates:
            _, to_copy, _ = ratio(seconds, "copy", name)
            _, to_torch, _ = ratio(seconds, "torch int8", name)
            speed = options.size / np.median(seconds[name]) / 1e9
            print(f"  {name:12} {speed:6.2f} G values/s  {to_copy:5.2f} x copy  {to_torch:6.2f} x torch int8")


if __name__ == "__main__":
    main()
