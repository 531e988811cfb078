import re
from pathlib import Path

import pytest

from dse import results
from formats import BitatlasError


def test_figures_are_found_again_and_by_another_process_too(tmp_path: Path) -> None:
    first, second = (results.ResultStore(tmp_path / "r.sqlite") for _ in range(2))
    assert first.get("a") is None
    first.put("a", {"kl": 0.1})
    assert first.get("a") == second.get("a") == {"kl": 0.1}
    first.close()
    second.close()


def test_a_key_depends_on_every_part_and_on_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {results.key("a", "b"), results.key("ab", ""), results.key("b", "a"), results.key("a", "b")}
    monkeypatch.setattr(results, "code_version", lambda: "other")
    assert len(keys | {results.key("a", "b")}) == 4


def test_a_broken_cache_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    path.write_bytes(b"no database" * 1000)
    message = f"cache of results must be a usable SQLite file, not fail (file is not a database): {path}; remove it, or set"
    with pytest.raises(BitatlasError, match=re.escape(message)):
        results.ResultStore(path)
