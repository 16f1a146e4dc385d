"""From a folder of own files to a trained network, predictions and a report."""

import csv
import json
import shutil

import numpy as np
import pytest

from pcequi.datasets import make_shape


@pytest.fixture
def parts(tmp_path):
    for place, kind in enumerate(("cup", "hammer", "table")):
        (tmp_path / "parts" / kind).mkdir(parents=True)
        for n in range(5):
            vertices, faces = make_shape(kind, np.random.default_rng([place, n]))
            lines = [f"OFF {len(vertices)} {len(faces)} 0"]
            lines += [" ".join(map(str, row)) for row in vertices.tolist()]
            lines += ["3 " + " ".join(map(str, row)) for row in faces.tolist()]
            (tmp_path / "parts" / kind / f"{n}.off").write_text("\n".join(lines))
    return tmp_path / "parts"


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_train_predict_and_report(command, parts, tmp_path):
    options = ["--data", "folder", "--root", "parts", "--preset", "tiny", "--num-points", 32]
    options += ["--epochs", 2, "--batch-size", 4, "--workers", 1, "--threads", 1]
    code, out, err = command("train", *options, "--test-share", 0.4, "--run", "runs/own", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["shapes"] == {"train": 9, "held_out": 0, "test": 6}
    assert list(report["per_class"]["z/SO3"]) == ["cup", "hammer", "table"]
    page = (tmp_path / "runs/own/report.html").read_text()
    hardest = json.loads((tmp_path / "runs/own/hardest.json").read_text())["shapes"]
    assert len(hardest) == 6 and all(item["name"] in page for item in hardest)

    rows = table(tmp_path / "runs/own/predictions.csv")
    assert "predictions.csv" in page and len(rows) == 6
    assert all((parts / row["file"]).exists() for row in rows)
    assert all(row["file"].split("/")[0] == row["true class"] for row in rows)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)

    files = sorted(parts.rglob("*.off"))
    broken = tmp_path / "broken.off"
    broken.write_text("no mesh")
    code, out, err = command("predict", "runs/own", *files, broken, "--json", "--threads", 1)
    found = json.loads(out)
    assert code == 1 and found["failed"] == 1 and found["classified"] == 15
    assert "error" in found["files"][-1] and "broken.off" in err
    assert all(len(entry["predictions"]) == 3 for entry in found["files"][:-1])

    # The split of the run is that of its settings, also in `evaluate` and `precompute`.
    quick = ["--workers", 1, "--threads", 1, "--csv", "again.csv"]
    code, out, _ = command("evaluate", "runs/own", "--json", *quick)
    assert code == 0 and json.loads(out)["shapes"] == 6
    assert table(tmp_path / "again.csv") == rows
    for place in ("no/where.csv", "parts", "-"):
        code, _, err = command("evaluate", "runs/own", "--csv", place)
        assert code == 1 and f"`--csv` (={place!r}) must be a file in a folder" in err
    long = "a" * 250  # which no file system takes with what a file is called before it is whole
    code, out, err = command("evaluate", "runs/own", "--json", *quick[:4], "--csv", long)
    assert code == 1 and "cannot be written" in json.loads(out)["error"]["message"]
    assert json.loads(out)["protocols"]["z/SO3"]["accuracy"] >= 0 and f"Error: {long}" in err
    code, out, err = command("evaluate", "runs/own", *quick[:4], "--csv", long)
    assert code == 1 and "z/SO3" in out and f"Error: {long}" in err
    code, _, err = command("evaluate", "runs/own", "--csv", "again.csv", "--mode", "online")
    assert code == 1 and "`--csv` cannot be joined" in err
    code, out, _ = command(
        "precompute", *options[:8], "--workers", 1, "--test-share", 0.4, "--json"
    )
    assert code == 0 and [store["clouds"] for store in json.loads(out)["stores"]] == [9, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "folder"], "(--root FOLDER)"),
        (["--data", "folder", "--root", "nowhere"], "nowhere') is no folder"),
        (["--data", "folder", "--root", "nowhere", "--test-share", 2], "`test_share` (=2.0)"),
        (["--test-list", "list.txt"], "list.txt') does not apply to 'shapes'"),
    ],
)
def test_errors_name_the_option(command, options, message):
    code, out, err = command("train", *options)
    assert code == 1 and out == "" and message in err and "Traceback" not in err


@pytest.mark.filterwarnings("default::UserWarning")
def test_warnings_are_sentences(command, parts):
    for kind in ("cup", "hammer"):
        shutil.copy(parts / "table" / "0.off", parts / kind / "copy.off")
    options = ["--data", "folder", "--root", "parts", "--preset", "tiny", "--num-points", 32]
    code, _, err = command("precompute", *options, "--workers", 1)
    said = [line for line in err.splitlines() if "Warning" in line]
    assert code == 0 and said
    assert all(line.startswith("Warning: ") and "remove one of" in line for line in said), said


@pytest.mark.parametrize("name", ["train", "precompute"])
def test_shapes_are_not_made_in_a_folder_of_files(command, parts, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    code, _, err = command(name, "--root", "parts", "--preset", "tiny")
    assert code == 1 and "parts') has sub-folders with files, 'cup' and 'hammer'" in err
    assert "--data folder" in err and sorted(tmp_path.rglob("*")) == before
