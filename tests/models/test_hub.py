"""Networks in the layout of the Hub; nothing here talks to it."""

import inspect
import json
import shutil
import sys
import types

import pytest
import torch

from pcequi.errors import FileError, MissingPackageError
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import build_pose_graph


@pytest.fixture
def model(levels_of, network):
    return network(levels_of(num=8))


def test_a_folder_gives_the_network_again(model, make_blob, tmp_path):
    folder = model.train().save_pretrained(tmp_path / "own" / "network")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = GroupConvClassifier.from_pretrained(folder)
    graph = build_pose_graph(make_blob(20), again.levels)
    assert not again.training and again.levels == model.levels
    assert torch.equal(again(graph), model.eval()(graph)), "in float64, as it was"


def test_missing_and_damaged_files_are_named(model, tmp_path):
    with pytest.raises(FileError, match="lacks config.json; write it again"):
        GroupConvClassifier.from_pretrained(tmp_path)
    folder = model.save_pretrained(tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(FileError, match="holds no network of pcequi"):
        GroupConvClassifier.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileError, match="lacks model.safetensors"):
        GroupConvClassifier.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(weights)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["channels"] = [4, 4, 4]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match="holds no network of pcequi"):
        GroupConvClassifier.from_pretrained(folder)


def test_the_hub_needs_its_package(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match="'user/network'.*pip install huggingface_hub"):
        GroupConvClassifier.from_pretrained("user/network")
    with pytest.raises(MissingPackageError, match="pip install huggingface_hub"):
        model.push_to_hub("user/network")


def test_the_hub_is_asked_for_two_files(model, make_blob, tmp_path, monkeypatch):
    kept = tmp_path / "repository"
    asked = {}

    class HfApi:
        def __init__(self, token=None):
            asked["token"] = token

        def create_repo(self, repo_id, *, private=False, exist_ok=False):
            asked["made"] = (repo_id, private, exist_ok)
            return f"hub/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            for name in ("config.json", "model.safetensors"):
                kept.mkdir(exist_ok=True)
                shutil.copy(f"{folder_path}/{name}", kept)

    def snapshot_download(repo_id, *, revision=None, token=None, allow_patterns=None):
        asked["read"] = (repo_id, revision, token, allow_patterns)
        return str(kept)

    fake = types.SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert model.push_to_hub("user/network", private=True, token="t") == "hub/user/network"
    again = GroupConvClassifier.from_pretrained("user/network", revision="v1")
    assert asked["token"] == "t" and asked["made"] == ("user/network", True, True)
    assert asked["read"] == ("user/network", "v1", None, ["config.json", "model.safetensors"])
    graph = build_pose_graph(make_blob(20), model.levels)
    assert torch.equal(again(graph), model(graph))


def test_the_real_package_takes_these_arguments():
    hub = pytest.importorskip("huggingface_hub")

    def takes(function, *names):
        return set(names) <= set(inspect.signature(function).parameters)

    assert takes(hub.snapshot_download, "revision", "token", "allow_patterns")
    assert takes(hub.HfApi.create_repo, "private", "exist_ok")
    assert takes(hub.HfApi.upload_folder, "repo_id", "folder_path", "commit_message")
    assert takes(hub.HfApi, "token")
