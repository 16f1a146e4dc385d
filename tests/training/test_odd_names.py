"""Names of files and classes that are no text in UTF-8, as those from elsewhere may be."""

import csv
import io
import json
import os

import numpy as np
import pytest

from pcequi.training.files import write_text

QUICK = ["--preset", "tiny", "--num-points", 24, "--epochs", 1, "--batch-size", 4, "--workers", 1]
ODD = os.fsdecode(b"t\xfcr")  # in Latin-1


@pytest.fixture
def parts(tmp_path):
    """Two classes, of which one has such a name, with such files."""
    for place, kind in enumerate(("cup", ODD)):
        (tmp_path / "parts" / kind).mkdir(parents=True)
        for n in range(4):
            cloud = np.random.default_rng([place, n]).normal(size=(40, 3))
            np.save(tmp_path / "parts" / kind / f"{ODD}{n}.npy", cloud)
    return tmp_path / "parts"


def test_text_is_written_whatever_it_holds(tmp_path):
    write_text(tmp_path / "page.html", f"Tür {ODD}")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "Tür t\\udcfcr"


def test_they_are_trained_on_reported_and_classified(command, parts, tmp_path, monkeypatch):
    (tmp_path / "test.txt").write_bytes(os.fsencode(f"cup/{ODD}0.npy\n{ODD}/{ODD}1.npy\n"))
    options = ["--data", "folder", "--root", "parts", *QUICK, "--threads", 1, "--run", "own"]
    options += ["--test-list", "test.txt"]
    code, _, err = command("train", *options)
    assert code == 0, err
    own = tmp_path / "own"
    assert json.loads((own / "report.json").read_text())["accuracy"]
    assert "t\\udcfcr" in (own / "report.html").read_text(encoding="utf-8")
    with (own / "predictions.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        assert {row["true class"] for row in csv.DictReader(file)} == {"cup", ODD}
    for more in (["--csv", "out.csv"], ["--csv", "-"], ["--json"], []):
        code, _, err = command("predict", "own", f"parts/cup/{ODD}0.npy", *more, "--threads", 1)
        assert code == 0, err
    names = os.fsencode(f"\ufeffparts/cup/{ODD}0.npy\n\nparts/{ODD}/{ODD}1.npy\r\n")
    (tmp_path / "list.txt").write_bytes(names)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names), encoding="utf-8"))
    for place in ("list.txt", "-"):
        code, out, err = command("predict", "own", "--files-from", place, "--json", "--threads", 1)
        assert code == 0, err
        assert [one["file"] for one in json.loads(out)["files"]] == [
            f"parts/cup/{ODD}0.npy", f"parts/{ODD}/{ODD}1.npy"
        ]  # fmt: skip
