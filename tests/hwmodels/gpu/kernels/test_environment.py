"""Where kernels run, and what is said where they cannot."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from triton import testing
from triton.runtime.errors import OutOfResources

from formats.errors import InvalidValueError
from hwmodels.gpu.kernels import environment, tuning
from hwmodels.gpu.kernels.launching import Tile

TILES = tuple(Tile(rows=16, columns=columns, depth=32) for columns in (32, 64, 128))


def last_line(code: str) -> str:
    """What a program prints last where nothing is interpreted."""
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    plain["CUDA_VISIBLE_DEVICES"] = ""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=plain, check=False)
    return (found.stdout + found.stderr).strip().splitlines()[-1]


def test_here_kernels_are_interpreted_on_the_processor() -> None:
    assert environment.INTERPRETED
    assert environment.device() == torch.device("cpu")
    assert environment.multiprocessors() == 1


def test_without_a_device_one_line_says_what_to_do() -> None:
    found = last_line("from hwmodels.gpu.kernels import environment; environment.device()")
    wanted = (
        "formats.errors.InvalidValueError: a GPU kernel must run on CUDA, not without: torch finds no device; "
        "TRITON_INTERPRET=1, set beforehand, runs it slowly in the interpreter"
    )
    assert found == wanted


def test_without_triton_one_line_says_what_to_install() -> None:
    found = last_line("import sys; sys.modules['triton'] = None; import hwmodels.gpu.kernels.registry")
    assert found == (
        "formats.errors.MissingPackageError: triton must be installed for hwmodels.gpu.kernels: pip install bitatlas[gpu]"
    )


def test_a_device_without_bfloat16_is_refused() -> None:
    environment.check_capability("NVIDIA A100", (8, 0))
    with pytest.raises(InvalidValueError) as error:
        environment.check_capability("Tesla T4", (7, 5))
    assert str(error.value) == "compute capability of a GPU must be at least 8.0, not 7.5: Tesla T4"


def test_the_first_tile_is_taken_where_kernels_are_interpreted() -> None:
    assert tuning.fastest("interpreted", TILES, lambda tile: pytest.fail("launched")) == TILES[0]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """Pretend that 64 columns are the fastest and that 32 do not fit; return what was launched."""
    launched: list[Tile] = []

    def median(run: Callable[[], None], **_: object) -> float:
        run()
        if launched[-1].columns == 32:
            raise OutOfResources(300_000, 232_448, "shared memory")
        return {64: 1.0, 128: 2.0}[launched[-1].columns]

    monkeypatch.setattr(environment, "INTERPRETED", False)
    monkeypatch.setattr(testing, "do_bench", median)
    monkeypatch.setattr(tuning, "_FOUND", {})
    return launched


def test_the_fastest_tile_that_fits_is_measured_once(measured: list[Tile]) -> None:
    assert tuning.fastest("a", TILES, measured.append) == TILES[1]
    assert measured == list(TILES)
    assert tuning.fastest("a", TILES, measured.append) == TILES[1]
    assert measured == list(TILES)


def test_a_device_that_no_tile_fits_is_named_as_the_reason(measured: list[Tile]) -> None:
    with pytest.raises(InvalidValueError) as error:
        tuning.fastest("b", TILES[:1] * 2, measured.append)
    assert str(error.value) == "tile of a kernel must fit the device, not need more than it has, as all 2 do"
