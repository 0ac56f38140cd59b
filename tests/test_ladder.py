"""The one-way ladder of docs/architecture.md: a module imports only from rungs below its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bkcodec

PACKAGE = Path(bkcodec.__file__).parent

RUNGS = [
    {"errors", "config"},
    {"container", "files", "options"},
    {"entropy", "metadata", "tiling"},
    {"exact", "layout", "memory", "streaming"},
    {"context", "walk"},  # one concept in two files
    {"levelmap"},
    {"imageio", "tables", "bundle", "models", "lpips", "registry"},
    {"pretrained"},
    {"analysis", "backbone", "inspection", "rate"},
    {"synthesis"},
    {"codec"},
    {"jobs", "train", "pillow_plugin", "bench", "catalogue", "selftest"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {name: level for level, rung in enumerate(RUNGS) for name in rung}


def imports(path: Path) -> set[str]:
    """First parts of the bkcodec modules that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "bkcodec":
            found |= {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bkcodec."):
            found.add(str(node.module).split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_go_down(path: Path) -> None:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    name = "__main__" if path.name == "__main__.py" else name
    for other in imports(path) - {name}:
        is_below = LEVEL[other] < LEVEL[name] or {name, other} == {"context", "walk"}
        assert is_below, f"{name} imports {other}"


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_container_needs_the_standard_library_only() -> None:
    loaded = modules_after("import bkcodec.container")
    assert not loaded & {"numpy", "torch", "PIL", "click"}


def test_importing_the_package_and_info_load_no_torch(tmp_path: Path) -> None:
    assert "torch" not in modules_after("import bkcodec")
    vector = PACKAGE.parent / "formats" / "vectors" / "lake-q30.bkc"
    code = f"""
import sys
from bkcodec import cli
for arguments in (["--help"], ["info", {str(vector)!r}], ["models"]):
    sys.argv = ["bkcodec", *arguments]
    try:
        cli.run()
    except SystemExit as stop:
        assert not stop.code
"""
    assert not modules_after(code) & {"torch", "numpy", "diffusers"}


def test_the_public_names() -> None:
    assert sorted(bkcodec.__all__) == bkcodec.__all__
    for name in bkcodec.__all__:
        assert getattr(bkcodec, name).__doc__
    with pytest.raises(AttributeError):
        bkcodec.nonsense  # noqa: B018


def test_files_are_short() -> None:
    lengths = sorted(len(p.read_text("utf-8").splitlines()) for p in PACKAGE.rglob("*.py"))
    assert lengths[-1] <= 400 and lengths[len(lengths) // 2] <= 150
