"""The documentation: its Python runs, its commands and files exist."""

import importlib.util
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import pcequi
from pcequi.cli import app

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMANDS = [
    (page.name, line.split("#")[0].strip())
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.split("#")[0].strip()
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), space)


def unknown_options(words):
    """Of a `pcequi` command, split into words."""
    known = typer.main.get_command(app).commands[words[1]]
    options = {name for parameter in known.params for name in parameter.opts}
    return {word for word in words if word.startswith("--")} - options


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_have_the_options_that_they_are_given(page, command):
    words = shlex.split(command)
    if words[0] == "python":
        assert (DOCS.parent / words[1]).is_file()
    if words[0] == "pcequi":
        assert not unknown_options(words)


def test_there_are_pages_with_code_and_commands():
    code = [page.stem for page in PAGES if "```python" in page.read_text()]
    assert {"tutorial", "method", "budget", "visualising", "own-data", "faq"} <= set(code)
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target
    for name in re.findall(r"`((?:examples|docs)/[\w/]+\.py)", page.read_text()):
        assert (DOCS.parent / name).is_file(), name


def test_every_picture_has_a_command_that_makes_it():
    spec = importlib.util.spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert {f"{name}.png" for name in (*script.VIEWS, "budget")} == {
        file.name
        for file in (DOCS / "pictures").iterdir()
        if not file.name.startswith("claim-")  # see test_claims.py
        and file.name != "store-memory.png"  # see test_trust.py
    }
    for command in (*(f"view {options}" for options in script.VIEWS.values()), script.TRAIN):
        assert not unknown_options(["pcequi", *command.split()])
    # The page says how to make the files that the commands name.
    seeds = ", ".join(f'"{name}": {seed}' for name, seed in script.SEEDS.items())
    assert f"{{{seeds}}}" in (DOCS / "visualising.md").read_text()


def test_pictures_are_small():
    sizes = {file.name: file.stat().st_size for file in (DOCS / "pictures").iterdir()}
    assert sizes and max(sizes.values()) < 300 * 1024, sizes


def test_every_room_of_the_package_is_in_the_reference():
    reference = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    listed = set(re.findall(r"automodule:: (pcequi[\w.]*)", reference))
    rooms = {f"pcequi.{m.name}" for m in pkgutil.iter_modules(pcequi.__path__)}
    # The commands, and what belongs to one of them alone, have `--help` instead;
    # files are what a store is made of, and Lloyd's steps a part of sampling.
    inside = {"__main__", "cli", "bench", "files", "graph_build", "graph_chunks", "tensor_files"}
    inside |= {"lloyd", "constants"}
    assert rooms - {f"pcequi.{name}" for name in inside} <= listed
    for name in listed:
        importlib.import_module(name)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed (pip install "pcequi[docs]")')
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", DOCS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "method.html").read_text()
    assert "<math " in page and "chair-frames.png" in page
    assert "GroupConv" in (tmp_path / "api" / "layers.html").read_text()
