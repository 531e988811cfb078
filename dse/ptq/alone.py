"""Steps compute in one thread each, so that their results never depend on how many there are; layers may run side by side."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from formats.threads import not_shared


@contextmanager
def alone(*, learning: bool = False) -> Iterator[None]:
    """Let torch and the formats' loops work in the calling thread alone; with ``learning``, gradients are recorded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.set_grad_enabled(learning), not_shared():
            yield
    finally:
        torch.set_num_threads(before)
