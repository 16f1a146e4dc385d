"""Every promise of docs/trust.md is held by tests that exist."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "trust.md").read_text().partition("## What holds it")[2]
ROWS = [line.split("|")[1:3] for line in TABLE.splitlines() if line.startswith("| ")][1:]
NAMED = re.findall(r"`(tests/[^`]+)`", TABLE)


def test_every_promise_names_a_test():
    assert len(ROWS) > 20
    for promise, tests in ROWS:
        assert re.search(r"`tests/\S+\.py::test_\w+`", tests), promise


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_the_test_exists(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in found


def test_the_picture_is_that_of_the_kept_figures():
    script = (ROOT / "benchmarks" / "store_memory.py").read_text()
    assert "store-memory.png" in script and 'write("store-memory"' in script
    kept = json.loads((ROOT / "benchmarks" / "results" / "store-memory.json").read_text())
    assert kept["shapes"] == kept["over_time"][-1]["shapes"] == 100_000
    assert kept["own_mb_at_most"] - kept["own_mb_at_start"] < kept["allowed_mb_more"]
    assert kept["store_mb"] > 10 * kept["own_mb_at_most"]
