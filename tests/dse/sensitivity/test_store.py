"""Stored sensitivities are read for what they were made for, and solved at any budget without the network."""

from pathlib import Path

import numpy as np
import pytest

from dse.proposals import ChoiceTable, knapsack, milp
from dse.sensitivity import store
from dse.settings import Fingerprint
from formats import BitatlasError, InvalidValueError

FINGERPRINT = Fingerprint(parts={"network": "a" * 64, "method": "gradient", "samples": "400"})


@pytest.fixture
def table() -> ChoiceTable:
    losses = (np.array([0.1, 1 / 3, 2e-9]), np.array([1e-300, 7.0]))
    return ChoiceTable(groups=("stem", "head"), options=(("int2", "int3", "int8"), ("int2", "int8")), losses=losses)


def test_a_table_is_read_back_to_the_bit(table: ChoiceTable, tmp_path: Path) -> None:
    path = tmp_path / "sensitivities.json"
    store.write(path, table, FINGERPRINT)
    assert store.read(path, FINGERPRINT).to_json() == table.to_json()


def test_a_stale_table_is_refused_saying_what_differs(table: ChoiceTable, tmp_path: Path) -> None:
    path = tmp_path / "sensitivities.json"
    store.write(path, table, FINGERPRINT)
    wanted = Fingerprint(parts={**FINGERPRINT.parts, "network": "b" * 64, "samples": "64", "seed": "0"})
    with pytest.raises(BitatlasError) as raised:
        store.read(path, wanted)
    differences = "network was aaaaaaaaaaaa…, is bbbbbbbbbbbb…; samples was 400, is 64; seed was unset, is 0"
    assert str(raised.value) == f"sensitivities must be of what they are asked for, not stale ({differences}): {path}"


def test_new_costs_and_budgets_need_the_table_alone(table: ChoiceTable, tmp_path: Path) -> None:
    path = tmp_path / "sensitivities.json"
    store.write(path, table, FINGERPRINT)
    read = store.read(path, FINGERPRINT).with_costs({"lut": (np.array([2.0, 3.0, 8.0]), np.array([2.0, 8.0]))})
    assert knapsack.front(read, "lut").best(10.0) == (2, 0)
    assert milp.solve(read, {"lut": 9.0}).selection == (0, 0)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint": {}}', '{"fingerprint": 3, "table": {}}'])
def test_broken_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "sensitivities.json"
    path.write_text(content)
    with pytest.raises(InvalidValueError, match="sensitivities must be JSON as they were written, not broken"):
        store.read(path, FINGERPRINT)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BitatlasError, match="sensitivities must be readable, not fail"):
        store.read(tmp_path / "none.json", FINGERPRINT)
