"""Where kernels run, and what is said where they cannot."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
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


class Bench:
    """One on which 64 columns are the fastest."""

    def __init__(self, launched: list[Tile]) -> None:
        self.launched = launched

    def cold(self, run: Callable[[], None]) -> list[float]:
        run()
        return [{64: 1.0, 128: 2.0}[self.launched[-1].columns]]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """What was launched and measured, on the bench."""
    launched: list[Tile] = []
    monkeypatch.setattr(environment, "INTERPRETED", False)
    monkeypatch.setattr(tuning, "_bench", lambda: Bench(launched))
    monkeypatch.setattr(tuning, "_FOUND", {})
    return launched


def launch_on(launched: list[Tile]) -> Callable[[Tile], None]:
    """Return what notes launches, and refuses 32 columns, which do not fit."""

    def launch(tile: Tile) -> None:
        if tile.columns == 32:
            raise OutOfResources(300_000, 232_448, "shared memory")
        launched.append(tile)

    return launch


def test_the_fastest_tile_that_fits_is_measured_once(measured: list[Tile]) -> None:
    assert tuning.fastest("a", TILES, launch_on(measured)) == TILES[1]
    assert measured == [tile for tile in TILES if tile.columns != 32] * 2  # to see whether they fit, and to measure
    measured.clear()
    assert tuning.fastest("a", TILES, launch_on(measured)) == TILES[1]
    assert measured == []


def test_all_tiles_are_compiled_and_none_measured_where_kernels_are_only_compiled(measured: list[Tile]) -> None:
    with environment.compiling():
        assert tuning.fastest("a", TILES, measured.append) == TILES[0]
    assert measured == list(TILES)


def test_within_compiling_kernels_are_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "INTERPRETED", False)
    calls: list[tuple[str, object]] = []

    class Kernel:
        def warmup(self, *arguments: object, grid: tuple[int, ...]) -> None:
            calls.append(("warmup", (*arguments, grid)))

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[[object], None]:
            return lambda argument: calls.append(("launch", (argument, grid)))

    with environment.compiling():
        environment.launcher(Kernel(), (4,))("x")
    environment.launcher(Kernel(), (4,))("x")
    assert calls == [("warmup", ("x", (4,))), ("launch", ("x", (4,)))]


def test_a_device_that_no_tile_fits_is_named_as_the_reason(measured: list[Tile]) -> None:
    unfit = tuple(tile for tile in TILES if tile.columns == 32)
    with pytest.raises(InvalidValueError) as error:
        tuning.fastest("b", unfit * 2, launch_on(measured))
    assert str(error.value) == "tile of a kernel must fit the device, not need more than it has, as all 2 do"
