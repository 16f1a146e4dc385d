"""Classes whose names a person would take for one."""

import unicodedata
import warnings

import numpy as np
import pytest

from pcequi.datasets.folder import FolderClouds


def loaded(place, names, train=False):
    for number, name in enumerate(names):
        (place / "parts" / name).mkdir(parents=True, exist_ok=True)
        for n in range(2):
            cloud = np.random.default_rng([number, n]).normal(size=(9, 3))
            np.save(place / "parts" / name / f"{n}.npy", cloud)
    if len(list((place / "parts").iterdir())) < len(names):
        pytest.skip("this disk takes such names for one")
    return FolderClouds(place / "parts", train, num_points=9, root=place / "made")


@pytest.mark.parametrize(
    "names",
    [
        ("washer", "Washer"),
        ("M\u00fc", unicodedata.normalize("NFD", "m\u00fc")),
        ("AB", "Ab", "ab"),
    ],
)
def test_names_that_differ_in_how_they_are_written_get_one_warning(tmp_path, names):
    with pytest.warns(UserWarning, match="differ in capital letters alone, or in how") as said:
        loaded(tmp_path, [*names, "nut"])
    assert len(said) == 1
    assert all(ascii(name) in str(said[0].message) for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(tmp_path, names, train=True)


def test_several_such_names_are_one_warning(tmp_path):
    with pytest.warns(UserWarning, match="'A' and 'a', and others, of") as said:
        loaded(tmp_path, ["A", "B", "a", "b", "c"])
    assert len(said) == 1


def test_other_names_get_none(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(tmp_path, ["washer", "washers", "M\u00fc", "Mu"])
