"""Networks in folders, by huggingface_hub's own mixin; nothing here talks to the Hub."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from pcequi.errors import FileError
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import build_pose_graph

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def model(levels_of, network):
    return network(levels_of(num=8))


def test_it_is_the_real_mixin(model):
    assert isinstance(model, hub.PyTorchModelHubMixin)
    for name in ("save_pretrained", "push_to_hub"):
        assert getattr(GroupConvClassifier, name) is getattr(hub.PyTorchModelHubMixin, name)


def test_a_folder_gives_the_network_again(model, make_blob, tmp_path, capsys):
    folder = tmp_path / "own" / "network"
    model.train().save_pretrained(folder)
    names = ["README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    again = GroupConvClassifier.from_pretrained(folder)
    graph = build_pose_graph(make_blob(20), again.levels)
    assert not again.training and again.levels == model.levels and again.settings == model.settings
    assert torch.equal(again(graph), model.eval()(graph)), "in float64, as it was"
    assert capsys.readouterr().out == "", "a library that prints breaks programs that print JSON"


def test_the_config_is_the_settings(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == model.settings


def test_the_card_names_library_and_tags(model, tmp_path):
    model.save_pretrained(tmp_path, model_card_kwargs={"repo_id": "someone/chairs"})
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "pcequi"
    assert {"point-cloud", "equivariance", "pytorch_model_hub_mixin"} <= set(card.data.tags)
    assert 'from_pretrained("someone/chairs")' in card.text and "2605.15368" in card.text


def test_settings_can_be_changed_while_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    smaller = [level.with_budget(num=4) for level in model.levels]
    again = GroupConvClassifier.from_pretrained(tmp_path, levels=smaller, dropout=0.0)
    assert again.levels == smaller and again.settings["dropout"] == 0.0
    again.save_pretrained(tmp_path / "changed")
    assert GroupConvClassifier.from_pretrained(tmp_path / "changed").levels == smaller


@pytest.mark.parametrize(
    ("key", "value"), [("channels", [1 << 18] * 3), ("head_channels", 1 << 40), ("num_classes", 5)]
)
def test_settings_of_another_network_are_refused_before_it_is_built(model, tmp_path, key, value):
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(FileError, match=f"{tmp_path.name}.*(the weight|overflow|size)"):
        GroupConvClassifier.from_pretrained(tmp_path)


def test_pickled_weights_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"weight": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="lacks model.safetensors.*could run code"):
        GroupConvClassifier.from_pretrained(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_nor_are_they_fetched(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    asked = []

    def download(repo_id, filename, **options):
        asked.append(filename)
        if filename == "config.json":
            return str(tmp_path / filename)
        raise hub.errors.LocalEntryNotFoundError("not there")

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr("pcequi.models.hub.hf_hub_download", download)
    with pytest.raises(FileError, match="'user/network'.*LocalEntryNotFoundError: not there"):
        GroupConvClassifier.from_pretrained("user/network")
    assert asked == ["config.json", "model.safetensors"]


def test_the_hub_is_sent_and_asked_for_these_files(model, make_blob, tmp_path, monkeypatch):
    kept, asked = tmp_path / "repository", {}

    class HfApi:
        def __init__(self, token=None):
            asked["token"] = token

        def create_repo(self, repo_id, *, private, exist_ok):
            asked["made"] = (repo_id, private, exist_ok)
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            folder_path.rename(kept)
            return f"hub/{repo_id}"

    def download(repo_id, filename, *, revision=None, **_):
        asked["read"] = (repo_id, revision)
        return str(kept / filename)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", HfApi)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
    monkeypatch.setattr("pcequi.models.hub.hf_hub_download", download)
    assert model.push_to_hub("user/network", private=True, token="t") == "hub/user/network"
    assert asked["token"] == "t" and asked["made"] == ("user/network", True, True)
    assert sorted(path.name for path in kept.iterdir())[1:] == ["config.json", "model.safetensors"]
    again = GroupConvClassifier.from_pretrained("user/network", revision="v1")
    assert asked["read"] == ("user/network", "v1")
    graph = build_pose_graph(make_blob(20), model.levels)
    assert torch.equal(again(graph), model(graph))


def test_missing_and_damaged_files_are_named(model, tmp_path):
    def refused(*words):
        with pytest.raises(FileError, match=".*".join(words)):
            GroupConvClassifier.from_pretrained(tmp_path)

    refused("lacks config.json: write it with save_pretrained")
    model.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, settings = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:100])
    refused("gave no network of pcequi", "SafetensorError")
    weights.unlink()
    refused("lacks model.safetensors")
    weights.write_bytes(whole)
    for text in ("{", "[]", "null", "{}", settings.replace("GridPoses", "NoSuchPoses")):
        config.write_text(text)
        refused("(gave no network of pcequi|lacks config)")
    config.write_text(json.dumps(json.loads(settings) | {"channels": [4, 4, 4]}))
    refused("gave no network of pcequi", "must be", "name a folder")
    config.write_text(settings)
    save_file({k: v for k, v in load_file(weights).items() if "head.0" not in k}, weights)
    refused("gave no network of pcequi", "head.0.weight", "is missing")


def test_a_name_that_is_nothing(tmp_path):
    with pytest.raises(FileError, match="no/such/folder.*name a folder that save_pretrained wrote"):
        GroupConvClassifier.from_pretrained("no/such/folder")


def test_without_the_package_the_extra_is_named():
    # In a process of its own: the class takes the mixin when it is defined.
    program = """
import sys
sys.modules["huggingface_hub"] = None
from pcequi.errors import MissingPackageError
from pcequi.models import GroupConvClassifier
model = GroupConvClassifier.from_preset("small", 2)
calls = (lambda: model.save_pretrained("folder"), lambda: model.push_to_hub("user/network"),
         lambda: GroupConvClassifier.from_pretrained("user/network"))
for call in calls:
    try:
        call()
    except MissingPackageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('pip install ".[hub]"') == 3
