"""What a report says of where its figures came from, and what it cost to make it."""

import resource

from dse.markdown import markdown
from dse.provenance import lines

__all__ = ["lines", "markdown", "peak_memory_mebibytes"]


def peak_memory_mebibytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
