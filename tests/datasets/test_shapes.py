"""The default data set: deterministic, well formed, not trivial."""

from functools import partial

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pcequi.datasets import SHAPE_CLASSES, Shapes, make_shape
from pcequi.datasets import shapes as module
from pcequi.datasets.shapes_primitives import tube
from pcequi.errors import ArgumentError, DataError, FileError

ALL = [*SHAPE_CLASSES, "coil_left", "coil_right"]


def small(root, train=True, **changes):
    return Shapes(root, train, **({"num_train": 3, "num_test": 2, "num_points": 64} | changes))


def volume(vertices, faces):
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


@pytest.mark.parametrize("name", ALL)
def test_meshes_are_closed_and_face_outwards(name):
    for seed in range(12):
        vertices, faces = make_shape(name, np.random.default_rng(seed))
        assert np.isfinite(vertices).all()
        assert faces.min() == 0 and faces.max() == len(vertices) - 1
        # The volume of a closed mesh does not depend on the origin, and is
        # positive where faces look outwards.
        inside = volume(vertices, faces)
        assert inside > 0
        assert volume(vertices + 3, faces) == pytest.approx(inside, rel=1e-6)


@pytest.mark.parametrize("name", ["line", "arc", "ring"])
def test_rounding_does_not_decide_how_a_tube_lies(name):
    angle = np.linspace(0, 2 if name == "arc" else 2 * np.pi * 11 / 12, 12)
    path = np.stack([np.cos(angle), np.zeros(12), np.sin(angle)], axis=1)
    if name == "line":  # as the leg of a chair: two axes are used as much as each other
        path = np.linspace((0.3, 0.3, 1.0), (0.4, 0.4, 0.0), 12)
    noise = np.random.default_rng(0).normal(scale=1e-15, size=path.shape)
    made = [tube(one, 0.1, 4, closed=name == "ring")[0] for one in (path, path + noise)]
    assert np.abs(made[0] - made[1]).max() < 1e-13


def test_a_square_tube_stands_on_a_side():
    vertices, _ = tube([(0, 0, 0), (0, 0, 1)], 1.0, 4)
    assert np.allclose(np.abs(vertices[4:12, :2]), 0.5**0.5)


def test_members_of_a_class_differ():
    for name in ALL:
        sizes = [
            np.sort(np.ptp(make_shape(name, np.random.default_rng(seed))[0], axis=0))
            for seed in range(20)
        ]
        spread = np.std([size[0] / size[2] for size in sizes])
        assert spread > 0.01, name


def test_clouds_are_normalised_and_labelled(tmp_path):
    data = small(tmp_path, with_normals=True)
    assert len(data) == 3 * 16 and data.num_classes == 16 and data.classes == SHAPE_CLASSES
    assert len(small(tmp_path, train=False)) == 2 * 16
    counts = torch.bincount(torch.cat([d.y for d in data]), minlength=16)
    assert (counts == 3).all()
    for item in data:
        assert item.pos.dtype == torch.float32 and item.pos.shape == (64, 3)
        assert item.y.dtype == torch.long and item.y.shape == (1,)
        assert item.pos.mean(0).abs().max() < 1e-6
        assert float(item.pos.norm(dim=1).max()) == pytest.approx(1, abs=1e-6)
        assert torch.allclose(item.normal.norm(dim=1), torch.ones(64), atol=1e-5)
    assert "normal" not in small(tmp_path)[0]


def test_the_seed_decides_everything(tmp_path):
    first = small(tmp_path / "a")
    assert torch.equal(first.pos, small(tmp_path / "b").pos)
    assert not torch.equal(first.pos, small(tmp_path / "b", seed=1).pos)
    again = small(tmp_path / "a", force_reload=True)
    assert torch.equal(first.pos, again.pos)


def test_a_cloud_keeps_its_shape_whatever_stands_beside_it(tmp_path):
    alone = small(tmp_path, classes=["vase"], num_train=5)
    beside = small(tmp_path)
    place = 3 * SHAPE_CLASSES.index("vase")
    assert torch.equal(alone[1].pos, beside[place + 1].pos)
    assert alone.num_classes == 1 and int(alone[1].y) == 0
    train, test = small(tmp_path), small(tmp_path, train=False)
    assert not torch.equal(train[0].pos, test[0].pos)


def test_figures_of_a_stored_cloud_do_not_drift(tmp_path):
    # Guards a published accuracy: change a generator, raise `_VERSION`, and
    # write the new figure here.
    pos = Shapes(tmp_path, train=False, num_test=1)[SHAPE_CLASSES.index("teapot")].pos.double()
    moments = (pos**2).mean(0).tolist()
    assert moments == pytest.approx(FIRST_TEAPOT, abs=1e-6)


def test_the_coils_are_mirror_images():
    left = make_shape("coil_left", np.random.default_rng(5))
    right = make_shape("coil_right", np.random.default_rng(5))
    assert np.allclose(left[0] * [-1, 1, 1], right[0])
    assert volume(*left) == pytest.approx(volume(*right))


def test_transforms_and_filters_have_files_of_their_own(tmp_path):
    def half(data):
        data.pos = data.pos / 2
        return data

    def first_two(data):
        return int(data.y) < 2

    plain = small(tmp_path)
    halved = small(tmp_path, pre_transform=half)
    assert torch.equal(halved.pos, plain.pos / 2), "must not read the file without the transform"
    assert torch.equal(small(tmp_path).pos, plain.pos)
    few = small(tmp_path, pre_filter=first_two)
    assert len(few) == 6 and few.num_classes == 16
    live = small(tmp_path, transform=half)
    assert torch.equal(live[0].pos, plain[0].pos / 2)
    with pytest.raises(DataError, match=r"`pre_filter` \(=.*nothing.*\) leaves no cloud"):
        small(tmp_path, pre_filter=nothing)


