"""The nevers of docs/architecture.md: who may not import whom, and how long things get."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bkcodec

PACKAGE = Path(bkcodec.__file__).parent
MAX_FUNCTION, MAX_METHODS, MAX_FRONT = 60, 15, 20

# A file or folder of the package, and what nothing in it may import.
NEVERS = {
    "models": {"bkcodec.container"},
    "prior": {"bkcodec.container", "torch"},
    "image": {"bkcodec.container"},
    "coding": {"bkcodec.container"},
    "coding/decoder.py": {"bkcodec.coding.encoder"},
    "coding/refine.py": {"torch"},
    "engine": {"bkcodec.container"},
    **{
        f"engine/{name}.py": {"torch"}
        for name in (
            *("program", "networks", "conditions", "bounds", "reference", "onnx"),
            *("runtime", "sampling", "graph", "products", "streaming"),
        )
    },
    "train": {"bkcodec.commands"},
    "bench": {"bkcodec.commands"},
    "pages": {"bkcodec.container", "bkcodec.commands", "torch"},
    "shards": {"bkcodec.container", "bkcodec.codec", "bkcodec.commands", "torch", "numpy", "PIL"},
    "container.py": {"torch"},
    "bundle.py": {"torch"},
    "inspection.py": {"torch"},
}


def imports(path: Path) -> set[str]:
    """What a file imports, at the top or inside functions, and the packages that this is in."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    return {".".join(part[:i]) for part in parts for i in range(1, len(part) + 1)}


@pytest.mark.parametrize(("place", "forbidden"), NEVERS.items())
def test_nevers(place: str, forbidden: set[str]) -> None:
    files = [PACKAGE / place] if place.endswith(".py") else list((PACKAGE / place).rglob("*.py"))
    assert files
    for path in files:
        assert not imports(path) & forbidden, path


def test_click_is_for_commands() -> None:
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        assert room in ("commands", "cli.py") or "click" not in imports(path), path


def test_functions_and_classes_are_short() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = f"{path.name}: {getattr(node, 'name', '')}"
            if isinstance(node, ast.FunctionDef):
                assert int(node.end_lineno or 0) - node.lineno < MAX_FUNCTION, name
            if isinstance(node, ast.ClassDef):
                assert sum(isinstance(n, ast.FunctionDef) for n in node.body) <= MAX_METHODS, name


def test_the_front_is_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_FRONT


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


def test_other_engines_are_for_integrations() -> None:
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith("integrations/"):
            assert not imports(path) & {"webdataset", "datasets", "ray"}, path
        assert place == "remote.py" or "fsspec" not in imports(path), path
    loaded = modules_after("import bkcodec, bkcodec.remote, bkcodec.cli")
    assert not loaded & {"webdataset", "datasets", "ray", "fsspec"}
