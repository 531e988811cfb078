"""Data sheets of GPUs."""

import pytest

from formats import InvalidValueError, UnknownNameError
from hwmodels.gpu import devices


def test_the_devices_people_ask_for_are_there_with_their_sources() -> None:
    assert set(devices.names()) >= {"h100", "h200", "a100", "l4", "rtx4090"}
    for name in devices.names():
        device = devices.get(name)
        assert device.source
        assert device.url.startswith("https://")
        assert device.operations_per_second("bfloat16") > 1e14
        assert device.bytes_per_second > 1e11


@pytest.mark.parametrize(("name", "ridge"), [("h100", 295), ("h200", 206), ("a100", 153), ("l4", 403), ("rtx4090", 164)])
def test_operations_for_each_byte_at_the_ridge(name: str, ridge: float) -> None:
    device = devices.get(name)
    assert device.operations_per_second("bfloat16") / device.bytes_per_second == pytest.approx(ridge, rel=0.01)


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^GPU must be a known name, not 'h10'; nearest: h100"):
        devices.get("h10")


def test_what_tensor_cores_cannot_multiply_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^arithmetic on a100 must be bfloat16, int8, not float8$"):
        devices.get("a100").operations_per_second("float8")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(InvalidValueError, match=r"^name of a GPU must be new, not 'h100'$"):
        devices.register(devices.get("h100"))
