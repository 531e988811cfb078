"""Where a ledger is: what is understood, and that no password is ever shown."""

from pathlib import Path

import pytest

from dse.addresses import file_of, open_storage, shown
from formats import BitatlasError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://me:secret@host:5432/base", "postgresql://me@host:5432/base"),
        ("postgresql://me:se@cr/et@host/base", "postgresql://me@host/base"),
        ("postgresql://host/base?user=me&password=secret", "postgresql://host/base"),
        ("postgresql://host/base", "postgresql://host/base"),
        ("me:secret@host", "me@host"),
        ("sqlite:///folder/a@b.sqlite", "sqlite:///folder/a@b.sqlite"),
        (Path("folder/a@b?c.sqlite"), "folder/a@b?c.sqlite"),
    ],
)
def test_addresses_are_shown_without_passwords(given: Path | str, expected: str) -> None:
    assert shown(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "nonsense",
        "me:secret@host",
        "mysql://me:secret@host/base",
        "sqlite://",
        "sqlite:///",
        "postgresql://",
        "postgresql://me:secret@host:port/base",
    ],
)
def test_what_is_no_address_of_a_ledger_is_refused(given: str) -> None:
    with pytest.raises(BitatlasError) as caught:
        open_storage(given)
    assert str(caught.value).startswith("ledger must be at postgresql://USER@HOST/DATABASE or sqlite:///FILE, not at ")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(BitatlasError, match=r"^ledger must be a usable database, not fail \(.*refused.*\): ") as caught:
        open_storage("postgresql://me:{secret%20}@127.0.0.1:1/base")
    assert str(caught.value).endswith("): postgresql://me@127.0.0.1:1/base")
    assert "secret" not in str(caught.value)


def test_a_file_may_be_given_by_path_or_url() -> None:
    assert file_of("sqlite:///folder/ledger.sqlite") == Path("folder/ledger.sqlite")
    assert file_of("sqlite:////root/ledger.sqlite") == Path("/root/ledger.sqlite")
    assert file_of("postgresql://host/base") == "postgresql://host/base"