class Scale:
    """A transform whose `repr` keeps its setting to itself, as many do."""

    def __init__(self, factors):
        self.factors = [factors]

    def __call__(self, data):
        data.pos = data.pos * self.factors[0]
        return data

    def __repr__(self):
        return "Scale()"


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: Compose([t]), lambda t: partial(t.__call__)]
)
def test_a_transform_with_other_settings_never_reads_the_old_file(tmp_path, wrap):
    plain = small(tmp_path).pos
    for factor in (2.0, 3.0, torch.tensor(4.0), torch.tensor([5.0, 5.0, 5.0])):
        assert torch.equal(small(tmp_path, pre_transform=wrap(Scale(factor))).pos, plain * factor)
    files = len(list(tmp_path.rglob("train.pt")))
    small(tmp_path, pre_transform=wrap(Scale(2.0)))
    assert len(list(tmp_path.rglob("train.pt"))) == files, "the same settings read the file"


def nothing(data):
    return False


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FileError,
        match=r"`root` \(=.*file.*\) will not do: .* cannot be made \(.*\); check the fold",
    ):
        small(tmp_path / "file")


def scale_by(factor, power=1):
    return lambda data: Data(pos=data.pos * factor**power, y=data.y)


def test_functions_of_one_name_have_files_of_their_own(tmp_path):
    plain = small(tmp_path).pos
    twice, thrice = scale_by(2.0), scale_by(3.0)
    assert twice.__qualname__ == thrice.__qualname__
    for function, factor in ((twice, 2), (thrice, 3), (scale_by(3.0, power=2), 9)):
        for wrapped in (function, Compose([function]), partial(function)):
            assert torch.equal(small(tmp_path, pre_transform=wrapped).pos, plain * factor)
    files = len(list(tmp_path.rglob("train.pt")))
    small(tmp_path, pre_transform=scale_by(2.0))
    assert len(list(tmp_path.rglob("train.pt"))) == files, "the same function reads the file"


def test_a_second_time_reads_the_file(tmp_path, monkeypatch):
    first = small(tmp_path)
    monkeypatch.setattr(module, "make_shape", None)
    assert torch.equal(small(tmp_path).pos, first.pos)


def test_a_run_cut_off_leaves_no_processed_file(tmp_path):
    def fails(data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, pre_transform=fails)
    assert not list(tmp_path.rglob("train.pt"))


def test_a_damaged_processed_file_is_named(tmp_path):
    pos = small(tmp_path).pos
    (path,) = tmp_path.rglob("train.pt")
    for content in (path.read_bytes()[:5000], b"", b"words"):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"train.pt' is damaged: pass force_reload=True"):
            small(tmp_path)
    assert torch.equal(small(tmp_path, force_reload=True).pos, pos)


def test_one_cloud_alone_and_a_loader_work(tmp_path):
    one = small(tmp_path, classes=["cup"], num_train=1)
    assert len(one) == 1 and one[0].pos.shape == (64, 3)
    batch = next(iter(DataLoader(small(tmp_path), batch_size=8)))
    assert batch.pos.shape == (8 * 64, 3) and batch.y.shape == (8,)


def test_nearest_centroids_do_not_solve_it(tmp_path):
    """Extents and a histogram of radii: a trivial invariant is not enough."""

    def features(data):
        rows = []
        for item in data:
            pos = item.pos.double()
            axes = torch.linalg.svd(pos, full_matrices=False)[2]
            turned = pos @ axes.T
            extent = (turned.amax(0) - turned.amin(0)).sort().values
            radii = torch.histc(pos.norm(dim=1), 16, 0, 1) / len(pos)
            rows.append(torch.cat([extent, radii]))
        return torch.stack(rows), torch.cat([item.y for item in data])

    train, label = features(Shapes(tmp_path, num_train=20, num_points=512))
    test, truth = features(Shapes(tmp_path, False, num_test=10, num_points=512))
    mean, scale = train.mean(0), train.std(0) + 1e-9
    train, test = (train - mean) / scale, (test - mean) / scale
    centroids = torch.stack([train[label == k].mean(0) for k in range(16)])
    accuracy = float((torch.cdist(test, centroids).argmin(1) == truth).double().mean())
    print(f"nearest centroid: {accuracy:.3f}")
    assert 0.3 < accuracy < 0.8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_train": 0}, r"`num_train` \(=0\) must be a whole number, at least 1"),
        ({"num_test": 1.5}, r"`num_test` \(=1.5\)"),
        ({"num_points": 0}, r"`num_points` \(=0\)"),
        ({"seed": -1}, r"`seed` \(=-1\) must be a whole number, at least 0"),
        ({"classes": ["cup", "dragon"]}, r"`classes` \(=\['cup', 'dragon'\]\) must name"),
        ({"classes": []}, r"`classes` \(=\[\]\)"),
        ({"classes": ["cup", "cup"]}, r"`classes` \(=\['cup', 'cup'\]\)"),
    ],
)
def test_errors_name_the_argument_and_its_value(tmp_path, changes, words):
    with pytest.raises(ArgumentError, match=words):
        small(tmp_path, **changes)


def test_an_unknown_shape_is_named():
    with pytest.raises(ArgumentError, match=r"`name` \(='dragon'\) must be one of airplane"):
        make_shape("dragon", np.random.default_rng(0))


FIRST_TEAPOT = [0.1512135, 0.1144074, 0.1483538]
