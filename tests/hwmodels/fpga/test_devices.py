import re

import pytest

from formats import BitatlasError, InvalidValueError
from hwmodels.fpga import devices
from hwmodels.fpga.devices import RESOURCES, Usage


def test_the_devices_asked_for_are_there() -> None:
    assert {"zynq7020", "zu3eg", "zu7ev", "u250", "vck190"} <= set(devices.names())


@pytest.mark.parametrize("name", devices.names())
def test_every_device_is_sourced_and_whole(name: str) -> None:
    device = devices.get(name)
    assert re.match(r"DS\d{3}, ", device.source)
    assert device.url.startswith("https://docs.amd.com/")
    assert device.source.split(",")[0].lower() in device.url
    assert device.flip_flops == 2 * device.lut  # two flip-flops to a LUT in all these families
    assert device.available._fields == RESOURCES
    assert device.available.bram == 2 * device.bram36
    assert (device.uram == 0) == (device.family in ("Artix-7", "Zynq-7000") or name in ("zu3eg", "zu9eg"))


def test_figures_of_the_data_sheets() -> None:
    assert devices.get("zynq7020").available == Usage(lut=53200, flip_flops=106400, dsp=220, bram=280, uram=0)
    assert devices.get("zu7ev").available == Usage(lut=230400, flip_flops=460800, dsp=1728, bram=624, uram=96)
    assert devices.get("vck190").dsp_kind == "DSP58"


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"^device must be a known name, not 'zu7eg'; nearest: zu9eg, zu7ev, zu3eg$"):
        devices.get("zu7eg")


def test_a_device_is_added_by_registering_it_once() -> None:
    taken = devices.get("zu3eg")
    with pytest.raises(InvalidValueError, match=r"^name of a device must be new, not 'zu3eg'$"):
        devices.register(taken)
    assert isinstance(InvalidValueError("x"), BitatlasError)


def test_usage_adds_up() -> None:
    assert Usage(lut=1, dsp=2).plus(Usage(lut=3, uram=4)) == Usage(lut=4, dsp=2, uram=4)
