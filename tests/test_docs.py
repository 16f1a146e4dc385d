"""The documentation and the README: Python runs; commands, options, files and anchors exist."""

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

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKED = sorted([*DOCS.rglob("*.md"), *(ROOT / "datasets").glob("*.md"), ROOT / "README.md"])
MAKE = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def commands(page):
    """Those of a page: lines of its blocks, and what stands in backticks."""
    text = page.read_text()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if command := line.split("#")[0].strip():
                yield command
    if page.stem != "decisions":  # which tells of commands of its day
        words = r"`((?:python [\w/]+\.py|pcequi [a-z]+|make) ?[^`\n]*)`"
        yield from re.findall(words, re.sub(r"```.*?```", "", text, flags=re.DOTALL))


COMMANDS = [
    (page.name, command) for page in (*PAGES, ROOT / "README.md") for command in commands(page)
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


def unknown_to_script(words):
    """Of `python FILE`: options that neither it nor what it shares with others names."""
    path = ROOT / words[1]
    text = path.read_text()
    shared = {"study.arguments": "study.py", "add_training": "modelnet40_accuracy.py"}
    for call, file in (shared | {"add_machine": "common.py"}).items():
        if call in text:
            places = (path.parent, ROOT / "benchmarks")
            text += next((one / file).read_text() for one in places if (one / file).exists())
    return {word for word in words if word.startswith("--") and f'"{word}"' not in text}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_have_the_options_that_they_are_given(page, command):
    words = shlex.split(command)
    if words[0] == "python" and words[1] != "-m":
        assert (ROOT / words[1]).is_file()
        assert not unknown_to_script(words)
    if words[0] == "pcequi":
        assert not unknown_options(words)
    if words[0] == "make":
        assert words[1] in MAKE


def test_an_option_that_a_script_has_not_is_noticed():
    for name in ("examples/own_folder.py", "benchmarks/claims/budget.py"):
        assert unknown_to_script(["python", name, "--quick", "--quickly"]) == {"--quickly"}


def test_there_are_pages_with_code_and_commands():
    code = [page.stem for page in PAGES if "```python" in page.read_text()]
    assert {"tutorial", "method", "budget", "visualising", "own-data", "faq"} <= set(code)
    assert len(COMMANDS) > 60 and any(page == "README.md" for page, _ in COMMANDS)


def anchors(page):
    """What links may name after a "#": the headings, as GitHub and the site write them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", LINKED, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_links_anchors_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target
    for name in re.findall(r"`((?:examples|docs|benchmarks|tools)/[\w/]+\.py)", page.read_text()):
        assert (ROOT / name).is_file(), name


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
    # The commands, and what belongs to one of them alone, have `--help` instead; bars are shown;
    # files are what a store is made of, and assignments and Lloyd's steps parts of sampling.
    inside = {"__main__", "cli", "bench", "files", "graph_build", "graph_chunks", "tensor_files"}
    inside |= {"assignment", "lloyd", "sampled", "constants", "short_repr", "progress"}
    inside |= {"graph_ready", "interrupts", "notices"}
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
