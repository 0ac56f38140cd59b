"""What a package has beside the program: man pages, entries for desktops, a citation."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import click
import pytest
from conftest import ROOT

from bkcodec import __version__, cli
from bkcodec.commands.paths import EXTENSION
from bkcodec.container import MAGIC

BUILD_TOOLS = {"click", "click_man", "platformdirs"}  # what pyproject.toml requires for building
# Runs a script in which nothing else that was installed can be imported, as where a wheel is built.
BARE = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        known = sys.stdlib_module_names | {BUILD_TOOLS | {"bkcodec"}}
        if name.partition(".")[0] not in known:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("formats/*.md")]
FOREIGN = ("https://keepachangelog.com", "https://semver.org")  # links that leave the project
DATA = {"share/mime/packages/bkcodec.xml", "share/thumbnailers/bkcodec.thumbnailer"}


def visible(group: click.Group, prefix: str) -> dict[str, click.Command]:
    """All commands by the name of their man page, those of groups too."""
    context = click.Context(group)
    commands: dict[str, click.Command] = {prefix: group}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            commands |= visible(command, f"{prefix}-{name}")
        elif command is not None and not command.hidden:
            commands[f"{prefix}-{name}"] = command
    return commands


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    script = ROOT / "scripts" / "man_pages.py"
    subprocess.run([sys.executable, "-c", BARE, script, folder], check=True, cwd=ROOT)
    return folder


def test_every_command_has_a_man_page_with_its_options(pages: Path) -> None:
    commands = visible(cli.main, "bkcodec")
    assert {page.stem for page in pages.iterdir()} == set(commands)
    assert "bkcodec-models-add" in commands and "bkcodec-thumbnail" not in commands
    for name, command in commands.items():
        text = (pages / f"{name}.1").read_text("utf-8")
        plain = text.replace("\\-", "-")
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.opts[-1] in plain
        assert __version__ in text and "..." not in text.split(".SH")[1]  # NAME, whole


def test_man_pages_have_no_stray_requests(pages: Path) -> None:
    for page in pages.iterdir():
        for line in page.read_text("utf-8").splitlines():
            assert not line.startswith("'"), line
            assert not line.startswith(".") or re.match(r"\.(TH|SH|PP|B|TP)( |$)", line), line


def test_the_mime_type_is_that_of_the_container() -> None:
    space = {"m": "http://www.freedesktop.org/standards/shared-mime-info"}
    root = ET.parse(ROOT / "formats" / "bkc.xml").getroot()
    (kind,) = root.findall("m:mime-type", space)
    (match,) = kind.findall("m:magic/m:match", space)
    assert (match.get("type"), match.get("offset")) == ("string", "0")
    assert (match.get("value") or "").encode().decode("unicode_escape").encode("latin-1") == MAGIC
    assert [glob.get("pattern") for glob in kind.findall("m:glob", space)] == [f"*{EXTENSION}"]
    entry = (ROOT / "formats" / "bkc.thumbnailer").read_text("utf-8")
    assert f"MimeType={kind.get('type')};" in entry.splitlines()


def test_the_citation_names_this_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text("utf-8").splitlines()
    assert f"version: {__version__}" in lines and "  - name: The bkcodec authors" in lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert target.startswith(FOREIGN) or (page.parent / target).exists(), target


@pytest.mark.slow
def test_a_wheel_carries_all_of_it(tmp_path: Path) -> None:
    """One that is built from a source distribution; an editable installation has no man pages."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "build"], check=True)
    build = [python, "-m", "build", "--outdir", tmp_path / "dist", ROOT]  # sdist, and a wheel of it
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = {name.partition(".data/data/")[2] for name in archive.namelist()} - {""}
    man = {f"share/man/man1/{name}.1" for name in visible(cli.main, "bkcodec")}
    assert carried == DATA | man
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--editable", ROOT], check=True)
    assert (tmp_path / "env" / "share" / "mime" / "packages" / "bkcodec.xml").is_file()
    subprocess.run([*install, "--force-reinstall", wheel], check=True)
    assert all((tmp_path / "env" / name).is_file() for name in carried)
