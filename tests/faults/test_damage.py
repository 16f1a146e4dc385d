"""Damaged files of every kind: noticed, named, and repaired where that is possible."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch

from pcequi import graph_store
from pcequi.datasets.readers import read_points
from pcequi.errors import FileError
from pcequi.graph_store import GraphStore
from pcequi.training import FitSettings, RunSettings, fit, load_checkpoint, save_checkpoint
from pcequi.training.run_settings import load_run_settings

pytestmark = pytest.mark.faults
FIT = FitSettings(epochs=2, batch_size=4)


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    before, graph_store.CHUNK = graph_store.CHUNK, 2
    yield
    graph_store.CHUNK = before


@pytest.fixture(scope="module")
def split(tiny):
    return tiny.tiny_split(6)


@pytest.fixture(scope="module")
def made(tiny, split, tmp_path_factory):
    """A store, and a run that has come to its end."""
    folder = tmp_path_factory.mktemp("made")
    store = tiny.tiny_store(folder / "graphs", split)
    model = tiny.tiny_model()
    fit(model, store, split.labels, FIT, folder=folder / "run", quiet=True)
    save_checkpoint(folder / "run", model, tiny.CLASSES, {"seed": 3})
    settings = RunSettings(fit=FIT).to_dict()
    (folder / "run" / "settings.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def each(damage, made, tmp_path, survived):
    """Every kind of damage to a fresh copy of a file; yields the kind and the folder."""

    def over(kinds, name, what):
        for kind, spoil in kinds.items():
            folder = damage.copied(made, tmp_path / "copy")
            (path,) = folder.glob(name)
            before = path.read_bytes()
            spoil(path)
            assert not path.is_file() or path.read_bytes() != before, kind
            yield kind, folder, path
            survived(f"kinds of damage to {what}")

    return over


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_chunks_are_found_out_and_made_again(tiny, split, damage, made, each):
    whole = content(next((made / "graphs").iterdir()))
    for kind, folder, path in each(
        damage.ANY | damage.TENSORS, "graphs/*/chunk-00001*", "graph caches"
    ):
        try:
            GraphStore(path.parent).verify()
            noticed = False
        except FileError as error:
            noticed = "chunk-00001" in str(error)
        assert noticed, kind
        store = tiny.tiny_store(folder / "graphs", split)
        assert content(store.folder) == whole, kind


def test_settings_of_a_store_are_written_again(tiny, split, damage, made, each):
    whole = content(next((made / "graphs").iterdir()))
    for kind, folder, path in each(
        damage.ANY | damage.JSON, "graphs/*/store.json", "settings of caches"
    ):
        with pytest.raises(FileError, match="holds no finished graph store"):
            GraphStore(path.parent)
        store = tiny.tiny_store(folder / "graphs", split)
        assert content(store.folder) == whole, kind


def test_a_state_is_refused_or_started_anew(tiny, split, damage, made, each):
    store = GraphStore(next((made / "graphs").iterdir()))
    weights = load_checkpoint(made / "run").model.state_dict()
    for kind, folder, _ in each(damage.ANY | damage.TENSORS, "run/state.safetensors", "states"):
        model = tiny.tiny_model()

        def go(model=model, folder=folder):
            return fit(
                model, store, split.labels, FIT, folder=folder / "run", resume=True, quiet=True
            )

        if kind in ("missing", "a dangling link"):
            assert len(go()) == 2
            for name, value in model.state_dict().items():
                assert torch.equal(value, weights[name]), (kind, name)
        else:
            with pytest.raises(FileError, match=r"state.safetensors.*delete it to start again"):
                go()


def test_weights_and_their_settings_are_refused(damage, each):
    for name, kinds in (("safetensors", damage.TENSORS), ("json", damage.JSON)):
        for kind, folder, _ in each(damage.ANY | kinds, f"run/model.{name}", "checkpoints"):
            with pytest.raises(FileError, match="model.(json|safetensors)") as caught:
                load_checkpoint(folder / "run")
                pytest.fail(f"{name}, {kind}: not noticed")
            assert len(str(caught.value)) < 2000


def test_settings_of_a_run_are_refused(damage, each):
    # A setting that is missing has its default value: a later pcequi may have more of them.
    kinds = {k: v for k, v in (damage.ANY | damage.JSON).items() if k != "a key missing"}
    for kind, folder, _ in each(kinds, "run/settings.json", "settings of runs"):
        with pytest.raises(FileError, match="settings.json"):
            load_run_settings(folder / "run")
            pytest.fail(f"{kind}: not noticed")


@pytest.mark.parametrize(
    "name", ["graphs/*/store.json", "run/model.json", "run/model.safetensors", "run/state*"]
)
def test_a_folder_in_the_place_of_a_file(tiny, split, damage, made, tmp_path, survived, name):
    folder = damage.copied(made, tmp_path / "copy")
    (path,) = folder.glob(name)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=path.name):
        if name.startswith("graphs"):
            GraphStore(path.parent)
        elif "state" in name:
            store = GraphStore(next((folder / "graphs").iterdir()))
            model = tiny.tiny_model()
            fit(model, store, split.labels, FIT, folder=folder / "run", resume=True, quiet=True)
        else:
            load_checkpoint(folder / "run")
    survived("folders in the place of files")


@pytest.fixture
def nobody(tiny, split):
    """A folder that all may enter, and a user who may not read everything."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        Path(place).chmod(0o755)

        @contextlib.contextmanager
        def without_rights():
            # Root may read anything; another user is one system call away.
            root = os.geteuid() == 0
            if root:
                os.seteuid(65534)
            try:
                yield
            finally:
                if root:
                    os.seteuid(0)

        yield folder, without_rights


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize(
    "name", ["graphs/*/chunk-00001*", "graphs/*/store.json", "run/model.json", "run/state*"]
)
def test_what_may_not_be_read(tiny, split, damage, made, nobody, survived, name, what):
    folder, without_rights = nobody
    damage.copied(made, folder)
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o755)
    (path,) = folder.glob(name)
    store = GraphStore(next((folder / "graphs").iterdir()))
    forbidden = path if what == "file" else path.parent
    forbidden.chmod(0)
    try:
        with without_rights(), pytest.raises(FileError, match=f"{forbidden.name}"):
            if name.startswith("graphs"):
                GraphStore(path.parent)
            elif "state" in name:
                model = tiny.tiny_model()
                fit(model, store, split.labels, FIT, folder=folder / "run", resume=True, quiet=True)
            else:
                load_checkpoint(folder / "run")
    finally:
        forbidden.chmod(0o755)
    survived("files that may not be read")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_cloud_that_may_not_be_read(nobody, survived, what):
    folder, without_rights = nobody
    folder.mkdir()
    path = folder / "cloud.xyz"
    path.write_text("1 2 3\n")
    forbidden = path if what == "file" else folder
    forbidden.chmod(0)
    try:
        with without_rights(), pytest.raises(FileError, match="cloud.xyz"):
            read_points(path)
    finally:
        forbidden.chmod(0o755)
    survived("files that may not be read")
