import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import formats
from formats import set_thread_count, thread_count, threads
from formats.boundaries import ROUNDINGS
from tests.formats.samples import assert_same_bits, exactly, normal


@pytest.fixture(autouse=True)
def small_shares(monkeypatch):
    monkeypatch.setattr(threads, "SMALLEST_SHARE", 1000)
    monkeypatch.setattr(threads, "_count", None)
    monkeypatch.setattr(threads, "_pool", None)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ["int4", "e2m1", "e4m3", "e8m2", "pot4", "ulogsqrt2_4", "binary", "int12"])
def test_the_number_of_threads_changes_nothing(name, rounding):
    fmt = formats.get(name)
    scales = np.random.default_rng(0).uniform(0.1, 2, 200).astype(np.float32)
    column = scales[:, np.newaxis]
    for shape, scale in [((20_011,), 0.3), ((200, 101), column), ((101, 200), scales), ((2, 200, 37), column)]:
        x = normal(*shape, spread=2)
        results = []
        for count in (1, 2, 3, 7):
            set_thread_count(count)
            codes = fmt.encode(x, scale, rounding, seed=3)
            values = fmt.quantize(x, scale, rounding=rounding, seed=3)
            results.append((codes, values))
            assert_same_bits(fmt.decode(codes, scale), values)
        for codes, values in results[1:]:
            np.testing.assert_array_equal(codes, results[0][0])
            assert_same_bits(values, results[0][1])


def test_stochastic_rounding_of_a_slice_is_the_slice_of_the_whole():
    x, fmt = normal(30_000), formats.get("int4")
    set_thread_count(1)
    whole = fmt.encode(x, 0.3, "stochastic", seed=9)
    for count in (1, 2, 3):
        set_thread_count(count)
        for size in (1, 999, 2048, 2049, 10_000, 30_000):
            np.testing.assert_array_equal(fmt.encode(x[:size], 0.3, "stochastic", seed=9), whole[:size])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nan_is_counted_over_all_threads(count):
    set_thread_count(count)
    x = normal(9000)
    x[::1000] = np.nan
    with pytest.raises(ValueError, match="not NaN in 9 elements"):
        formats.get("int4").quantize(x)


def test_arrays_may_be_quantized_from_many_threads_at_once():
    set_thread_count(2)
    fmt = formats.get("e2m1")
    inputs = [normal(5000, seed=seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fmt.quantize, inputs))
    for values, x in zip(found, inputs, strict=True):
        assert_same_bits(values, fmt.quantize(x))


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 999, 1999, 2000, 2001, 10_007])
def test_shares_cover_every_element_once_and_are_cut_at_multiples(size, count):
    set_thread_count(count)
    for align in (1, 16, 32):
        shares = []

        def work(start, stop, shares=shares):
            shares.append((start, stop))
            return stop - start

        assert threads.in_shares(work, size, align) == size
        shares.sort()
        assert shares[0][0] == 0
        assert [stop for _, stop in shares[:-1]] == [start for start, _ in shares[1:]]
        assert shares[-1][1] == size
        assert all(start % align == 0 for start, _ in shares)
        assert len(shares) == max(1, min(count, size // 1000))


def test_shares_run_at_the_same_time_also_after_the_count_has_grown():
    for count in (2, 4):
        set_thread_count(count)
        all_at_once = threading.Barrier(count)

        def work(start, stop, all_at_once=all_at_once):
            all_at_once.wait(timeout=20)

        threads.in_shares(work, 9000)


def test_work_that_returns_nothing_counts_as_zero():
    set_thread_count(3)
    assert threads.in_shares(lambda start, stop: None, 9000) == 0


def test_small_arrays_stay_in_the_calling_thread():
    set_thread_count(3)
    seen = []
    threads.in_shares(lambda start, stop: seen.append(threading.current_thread()), 1999)
    assert seen == [threading.current_thread()]


def test_a_caller_may_keep_the_work_to_itself():
    set_thread_count(3)
    seen = []

    def work(start, stop):
        seen.append((start, stop))

    with threads.not_shared():
        threads.in_shares(work, 9000)
        with threads.not_shared():
            threads.in_shares(work, 9000)
        threads.in_shares(work, 9000)
    assert seen == [(0, 9000)] * 3
    threads.in_shares(work, 9000)
    assert len(seen) == 6


def test_keeping_the_work_to_oneself_is_for_one_thread_alone():
    set_thread_count(3)
    shares = []
    with threads.not_shared(), ThreadPoolExecutor(1) as pool:
        pool.submit(threads.in_shares, lambda start, stop: shares.append(start), 9000).result()
    assert len(shares) == 3


def test_an_error_in_any_share_reaches_the_caller():
    set_thread_count(3)

    def work(start, stop):
        if start == failing:
            raise ZeroDivisionError(start)

    for failing in (0, 3000, 6000):
        with pytest.raises(ZeroDivisionError, match=str(failing)):
            threads.in_shares(work, 9000)


# ---------------------------------------------------------------- the count


def test_the_count_is_what_was_set():
    for count in (1, 5, 2):
        set_thread_count(count)
        assert thread_count() == count


def test_the_count_comes_from_the_environment_until_it_is_set(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "")
    assert thread_count() == len(threads.os.sched_getaffinity(0))
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert thread_count() == len(threads.os.sched_getaffinity(0))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    set_thread_count(2)
    assert thread_count() == 2


@pytest.mark.parametrize("count", [0, -1])
def test_the_count_is_at_least_one(count):
    set_thread_count(2)
    with pytest.raises(ValueError, match=exactly(f"thread count must be at least 1, not {count}")):
        set_thread_count(count)
    assert thread_count() == 2


FORKING = """
import os, numpy as np, formats
formats.set_thread_count(3)
x = np.arange(1 << 20, dtype=np.float32)
fmt = formats.get("int8")
expected = fmt.quantize(x, 9000.)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(fmt.quantize(x, 9000.), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_makes_its_own_threads():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], check=True, timeout=60)
