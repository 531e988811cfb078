"""The device that a pipeline is folded for, from a user's options."""

from formats.errors import InvalidValueError
from hwmodels.fpga import devices
from hwmodels.fpga.pipeline import Target


def target(device: str | None, fps: float | None, budget: float | None, clock: float | None) -> Target | None:
    """Return what the options ``--device``, ``--fps``, ``--budget`` and ``--clock`` ask for; None without a device.

    Raises ``KeyError`` for an unknown device, ``ValueError`` for what no pipeline can be folded for.
    """
    if device is None:
        for name, value in (("fps", fps), ("budget", budget), ("clock", clock)):
            if value is not None:
                raise InvalidValueError(f"--device must be given with --{name}, not left out")
        return None
    return Target(device=devices.get(device), fps=fps, budget=1.0 if budget is None else budget, clock_mhz=clock)
