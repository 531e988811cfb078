"""``dse calibrate gpu``: timings of every kernel on this machine's GPU, and the cost model fitted to them."""

import argparse

from formats.errors import InvalidValueError, require
from hwmodels.files import cache_directory

MINUTES = 10.0


def run(options: argparse.Namespace) -> None:
    """Time what the table lacks, and print what the fits are worth."""
    minutes = MINUTES if options.minutes is None else options.minutes
    if not minutes > 0:
        raise InvalidValueError(f"--minutes must be above 0, not {minutes:g}")
    require("triton", "dse calibrate gpu", extra="gpu")
    from hwmodels.gpu import calibration, devices, timings
    from hwmodels.gpu.calibration_cases import wanted
    from hwmodels.gpu.kernels import registry
    from hwmodels.gpu.timing import CudaBench

    bench = CudaBench()
    device = devices.recognised(bench.device.name, bench.device.multiprocessors)
    folder = options.out or cache_directory() / "gpu"
    outcome = calibration.calibrate(bench, wanted(registry.kernels()), folder / timings.file_name(device), minutes)
    for case, reason in outcome.skipped.items():
        print(f"left out: {case}: {reason}")
    print(f"{outcome.timed} cases timed, {outcome.known} were known, {outcome.out_of_time} left for the next run: {outcome.path}")
    if outcome.path.exists():
        for family, error in calibration.errors_by_family(timings.read(outcome.path), device).items():
            print(f"{family}: leave-one-out error of the fit {error:.1%} (median)")
