"""Measure how well every registered format of 2 to 8 bits holds numbers: of three densities, and of the zoo's networks.

Leaves the signal-to-noise ratio of each format at its best scale, against the Gaussian rate-distortion bound 2**(-2 R), as a
table and a picture.
"""

import argparse
import math
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from dse.models import zoo
from formats import Quantizer
from formats.errors import BitatlasError
from formats.lloyd_max import gaussian_distortion
from formats.registry import scalar
from hwmodels.files import write_text
from studies import command, provenance
from studies.format_atlas_formats import Entry, entries
from studies.format_atlas_page import page, write_figure
from studies.format_atlas_scale import DECIBELS_PER_BIT, Measured, measure, measure_fitted, ordered
from studies.format_atlas_sources import GAUSSIAN, LAPLACE, STUDENT_T, ZOO, Values, of_zoo, synthetic

COMMAND = "python -m studies.format_atlas"
REPORT = Path("reports/format_atlas")
QUICK_REPORT = Path("results/format_atlas")
#: mean squared errors that Max printed for 2, 3 and 4 bits (IRE Trans. IT 6(1), 1960, table I)
MAX_1960 = {2: 0.1175, 3: 0.03454, 4: 0.009497}
TOLERANCE = 1e-3
#: bits of the code books that are fitted to the samples of a density, to compare with
FITTED_BITS = range(2, 9)
#: networks and data of a quick run
QUICK_ZOO = (("resnet8", "vit"), ("digits",))


def lloyd_max_check(table: pd.DataFrame) -> pd.DataFrame:
    """Return the error of ``lloydmax2`` to ``lloydmax4`` on N(0, 1) four ways.

    On the samples of ``table``, integrated over the quantizer itself with scale 1, in closed form, and as Max printed it. Raises
    ``BitatlasError`` where the first or the second is not the last within ``TOLERANCE``.
    """
    x = np.linspace(-10, 10, 1 << 20).astype(np.float32)
    density = np.exp(-np.square(x.astype(np.float64)) / 2)
    sampled = table[table["source"] == GAUSSIAN].set_index("format")["mse [share of energy]"]
    rows = []
    for bits, printed in MAX_1960.items():
        error = np.square(scalar(f"lloydmax{bits}").quantize(x).astype(np.float64) - x)
        found = {"samples": float(sampled[f"lloydmax{bits}"]), "integral": float((density * error).sum() / density.sum())}
        for way, figure in found.items():
            if not abs(figure / printed - 1) <= TOLERANCE:
                limits = f"error of lloydmax{bits} on N(0, 1) must be {printed} within {TOLERANCE:.1%}"
                raise BitatlasError(f"{limits}, not {figure:.6g} ({way})")
        rows.append({"bits": bits, **found, "closed form": gaussian_distortion(bits), "Max 1960": printed})
    return pd.DataFrame(rows)


def row(source: str, entry: Entry | None, name: str, found: list[Measured]) -> dict[str, object]:
    """Return a line of the table: means over the tensors of a source; ``entry`` is None for levels fitted to the source."""
    bits = float(np.mean([one.bits for one in found]))
    snr = float(np.mean([one.snr_decibels for one in found]))
    return {
        "source": source,
        "format": name,
        "family": "lloydfit{b}" if entry is None else entry.family,
        "group": "fitted" if entry is None else entry.group,
        "bits [bit/element]": round(bits, 4),
        "scale [rms]": float(f"{math.exp(np.mean(np.log([one.scale for one in found]))):.5g}"),
        "snr [dB]": round(snr, 4),
        "worst_snr [dB]": round(min(one.snr_decibels for one in found), 4),
        "gap_to_bound [dB]": round(bits * DECIBELS_PER_BIT - snr, 4),
        "mse [share of energy]": float(f"{10 ** (-snr / 10):.6g}"),
        "code_entropy [bit]": round(float(np.mean([one.entropy_bits for one in found])), 4),
        "tensors": len(found),
        "same_levels_as": "" if entry is None else entry.same_levels_as,
    }


def survey(tensors: Iterable[Values]) -> pd.DataFrame:
    """Measure every format on every tensor that it is for, and return the table."""
    atlas = entries()
    found: dict[tuple[str, str], list[Measured]] = {}
    for values in tqdm(tensors, desc="tensors", unit="tensor"):
        given = ordered(values.rows)
        for entry in atlas:
            if values.never_negative or not entry.unsigned:
                found.setdefault((values.source, entry.name), []).append(measure(entry.format, values.rows, given))
        if values.source not in ZOO:  # a layer may hold fewer values than 256 levels
            for bits in FITTED_BITS:
                quantizer = Quantizer.parse(f"lloydfit{bits}")
                found[values.source, str(quantizer)] = [measure_fitted(quantizer, values.rows, given)]
    by_name = {entry.name: entry for entry in atlas}
    order = {name: number for number, name in enumerate(by_name)}
    sources = (GAUSSIAN, LAPLACE, STUDENT_T, *ZOO)
    keys = sorted(found, key=lambda key: (sources.index(key[0]), order.get(key[1], len(order))))
    return pd.DataFrame([row(source, by_name.get(name), name, found[source, name]) for source, name in keys])


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    quick_text = "2**16 samples of a density in place of 2**20, two networks on digits alone, 4 images in place of 32"
    parser.add_argument("--quick", action="store_true", help=quick_text)
    parser.add_argument("--out", type=Path, help=f"folder of the report (default: {REPORT}, with --quick {QUICK_REPORT})")
    options = parser.parse_args(arguments)
    out = options.out or (QUICK_REPORT if options.quick else REPORT)
    began = time.monotonic()
    samples, images = (1 << 16, 4) if options.quick else (1 << 20, 32)
    models, data_names = QUICK_ZOO if options.quick else (tuple(zoo.ARCHITECTURES), ("digits", "fashion-mnist"))
    table = survey(chain(synthetic(samples), of_zoo(models, data_names, images)))
    check = lloyd_max_check(table)
    write_text(out / "format_atlas.csv", table.to_csv(index=False))
    write_figure(out / "format_atlas.png", table)
    made = provenance.lines(f"{COMMAND} --quick" if options.quick else COMMAND)
    seconds, networks = time.monotonic() - began, f"{', '.join(models)} on {' and '.join(data_names)}"
    text = page(table, check, made, samples=samples, images=images, networks=networks, seconds=seconds)
    write_text(out / "README.md", text)
    print(f"report in {out}; peak memory {provenance.peak_memory_mebibytes():.0f} MiB")


if __name__ == "__main__":
    command.run(main)
