"""Sensitivities on disk, with the fingerprint of everything they depend on; a stale one is refused, never used."""

import hashlib
import json
from pathlib import Path

from dse.proposals.table import ChoiceTable
from dse.settings import Fingerprint
from formats.errors import BitatlasError, InvalidValueError
from hwmodels.files import write_text


def write(path: Path, table: ChoiceTable, fingerprint: Fingerprint) -> None:
    """Write a table of losses, whole or not at all; costs may be in it or be given anew when it is read."""
    text = table.to_json()
    content = {"fingerprint": dict(fingerprint.parts), "digest": _digest(text), "table": json.loads(text)}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read(path: Path, fingerprint: Fingerprint) -> ChoiceTable:
    """Return the table that was written for an equal fingerprint.

    Raises ``BitatlasError`` for a file that cannot be read, one that holds something else, and one made for another fingerprint,
    saying what differs.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        made_for = Fingerprint(parts={str(name): str(text) for name, text in content["fingerprint"].items()})
        table, digest = json.dumps(content["table"]), content["digest"]
    except OSError as error:
        raise BitatlasError(f"sensitivities must be readable, not fail ({error.strerror}): {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidValueError(f"sensitivities must be JSON as they were written, not broken ({error!r}): {path}") from None
    refuse_stale(made_for, fingerprint, path)
    found = ChoiceTable.from_json(table)
    if _digest(found.to_json()) != digest:
        raise InvalidValueError(f"sensitivities must be as they were written, not changed since: {path}; remove it")
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_stale(made_for: Fingerprint, wanted: Fingerprint, path: Path) -> None:
    """Raise where a file was made for something else, saying what differs."""
    differences = wanted.differences(made_for)
    if differences:
        raise BitatlasError(f"sensitivities must be of what they are asked for, not stale ({'; '.join(differences)}): {path}")
