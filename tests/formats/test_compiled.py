"""Compiled functions are kept on disk, and never used after a function that they call has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

FORMATS = Path(__file__).parents[2] / "formats"
PROGRAM = """
import numpy as np
from {package}.outer import twice
print(twice(np.float32(3)), sum(twice.stats.cache_hits.values()))
"""


def run(folder: Path, cache: Path) -> list[str]:
    code = PROGRAM.format(package="sample")
    # Python's own files of compiled modules are told apart by size and second alone
    environment = {"NUMBA_CACHE_DIR": str(cache), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_change_in_a_called_function_compiles_its_callers_anew(tmp_path: Path) -> None:
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(FORMATS / "compiled.py", package)
    header = "from sample.compiled import compiled\n"
    (package / "inner.py").write_text(header + "@compiled\ndef once(x):\n    return x + 1\n")
    (package / "outer.py").write_text(header + "from sample.inner import once\n@compiled\ndef twice(x):\n    return 2 * once(x)\n")
    cache = tmp_path / "cache"
    first = run(tmp_path, cache)
    again = run(tmp_path, cache)
    (package / "inner.py").write_text(header + "@compiled\ndef once(x):\n    return x + 2\n")
    changed = run(tmp_path, cache)
    assert first == ["8.0", "0"]
    assert again == ["8.0", "1"]
    assert changed == ["10.0", "0"]
