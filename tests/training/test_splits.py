"""Splits are loaded by name, limited by class, and their labels are checked."""

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, FileError
from pcequi.training.splits import check_labels, default_cache, load_split, precompute


def test_shapes_load_with_a_limit(tmp_path):
    split = load_split("shapes", False, root=tmp_path, num_points=16, limit=1)
    assert len(split) == len(split.classes) == 16
    assert split.labels.tolist() == list(range(16))
    assert split.clouds[0].shape == (16, 3)
    assert split.name == "shapes" and not split.train


def test_an_unknown_set_is_refused():
    with pytest.raises(ArgumentError, match=r"`data` \(='mnist'\) must be one of shapes, modelnet"):
        load_split("mnist", True)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ArgumentError, match=r"`limit` \(=0\)"):
        load_split("shapes", True, limit=0)


def test_shapes_have_no_source(tmp_path):
    with pytest.raises(ArgumentError, match=r"`source` .* does not apply to 'shapes'"):
        load_split("shapes", True, source=tmp_path)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises((FileError, ArgumentError), match="nowhere"):
        load_split("modelnet40", True, root=tmp_path, source=tmp_path / "nowhere.npz")


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes_is_named(label):
    with pytest.raises(DataError, match=rf"the label {label} at cloud 1, outside the 3 classes"):
        check_labels(torch.tensor([0, label, 2]), 3)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PCEQUI_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("PCEQUI_CACHE")
    assert default_cache().parts[-3:] == (".cache", "pcequi", "graphs")


def test_precomputed_graphs_are_those_of_the_turned_clouds(tiny, split, tmp_path):
    levels = tiny.tiny_levels()
    stores = {
        (kind, seed): precompute(split, levels, kind, seed=seed, cache=tmp_path, workers=1)
        for kind, seed in (("z", 0), ("SO3", 0), ("SO3", 1))
    }
    assert len({store.folder for store in stores.values()}) == 3
    model = tiny.tiny_model().eval()
    with torch.no_grad():
        logits = [model(store.batch(range(len(split)))) for store in stores.values()]
    # Frames are taken from the data, so the rotation does not show; graphs are
    # kept in 16 bits.
    assert (logits[0] - logits[1]).abs().max() < 1e-2
    assert (logits[1] - logits[2]).abs().max() < 1e-2
    positions = [store.batch([0]).levels[0].pos for store in stores.values()]
    assert (positions[0] - positions[1]).abs().max() > 0.1
