"""Files that are not read are counted."""

import numpy as np
import pytest

from pcequi.datasets.folder import FolderClouds
from pcequi.datasets.folder_files import find_files
from pcequi.datasets.passed_over import passed_over
from pcequi.training.labelled import load_labelled


@pytest.fixture(params=["", "train/"])
def parts(tmp_path, request):
    """A folder of files, with or without folders train and test above its classes."""
    for place in [request.param, "test/"] if request.param else [""]:
        for number, name in enumerate(("cup", "rod")):
            kind = tmp_path / "parts" / f"{place}{name}"
            kind.mkdir(parents=True)
            for n in range(3):
                rng = np.random.default_rng([number, n, len(place)])
                np.save(kind / f"{n}.npy", rng.normal(size=(9, 3)))
    return tmp_path / "parts"


def told(parts):
    return passed_over(parts, find_files(parts))


def test_nothing_is_said_of_what_nobody_misses(parts):
    kind = next(parts.rglob("cup"))
    for name in (".DS_Store", "Thumbs.db", "~$list.docx", "desktop.ini"):
        (parts / name).touch()
        (kind / name).touch()
    (kind / ".git").mkdir()
    (kind / ".git" / "config.step").touch()
    assert told(parts) == ""


def test_files_of_other_kinds_and_places_are_counted(parts):
    kind = next(parts.rglob("cup"))
    (kind / "deep").mkdir()
    for n in range(3):
        (kind / f"{n}.STEP").touch()
    (kind / "deep" / "4.step").touch()
    assert told(parts) == "4 files passed over (.step 4)"
    (kind / "notes").touch()
    (kind / "5.npy").symlink_to(parts / "nothing.npy")
    assert told(parts).endswith(" passed over (.step 4, links to nothing 1, no ending 1)")
    (parts / "loose.npy").touch()
    assert told(parts).startswith("6 files ") and told(parts).endswith("1), 1 outside the classes")


def test_files_outside_alone_are_called_files(parts):
    for n in range(2):
        (parts / f"{n}.npy").touch()
    assert told(parts) == "2 files outside the classes"


def test_it_is_said_once_where_a_folder_is_read(parts, tmp_path, capsys):
    (next(parts.rglob("cup")) / "a.step").touch()
    for train in (True, False, True):
        FolderClouds(parts, train, num_points=9, root=tmp_path / "made")
    assert capsys.readouterr().err.count(f"{parts}: 1 file passed over (.step 1)\n") == 1
    load_labelled(parts, ["cup", "rod"], num_points=9)
    assert capsys.readouterr().err.count("1 file passed over (.step 1)") == 1
