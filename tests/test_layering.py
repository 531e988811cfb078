"""Imports point one way, and only the bridges among the formats know torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("formats", "hwmodels", "dse", "studies")


def imported(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_below_it(package: str) -> None:
    above = set(ORDER[ORDER.index(package) + 1 :]) | {"tests", "benchmarks"}
    for source in (ROOT / package).rglob("*.py"):
        assert not imported(source) & above, source


def test_formats_import_torch_and_brevitas_in_the_bridges_alone() -> None:
    for source in (ROOT / "formats").rglob("*.py"):
        allowed = {"torch_bridge": {"torch"}, "brevitas_bridge": {"torch", "brevitas"}}.get(source.parent.name, set())
        assert imported(source) & {"torch", "brevitas"} <= allowed, source


def test_help_needs_none_of_the_heavy_packages() -> None:
    heavy = "{'torch', 'numba', 'numpy', 'optuna'}"
    code = f"import sys, dse.cli; dse.cli.parser().format_help(); print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
