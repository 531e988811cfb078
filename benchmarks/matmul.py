"""Matrix products of codes, decoding and result included, as a ratio to BLAS on floats that are there already.

One thread: BLAS and torch are told so before they are imported. Peak memory is what a call allocates (tracemalloc) plus its
operands, as a ratio to the operands' codes and the result's numbers.
"""

import argparse
import os
import tracemalloc
from collections.abc import Callable

for _library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_library] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

import formats  # noqa: E402
from benchmarks.timing import interleaved, ratio  # noqa: E402
from formats.arithmetic.accumulator import Accumulator  # noqa: E402
from formats.arithmetic.matmul import matmul  # noqa: E402
from formats.arithmetic.results import FloatResult, IntegerResult, Result, RootResult  # noqa: E402

COMMAND = "python -m benchmarks.matmul"
#: formats, accumulator, path (None: the one chosen), and what the time is compared with
CASES = (
    ("int8", "int8", "exact", "int8", "torch int8"),
    ("uint8", "int8", "exact", "int8", "torch int8"),
    ("int8", "int8", "exact", "float32", "float32"),
    ("e2m1", "e2m1", "exact", "float32", "float32"),
    ("int8", "e3m2", "exact", "float64", "float64"),
    ("e4m3", "e4m3", "exact", None, "float64"),
    ("int16", "int16", "exact", None, "float64"),
    ("float16", "float16", "exact", None, "float64"),
    ("bfloat16", "bfloat16", "exact", None, "float64"),
    ("post4", "int8", "exact", None, "float32"),
    ("int8", "int8", "fixed:20:wrap", "float32", "float32"),
    ("int8", "int8", "fixed:18", None, "float32"),
    ("int8", "int8", "fixed:20", "ordered-float32", "float32"),
    ("int8", "int8", "fixed:20", "ordered-int32", "float32"),
    ("int8", "int8", "fixed:20", "ordered-int64", "float32"),
    ("int8", "int8", "float32", None, "float32"),
    ("int8", "int8", "float32:pairwise", None, "float32"),
    ("int8", "int8", "float16", None, "float32"),
    ("int8", "int8", "bfloat16", None, "float32"),
    ("mxfp4", "mxfp4", "exact", None, "float32"),
    ("nvfp4", "nvfp4", "exact", None, "float32"),
)


def encoded(name: str, x: np.ndarray, axis: int) -> tuple[object, int]:
    """Return an operand and how many bytes its codes take."""
    fmt = formats.get(name)
    if isinstance(fmt, formats.BlockFormat):
        codes, scales = fmt.encode(x, axis=axis)
        return (codes, scales), codes.nbytes + scales.codes.nbytes
    codes = fmt.encode(x, np.float32(np.abs(x).max() / min(fmt.maximum, 1e3)))
    return codes, codes.nbytes


def held_bytes(result: Result) -> int:
    """Return how many bytes the numbers of a result take."""
    if isinstance(result, RootResult):
        return result.even.numbers.nbytes + result.odd.numbers.nbytes
    assert isinstance(result, IntegerResult | FloatResult)
    return result.sums.numbers.nbytes if isinstance(result, IntegerResult) else result.numbers.nbytes


def peak_ratio(call: Callable[[], Result], operands: int) -> float:
    """Return the peak memory of a call, operands included, over that of operands and result."""
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak + operands) / (operands + held_bytes(result))


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="M, K and N (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    formats.set_thread_count(1)
    torch.set_num_threads(1)
    size = options.size
    rng = np.random.default_rng(0)
    a, w = (rng.uniform(-1, 1, (size, size)).astype(np.float32) for _ in range(2))
    bytes_ = [torch.from_numpy(rng.integers(-128, 128, (size, size)).astype(np.int8)) for _ in range(2)]
    a64, w64 = a.astype(np.float64), w.astype(np.float64)
    rivals: dict[str, Callable[[], object]] = {
        "float32": lambda: a @ w,
        "float64": lambda: a64 @ w64,
        "torch int8": lambda: torch._int_mm(bytes_[0], bytes_[1]),
    }
    print(f"{size} x {size} x {size}, 1 thread; time of a rival over ours, and 2 MNK over our time")
    for a_name, w_name, text, path, rival in CASES:
        (one, one_bytes), (other, other_bytes) = encoded(a_name, a, -1), encoded(w_name, w, 0)

        def call(one: object = one, other: object = other, names: tuple[str, str] = (a_name, w_name), text: str = text,
                 path: str | None = path) -> Result:  # fmt: skip
            return matmul(one, names[0], other, names[1], Accumulator.parse(text), path=path)  # type: ignore[arg-type]

        seconds = interleaved({rival: rivals[rival], "ours": call}, options.rounds)
        low, middle, high = ratio(seconds, rival, "ours")
        label = f"{a_name} x {w_name}, {text}"
        print(
            f"  {label:32} {call().path:17} {middle:5.2f} x {rival:10} ({low:.2f} … {high:.2f})"
            f"  {2e-9 * size**3 / np.median(seconds['ours']):7.1f} GOP/s"
            f"  memory {peak_ratio(call, one_bytes + other_bytes):.2f}"
        )


if __name__ == "__main__":
    main()
