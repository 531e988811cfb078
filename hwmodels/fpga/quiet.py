"""Keeps what a C library prints to standard output from reaching it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def c_output_dropped() -> Iterator[None]:
    """Send to nowhere what C code prints while the context lasts; what Python printed before still comes out."""
    c_library = ctypes.CDLL(None)
    sys.stdout.flush()
    c_library.fflush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        c_library.fflush(None)  # C keeps what it prints to a pipe in memory
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
