"""The scripts behind docs/claims.md: they run, and the page says what they found."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from pcequi.pose_graph import build_pose_graph
from pcequi.training.splits import Split

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "benchmarks" / "claims"
SCRIPTS = sorted(p.stem for p in CLAIMS.glob("*.py") if "def main" in p.read_text())
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("claim-*.json"))
FAST = {"matrix"}  # the rest in `make test-slow`


@pytest.fixture
def claims(monkeypatch):
    """Imports a module of the claims, as running it by its path would."""
    monkeypatch.syspath_prepend(str(CLAIMS))
    monkeypatch.syspath_prepend(str(CLAIMS.parent))
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in ("common", "damage", "results", "study", *SCRIPTS):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in SCRIPTS]
)
def test_a_script_runs_in_short(name, claims, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--cache", str(tmp_path)])
    claims(name).main()
    (figures,) = (tmp_path / "quick").glob("claim-*.json")
    assert "\n".join(json.loads(figures.read_text())["table"]) in capsys.readouterr().out
    assert figures.with_suffix(".png").stat().st_size < 60_000


def test_graphs_made_side_by_side_are_those_made_alone(claims, tmp_path):
    study = claims("study")
    clouds = [torch.randn(300, 3, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    clouds = [cloud / cloud.norm(dim=1).max() for cloud in clouds]
    split = Split("three", True, clouds, torch.zeros(3, dtype=torch.long), ["one"])
    networks = {num: study.budget_levels(num) for num in (None, 48, 16)}
    args = type("", (), {"cache": tmp_path})
    for num, store in study.stores(args, split, networks).items():
        alone = build_pose_graph(clouds[2], networks[num], dtype=torch.float32)
        for kept, made in zip(store.batch([2]).levels, alone.levels, strict=True):
            assert torch.equal(kept.count, made.count) and torch.equal(kept.weight, made.weight)
            assert kept.val is None or torch.allclose(kept.val, made.val, atol=1e-3)


def test_a_table_takes_the_place_of_the_old_one(claims, tmp_path, monkeypatch):
    results = claims("results")
    monkeypatch.setattr(results, "DOCS", tmp_path)
    page = tmp_path / "claims.md"
    page.write_text("![A](pictures/claim-1-a.png)\n\n| old |\n| --- |\n| 1 |\n\nWords.\n")
    for _ in range(2):
        results.put_on_page("1-a", ["| new |", "| --- |", "| 2 |"])
        assert page.read_text() == (
            "![A](pictures/claim-1-a.png)\n\n| new |\n| --- |\n| 2 |\n\nWords.\n"
        )


def test_every_claim_has_a_script_a_plot_and_its_table_on_the_page():
    page = (ROOT / "docs" / "claims.md").read_text()
    assert len(RESULTS) > 0
    for script in SCRIPTS:
        assert f"benchmarks/claims/{script}.py" in page
    for path in RESULTS:
        content = json.loads(path.read_text())
        assert not content["quick"]
        assert "\n".join(content["table"]) in page, f"{path.stem}: copy its table to the page"
        plot = ROOT / "docs" / "pictures" / f"{path.stem}.png"
        assert plot.stat().st_size < 60_000 and f"pictures/{plot.name}" in page
